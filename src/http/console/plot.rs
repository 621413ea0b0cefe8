//! Plots as SVG: drawn here from numbers alone, with labels in HTML beside them, so that they keep their size on a phone.
//!
//! Invariant: what is drawn is made of numbers and of words in the code; nothing of a request or of the store is in it.

use std::fmt::Write as _;

/// The drawing's own measures; the browser stretches it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 140.0;
/// The fewest units that the axis goes up to.
const LEAST_TOP: f64 = 1e-9;

/// How values are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Line,
    Area,
    Bars,
}

/// Values over the last hour, the oldest first.
pub(super) struct Series {
    class: &'static str,
    name: &'static str,
    values: Vec<Option<f64>>,
    style: Style,
}

/// What stands under a plot for a series.
pub(super) struct Legend {
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    /// The last value.
    pub(super) now: String,
}

/// A plot with its words.
pub(super) struct Figure {
    pub(super) title: &'static str,
    pub(super) svg: String,
    /// What the top of the axis stands for.
    pub(super) top: String,
    pub(super) legends: Vec<Legend>,
    /// The same for those who cannot see it.
    pub(super) summary: String,
    pub(super) is_empty: bool,
}

impl Series {
    pub(super) const fn line(class: &'static str, name: &'static str, values: Vec<Option<f64>>) -> Self {
        Self { class, name, values, style: Style::Line }
    }

    pub(super) const fn area(class: &'static str, name: &'static str, values: Vec<Option<f64>>) -> Self {
        Self { class, name, values, style: Style::Area }
    }

    pub(super) const fn bars(class: &'static str, name: &'static str, values: Vec<Option<f64>>) -> Self {
        Self { class, name, values, style: Style::Bars }
    }

    fn greatest(&self) -> f64 {
        self.values.iter().flatten().copied().fold(0.0, f64::max)
    }

    fn last(&self) -> Option<f64> {
        self.values.iter().rev().flatten().next().copied()
    }
}

/// Draws series over one axis that begins at zero.
pub(super) fn figure(title: &'static str, series: Vec<Series>, unit: impl Fn(f64) -> String) -> Figure {
    let greatest = series.iter().map(Series::greatest).fold(0.0, f64::max);
    let top = round_up(greatest);
    let legend =
        |series: &Series| Legend { class: series.class, name: series.name, now: series.last().map_or_else(|| "none".to_owned(), &unit) };
    let legends: Vec<_> = series.iter().map(legend).collect();
    let words = series
        .iter()
        .zip(&legends)
        .map(|(series, legend)| format!("{}: now {}, at most {}", legend.name, legend.now, unit(series.greatest())));
    let summary = format!("{title} over the last hour. {}.", words.collect::<Vec<_>>().join("; "));
    Figure { title, svg: draw(&series, top), top: unit(top), summary, is_empty: greatest <= 0.0, legends }
}

fn draw(series: &[Series], top: f64) -> String {
    let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true" focusable="false">"#);
    for line in 0..=4 {
        let y = HEIGHT * f64::from(line) / 4.0;
        // Writing to a string cannot fail, here and below.
        let _ = write!(svg, r#"<line class="grid" x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>"#);
    }
    for series in series {
        let _ = match series.style {
            Style::Bars => write!(svg, r#"<path class="bars {}" d="{}"/>"#, series.class, bars(&series.values, top)),
            Style::Line => write!(
                svg,
                r#"<path class="line {class}" d="{line}"/><path class="line dots {class}" d="{dots}"/>"#,
                class = series.class,
                line = line(&series.values, top),
                dots = dots(&series.values, top)
            ),
            Style::Area => write!(
                svg,
                r#"<path class="area {class}" d="{area}"/><path class="line {class}" d="{line}"/>"#,
                class = series.class,
                area = area(&series.values, top),
                line = line(&series.values, top)
            ),
        };
    }
    svg + "</svg>"
}

/// Where a value stands.
fn point(values: &[Option<f64>], at: usize, value: f64, top: f64) -> (f64, f64) {
    // A few dozen points: exact.
    #[allow(clippy::cast_precision_loss)]
    let across = at as f64 / (values.len().saturating_sub(1).max(1)) as f64;
    (across * WIDTH, HEIGHT - value / top * (HEIGHT - 2.0) - 1.0)
}

/// Runs of values without a gap, each with the places of its points.
fn runs(values: &[Option<f64>], top: f64) -> Vec<Vec<(f64, f64)>> {
    let mut runs = vec![Vec::new()];
    for (at, value) in values.iter().enumerate() {
        match (value, runs.last_mut()) {
            (Some(value), Some(run)) => run.push(point(values, at, *value, top)),
            _ => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

fn line(values: &[Option<f64>], top: f64) -> String {
    let mut path = String::new();
    for run in runs(values, top) {
        for (n, (x, y)) in run.iter().enumerate() {
            let _ = write!(path, "{}{x:.1} {y:.1}", if n == 0 { "M" } else { "L" });
        }
    }
    path
}

/// Points that stand alone, of which a line shows nothing; each is seen by its round ends.
fn dots(values: &[Option<f64>], top: f64) -> String {
    let alone = runs(values, top).into_iter().filter(|run| run.len() == 1).flatten();
    alone.map(|(x, y)| format!("M{x:.1} {y:.1}h0")).collect()
}

fn area(values: &[Option<f64>], top: f64) -> String {
    let mut path = String::new();
    for run in runs(values, top) {
        let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else { continue };
        let _ = write!(path, "M{first:.1} {HEIGHT}");
        for (x, y) in &run {
            let _ = write!(path, "L{x:.1} {y:.1}");
        }
        let _ = write!(path, "L{last:.1} {HEIGHT}Z");
    }
    path
}

fn bars(values: &[Option<f64>], top: f64) -> String {
    let mut path = String::new();
    for (at, value) in values.iter().enumerate() {
        if let Some(value) = value.filter(|value| *value > 0.0) {
            let (x, y) = point(values, at, value, top);
            let x = x.min(WIDTH - 6.0);
            let _ = write!(path, "M{x:.1} {HEIGHT}V{y:.1}h6V{HEIGHT}Z");
        }
    }
    path
}

/// The next number of the kind 1, 2, 5, 10, … that is no less.
fn round_up(value: f64) -> f64 {
    if value <= LEAST_TOP {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= value * 0.999_999).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        assert_eq!([0.0, 0.9, 1.0, 1.1, 3.0, 70.0].map(round_up), [1.0, 1.0, 1.0, 2.0, 5.0, 100.0]);
        assert!((round_up(0.0031) - 0.005).abs() < 1e-12);
    }

    #[test]
    fn a_gap_breaks_the_line_and_nothing_is_drawn_of_nothing() {
        let values = [Some(0.0), Some(1.0), None, Some(1.0)];
        assert_eq!((line(&values, 1.0), dots(&values, 1.0)), ("M0.0 139.0L200.0 1.0M600.0 1.0".to_owned(), "M600.0 1.0h0".to_owned()));
        let empty = figure("Nothing", vec![Series::line("a", "b", vec![None; 3])], |value| format!("{value}"));
        assert!(empty.is_empty && empty.svg.contains(r#"d="""#) && empty.legends[0].now == "none", "{}", empty.svg);
    }
}
