//! The result, as tables for people and as JSON.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::library::{Input, Library};
use crate::measure::Row;

/// The crates whose versions a result is worth nothing without.
const CRATES: [&str; 9] = ["ring", "aws-lc-rs", "aws-lc-sys", "openssl", "p256", "p384", "p521", "rsa", "ed25519-dalek"];

/// Everything that one run found.
#[derive(Serialize)]
pub(crate) struct Report {
    versions: Vec<String>,
    rounds: u32,
    slice_ms: u64,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(rounds: u32, slice_ms: u64, rows: Vec<Row>) -> Self {
        let mut versions: Vec<_> = CRATES.into_iter().map(locked).collect();
        versions.push(openssl::version::version().to_owned());
        Self { versions, rounds, slice_ms, rows }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.versions.join(", "))?;
        writeln!(
            f,
            "Verifications per CPU second on one thread: median of {} turns of {} ms, and its ratio to the best of the line; - cannot.",
            self.rounds, self.slice_ms
        )?;
        for input in Input::ALL {
            write!(f, "\n{}\n{:22}", title(input), "")?;
            Library::ALL.iter().try_for_each(|library| write!(f, "{:>16}", name(library)))?;
            writeln!(f)?;
            self.rows.iter().filter(|row| row.input == input).try_for_each(|row| write_row(f, row))?;
        }
        Ok(())
    }
}

fn write_row(f: &mut Formatter<'_>, row: &Row) -> fmt::Result {
    write!(f, "{:22}", name(&row.algorithm))?;
    for library in Library::ALL {
        match row.results.iter().find(|result| result.library == library) {
            Some(result) => write!(f, "{:>11.0} {:.2}", result.median, result.ratio)?,
            None => write!(f, "{:>16}", "-")?,
        }
    }
    writeln!(f)
}

fn title(input: Input) -> &'static str {
    match input {
        Input::Message => "The message; key parsed once (ring: every time)",
        Input::Digest => "A digest made elsewhere; key parsed once",
        Input::KeyAndMessage => "The message; key parsed every time",
    }
}

/// The name that the JSON uses too.
fn name(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// `name` with the version that this program was built with.
fn locked(name: &str) -> String {
    let package = format!("name = \"{name}\"\nversion = \"");
    let version = include_str!("../Cargo.lock").split_once(&package).and_then(|(_, rest)| rest.split('"').next());
    format!("{name} {}", version.unwrap_or("?"))
}
