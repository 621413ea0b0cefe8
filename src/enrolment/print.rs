//! The application as a PDF, for signing on paper: what the form says, the public key, and with the second edition the request itself.
//!
//! The same request gives the same bytes, so that a holder can also sign the PDF as it is: see `confirm`.

use krilla::{
    Document,
    geom::Point,
    page::{Page, PageSettings},
    text::{Font, TextDirection},
};

use super::{EnrolmentError, Fault};
use crate::{
    domain::enrolment::{Enrolment, EnrolmentState},
    pki::csr::{CertificateRequest, request_pem},
};

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edition {
    /// The application.
    Application,
    /// The application and the certificate request.
    WithRequest,
}

/// A4, in points.
const PAGE: (f32, f32) = (595.0, 842.0);
const MARGIN: f32 = 56.0;
const LABEL_WIDTH: f32 = 150.0;
const TEXT_SIZE: f32 = 10.0;
const SMALL_SIZE: f32 = 8.5;
const TITLE_SIZE: f32 = 15.0;
const LEADING: f32 = 1.45;
/// How wide a character of the text font is at most on average, and one of the fixed font exactly, as parts of the size.
const TEXT_ADVANCE: f32 = 0.64;
const FIXED_ADVANCE: f32 = 0.602;
/// Digits in a line of hex, in groups of two.
const HEX_LINE: usize = 24;
/// The most lines of one value: what does not fit is cut, and the page says so.
const LINES_MAX: usize = 400;

struct Fonts {
    text: Font,
    bold: Font,
    fixed: Font,
}

impl Fonts {
    fn load() -> Option<Self> {
        let font = |bytes: &'static [u8]| Font::new(bytes.to_vec().into(), 0);
        Some(Self {
            text: font(include_bytes!("fonts/DejaVuSans.ttf"))?,
            bold: font(include_bytes!("fonts/DejaVuSans-Bold.ttf"))?,
            fixed: font(include_bytes!("fonts/DejaVuSansMono.ttf"))?,
        })
    }
}

/// One line on paper.
struct Line {
    x: f32,
    font: Face,
    size: f32,
    text: String,
    /// It stands beside the line before it.
    beside: bool,
    /// Room above it, in lines.
    gap: f32,
}

#[derive(Clone, Copy)]
enum Face {
    Text,
    Bold,
    Fixed,
}

/// Prints a request.
///
/// # Errors
/// [`Fault::State`] if there is no certificate request yet, [`EnrolmentError::Unavailable`] if no PDF could be made.
pub fn print(enrolment: &Enrolment, edition: Edition) -> Result<Vec<u8>, EnrolmentError> {
    let der = enrolment.request.as_ref().ok_or(Fault::State(EnrolmentState::Accepted))?;
    let request = CertificateRequest::from_der(&der.0)?;
    let mut lines = application(enrolment, &request);
    if edition == Edition::WithRequest {
        lines.push(heading("Запрос на сертификат (PKCS#10)"));
        lines.extend(request_pem(&der.0).lines().take(LINES_MAX).map(|line| fixed(line.to_owned())));
    }
    lay_out(&lines).ok_or_else(|| EnrolmentError::Unavailable("the PDF could not be made".to_owned()))
}

fn application(enrolment: &Enrolment, request: &CertificateRequest) -> Vec<Line> {
    let form = &enrolment.application;
    let mut lines =
        vec![Line {
            x: MARGIN, font: Face::Bold, size: TITLE_SIZE, text: "Заявление на изготовление".to_owned(), beside: false, gap: 0.0
        }];
    lines.push(Line {
        gap: 0.0, ..title("сертификата ключа проверки электронной подписи".to_owned())
    });
    let fields = [
        ("Номер", form.number.as_str()),
        ("Идентификатор", enrolment.external_id.as_str()),
        ("Организация", form.organisation.as_deref().unwrap_or(&enrolment.organisation)),
        ("Владелец", &form.full_name),
        ("Должность", &form.position),
        ("Логин", &enrolment.login),
        ("Электронная почта", &form.email),
        ("Идентификатор ключа", form.key_identifier.as_deref().unwrap_or("")),
    ];
    for (at, (name, value)) in fields.into_iter().filter(|(_, value)| !value.is_empty()).enumerate() {
        lines.extend(field(name, value, if at == 0 { 1.0 } else { 0.0 }));
    }
    lines.extend(field("Имя владельца (X.500)", &request.subject().to_string(), 0.0));
    lines.extend(field("Алгоритм ключа", &request.key_kind().to_string(), 0.0));
    lines.push(heading("Ключ проверки электронной подписи (SubjectPublicKeyInfo)"));
    lines.extend(request.spki().chunks(HEX_LINE).map(|bytes| fixed(bytes.iter().map(|byte| format!("{byte:02X} ")).collect::<String>())));
    for (at, text) in [
        "Владелец сертификата  ____________________ / ____________________",
        "Руководитель  ____________________ / ____________________",
        "«____» ______________ 20____ г.                М. П.",
    ]
    .into_iter()
    .enumerate()
    {
        lines.push(Line {
            x: MARGIN,
            font: Face::Text,
            size: TEXT_SIZE,
            text: text.to_owned(),
            beside: false,
            gap: if at == 0 { 2.0 } else { 1.0 },
        });
    }
    lines
}

