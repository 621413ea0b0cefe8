//! The one place that writes to the terminal.
//!
//! Results go to standard output; a reader that has gone away (`| head`) is not an error of ours. Everything else goes to standard error.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use anyhow::Context as _;
use serde::Serialize;

/// Writes a line of the result.
pub(super) fn line(text: impl Display) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes the result as one line of JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value).context("the result cannot be written as JSON; report this as a bug")?)
}

/// Writes a result that is not text.
pub(super) fn bytes(content: &[u8]) -> anyhow::Result<()> {
    written(content).map(drop)
}

/// Writes a line of a result that has no end; whether anybody still reads it.
pub(super) fn line_of_many(text: impl Display) -> anyhow::Result<bool> {
    written(format!("{text}\n").as_bytes())
}

/// Standard output for a result that is too long to be held in memory; a reader that has gone away is an error of kind `BrokenPipe`.
pub(super) fn stream() -> impl io::Write {
    io::BufWriter::new(io::stdout().lock())
}

fn written(content: &[u8]) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(content).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("standard output cannot be written; check where it is redirected to"),
    }
}

/// Tells the person at the terminal something that is not the result.
pub(super) fn note(text: impl Display) {
    // Standard error may be closed; there is nobody left to tell.
    let _ = note_on(&mut io::stderr().lock(), text);
}

/// The line goes out in one write: the modules' processes and the log write to the same pipe and would come between its parts.
fn note_on(out: &mut impl io::Write, text: impl Display) -> io::Result<()> {
    out.write_all(format!("{text}\n").as_bytes())
}

/// Writes rows of text as columns, each as wide as its widest cell.
pub(super) fn table(rows: &[Vec<String>]) -> anyhow::Result<()> {
    rows.iter().try_for_each(|row| line(padded(row, &widths(rows))))
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    (0..columns).map(width).collect()
}

fn padded(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "state".to_owned()], vec!["токен".to_owned(), "x".to_owned()]];
        assert_eq!(padded(&rows[0], &widths(&rows)), "a      state");
        assert_eq!(padded(&rows[1], &widths(&rows)), "токен  x");
    }

    #[test]
    fn a_note_is_written_at_once_so_that_no_other_process_comes_between_its_words() {
        #[derive(Default)]
        struct Writes(Vec<Vec<u8>>);
        impl io::Write for Writes {
            fn write(&mut self, part: &[u8]) -> io::Result<usize> {
                self.0.push(part.to_owned());
                Ok(part.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writes = Writes::default();
        note_on(&mut writes, format_args!("serving on {}", "http://[::1]:1")).unwrap();
        assert_eq!(writes.0, [b"serving on http://[::1]:1\n"]);
    }
}
