//! Taking turns: every library proves that it checks, then they are timed slice by slice.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::library::{Check, Input, Library};
use crate::sample::{Algorithm, Key, Sample};

/// The results of one algorithm with one kind of input.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) algorithm: Algorithm,
    pub(crate) input: Input,
    /// The libraries that can do it.
    pub(crate) results: Vec<Measured>,
}

/// What one library reached, over all rounds.
#[derive(Serialize)]
pub(crate) struct Measured {
    pub(crate) library: Library,
    /// Verifications a second: the median round, the slowest and the fastest.
    pub(crate) median: f64,
    pub(crate) slowest: f64,
    pub(crate) fastest: f64,
    /// The median over the best median of the row.
    pub(crate) ratio: f64,
}

struct Contest<'a> {
    key: &'a Key,
    input: Input,
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    library: Library,
    check: Check<'a>,
    rates: Vec<f64>,
}

/// Measures every library with every key and input, `rounds` turns of `slice` CPU time each.
///
/// # Errors
/// A library cannot read a key, refuses a good signature or accepts a bad one; nothing is timed then.
pub(crate) fn rows(keys: &[Key], rounds: u32, slice: Duration) -> Result<Vec<Row>> {
    let mut contests = Vec::new();
    for input in Input::ALL {
        for key in keys {
            contests.push(Contest::new(key, input)?);
        }
    }
    for round in 0..rounds as usize {
        for contest in &mut contests {
            contest.run(round, slice);
        }
    }
    Ok(contests.into_iter().filter(|c| !c.entries.is_empty()).map(Contest::into_row).collect())
}

impl<'a> Contest<'a> {
    fn new(key: &'a Key, input: Input) -> Result<Self> {
        let mut entries = Vec::new();
        for library in Library::ALL {
            if let Some(check) = library.check(key, input)? {
                prove(library, key, &check)?;
                entries.push(Entry { library, check, rates: Vec::new() });
            }
        }
        Ok(Self { key, input, entries })
    }

    /// One turn for each, another one first in every round.
    fn run(&mut self, round: usize, slice: Duration) {
        let libraries = self.entries.len();
        for turn in 0..libraries {
            let entry = &mut self.entries[(round + turn) % libraries];
            entry.rates.push(rate(&entry.check, &self.key.samples, slice));
        }
    }

    fn into_row(self) -> Row {
        let mut results: Vec<_> = self.entries.into_iter().map(Entry::into_measured).collect();
        let best = results.iter().map(|r| r.median).fold(0.0, f64::max);
        results.iter_mut().for_each(|r| r.ratio = r.median / best);
        Row { algorithm: self.key.algorithm, input: self.input, results }
    }
}

impl Entry<'_> {
    fn into_measured(mut self) -> Measured {
        self.rates.sort_by(f64::total_cmp);
        let last = self.rates.len() - 1;
        let (slowest, median, fastest) = (self.rates[0], self.rates[last / 2], self.rates[last]);
        Measured { library: self.library, median, slowest, fastest, ratio: 1.0 }
    }
}

/// Fails unless `check` accepts every signature, and refuses each one altered, and on another message.
fn prove(library: Library, key: &Key, check: &Check<'_>) -> Result<()> {
    let mut other = &key.samples[key.samples.len() - 1];
    for sample in &key.samples {
        // The last bit belongs to a number in every format, so the altered signature is well-formed and wrong.
        let mut altered = sample.clone();
        altered.signature.last_mut().into_iter().for_each(|byte| *byte ^= 1);
        let moved = Sample { signature: sample.signature.clone(), ..other.clone() };
        ensure!(check(sample), "{library:?} refuses a good {:?} signature", key.algorithm);
        ensure!(!check(&altered), "{library:?} accepts an altered {:?} signature", key.algorithm);
        ensure!(!check(&moved), "{library:?} accepts a {:?} signature of another message", key.algorithm);
        other = sample;
    }
    Ok(())
}

/// Verifications per second of CPU time, over at least `slice` of it.
fn rate(check: &Check<'_>, samples: &[Sample], slice: Duration) -> f64 {
    let start = cpu_time();
    let mut done = 0.0;
    loop {
        for sample in samples {
            assert!(black_box(check(black_box(sample))), "a signature that was good is refused");
            done += 1.0;
        }
        let spent = cpu_time() - start;
        if spent >= slice {
            return done / spent.as_secs_f64();
        }
    }
}

/// The time that this thread has run.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
