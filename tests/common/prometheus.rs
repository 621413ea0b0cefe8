//! A strict reader of Prometheus' text format (version 0.0.4): what it reads, Prometheus reads; what it refuses, a test has found.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Command, Stdio},
};

type Labels = BTreeMap<String, String>;

/// What one scrape brought.
#[derive(Debug)]
pub struct Scrape {
    /// The type of each metric, by name.
    pub types: BTreeMap<String, String>,
    samples: Vec<(String, Labels, f64)>,
}

impl Scrape {
    /// Reads a scrape; anything that is not as the format has it is a panic.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line does not end");
        let mut scrape = Self { types: BTreeMap::new(), samples: Vec::new() };
        let (mut helped, mut family, mut closed) = (BTreeSet::new(), String::new(), BTreeSet::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# ") {
                let (word, rest) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                let (name, rest) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                match word {
                    "HELP" => assert!(helped.insert(name.to_owned()) && !rest.is_empty(), "{line}"),
                    "TYPE" => {
                        assert!(["counter", "gauge", "histogram"].contains(&rest), "{line}");
                        assert_eq!(scrape.types.insert(name.to_owned(), rest.to_owned()), None, "{line}");
                        assert!(closed.insert(std::mem::replace(&mut family, name.to_owned())), "{line}");
                    }
                    _ => panic!("{line}"),
                }
                continue;
            }
            let sample = sample(line);
            let suffixes: &[&str] =
                if scrape.types.get(&family).is_some_and(|kind| kind == "histogram") { &["_bucket", "_sum", "_count"] } else { &[""] };
            let belongs = sample.0.strip_prefix(family.as_str()).is_some_and(|suffix| suffixes.contains(&suffix));
            assert!(belongs && helped.contains(&family), "no type or help right before: {line}");
            scrape.samples.push(sample);
        }
        scrape.check();
        scrape
    }

    fn check(&self) {
        let mut seen = BTreeSet::new();
        for (name, labels, _) in &self.samples {
            assert!(seen.insert((name, labels)), "twice: {name} {labels:?}");
        }
        for (name, kind) in &self.types {
            if kind == "counter" {
                assert!(self.all(name).all(|(_, value)| value >= 0.0), "{name}");
            }
            if kind == "histogram" {
                self.check_histogram(name);
            }
        }
    }

    fn check_histogram(&self, name: &str) {
        for (labels, count) in self.all(&format!("{name}_count")) {
            let mut below: Vec<(f64, f64)> = Vec::new();
            for (mut bucket, value) in self.all(&format!("{name}_bucket")) {
                let bound = bucket.remove("le").unwrap_or_else(|| panic!("{name} has a bucket without a bound"));
                if bucket == labels {
                    below.push((bound.parse().unwrap(), value));
                }
            }
            assert!(below.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels:?}: {below:?}");
            assert_eq!(below.last(), Some(&(f64::INFINITY, count)), "{name} {labels:?}");
            assert_eq!(self.all(&format!("{name}_sum")).filter(|(other, _)| *other == labels).count(), 1, "{name}");
        }
    }

    /// All series of a metric.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (Labels, f64)> + 'a {
        self.samples.iter().filter(move |sample| sample.0 == name).map(|(_, labels, value)| (labels.clone(), *value))
    }

    /// The sum of the series that have these labels, among others; zero if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |found: &Labels| labels.iter().all(|(label, value)| found.get(*label).is_some_and(|found| found == value));
        self.all(name).filter(|(found, _)| fits(found)).map(|(_, value)| value).sum()
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }
}

/// `name{label="value",…} number`
fn sample(line: &str) -> (String, Labels, f64) {
    let name_len = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(name_len);
    assert!(is_name(name, true), "{line}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            let (value, after) = quoted(after, line);
            assert!(is_name(label, false) && labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let number = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    (name.to_owned(), labels, number.parse().unwrap_or_else(|_| panic!("{line}")))
}

fn quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('\\' | '"'))) => escaped,
                _ => panic!("{line}"),
            }),
            c => value.push(c),
        }
    }
    panic!("{line}")
}

fn is_name(text: &str, with_colon: bool) -> bool {
    let lawful = |c: char| c.is_ascii_alphanumeric() || c == '_' || (with_colon && c == ':');
    text.chars().all(lawful) && text.starts_with(|c: char| !c.is_ascii_digit())
}

/// Has `promtool` judge, too, where it is installed (Debian's package `prometheus`); says so where it is not.
pub fn promtool(arguments: &[&str], input: &str) {
    use std::io::Write as _;
    let started = Command::new("promtool").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = started else {
        eprintln!("promtool is not installed: our own reader was the only judge");
        return;
    };
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}