fn title(text: String) -> Line {
    Line { x: MARGIN, font: Face::Bold, size: TITLE_SIZE, text, beside: false, gap: 0.0 }
}

fn heading(text: &str) -> Line {
    Line { x: MARGIN, font: Face::Bold, size: TEXT_SIZE, text: text.to_owned(), beside: false, gap: 1.0 }
}

fn fixed(text: String) -> Line {
    Line { x: MARGIN, font: Face::Fixed, size: SMALL_SIZE, text, beside: false, gap: 0.0 }
}

/// A name and its value, which may take several lines.
fn field(name: &str, value: &str, gap: f32) -> Vec<Line> {
    let width = PAGE.0 - 2.0 * MARGIN - LABEL_WIDTH;
    let mut lines = vec![Line { x: MARGIN, font: Face::Bold, size: TEXT_SIZE, text: name.to_owned(), beside: false, gap }];
    for (at, text) in wrapped(value, fitting(width, TEXT_SIZE * TEXT_ADVANCE)).into_iter().enumerate() {
        lines.push(Line { x: MARGIN + LABEL_WIDTH, font: Face::Text, size: TEXT_SIZE, text, beside: at == 0, gap: 0.0 });
    }
    lines
}

/// How many characters fit.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a page has few characters in a line, and more than none")]
fn fitting(width: f32, advance: f32) -> usize {
    ((width / advance) as usize).max(1)
}

/// Lines of at most `width` characters, broken between words where there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word = word;
        while let Some(line) = lines.last_mut() {
            let used = line.chars().count();
            let room = width.saturating_sub(used + usize::from(used > 0));
            let length = word.chars().count();
            if length <= room || (used == 0 && length <= width) {
                if used > 0 {
                    line.push(' ');
                }
                line.push_str(word);
                break;
            }
            if used == 0 {
                let cut = word.char_indices().nth(width).map_or(word.len(), |(at, _)| at);
                line.push_str(&word[..cut]);
                word = &word[cut..];
            }
            lines.push(String::new());
            if lines.len() > LINES_MAX {
                return lines;
            }
        }
    }
    lines
}

fn lay_out(lines: &[Line]) -> Option<Vec<u8>> {
    let fonts = Fonts::load()?;
    let mut document = Document::new();
    let mut rest = lines;
    while !rest.is_empty() {
        let mut page = document.start_page_with(PageSettings::from_wh(PAGE.0, PAGE.1)?);
        let drawn = draw_page(&mut page, &fonts, rest);
        page.finish();
        rest = &rest[drawn..];
    }
    document.finish().ok()
}

/// Draws as many lines as fit, and says how many.
fn draw_page(page: &mut Page<'_>, fonts: &Fonts, lines: &[Line]) -> usize {
    let mut surface = page.surface();
    let mut y = MARGIN;
    for (at, line) in lines.iter().enumerate() {
        let height = line.size * LEADING;
        if !line.beside {
            y += height * (1.0 + if at == 0 { 0.0 } else { line.gap });
        }
        if y > PAGE.1 - MARGIN && at > 0 {
            surface.finish();
            return at;
        }
        let font = match line.font {
            Face::Text => &fonts.text,
            Face::Bold => &fonts.bold,
            Face::Fixed => &fonts.fixed,
        };
        // A line of fixed text that is too long is made smaller.
        let width = PAGE.0 - MARGIN - line.x;
        #[allow(clippy::cast_precision_loss, reason = "lines are short")]
        let needed = line.text.chars().count() as f32 * line.size * FIXED_ADVANCE;
        let size = if matches!(line.font, Face::Fixed) && needed > width { line.size * width / needed } else { line.size };
        surface.draw_text(Point::from_xy(line.x, y), font.clone(), size, &line.text, false, TextDirection::LeftToRight);
    }
    surface.finish();
    lines.len()
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn words_are_not_broken_unless_they_are_longer_than_a_line() {
        assert_eq!(wrapped("один два три", 8), ["один два", "три"]);
        assert_eq!(wrapped("abcdefghij kl", 4), ["abcd", "efgh", "ij", "kl"]);
        assert_eq!(wrapped("", 4), [""]);
    }

    #[test]
    fn long_texts_go_on_on_another_page() {
        let lines: Vec<_> = (0..200).map(|number| fixed(format!("line {number}"))).collect();
        let pdf = lay_out(&lines).unwrap();
        assert_eq!(pdf, lay_out(&lines).unwrap(), "the same request gives the same bytes");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), pdf).unwrap();
        let text = Command::new("pdftotext").arg(file.path()).arg("-").output().unwrap();
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.contains("line 0") && text.contains("line 199") && text.matches('\u{c}').count() > 1, "{text}");
    }
}
