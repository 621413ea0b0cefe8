//! `sealgate permits watch`: each request is shown as it comes, and decided in place. Answers are lines of standard input, typed or piped, and it ends
//! with them. Invariant: what was typed before a question was shown is no answer to it.

use std::{
    collections::{HashSet, VecDeque},
    io::{BufRead as _, IsTerminal as _, stdin},
    path::Path,
    pin::pin,
    thread,
};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::{asked_uses, described, told};
use crate::{
    cli::{control_client::ControlClient, output, runtime},
    domain::{ids::PermitId, permit::PermitState},
    http::control::permits::{GrantDto, PermitChangesDto, PermitDto},
};

/// The most answers that are read ahead.
const ANSWERS_MAX: usize = 16;

/// What an operator says to a request.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Allow(Option<u32>),
    Refuse,
}

/// Asks about each request until the input or the gateway ends.
pub(super) fn run(control: &Path) -> anyhow::Result<()> {
    let gateway = ControlClient::expect(control)?;
    let answers = read_answers()?;
    let watch =
        Watch { gateway, answers, early: VecDeque::new(), ended: false, typed: stdin().is_terminal(), seen: HashSet::new(), change: None };
    runtime()?.block_on(watch.follow())
}

/// Lines of standard input, on a thread of their own: a terminal cannot be waited for in any other way, and the thread ends with the program.
fn read_answers() -> anyhow::Result<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
    let read = move || stdin().lock().lines().map_while(Result::ok).try_for_each(|line| sender.blocking_send(line));
    thread::Builder::new().name("answers".to_owned()).spawn(read).context("no thread was made; try again")?;
    Ok(receiver)
}

struct Watch {
    gateway: ControlClient,
    answers: mpsc::Receiver<String>,
    /// Piped answers to questions that are not asked yet.
    early: VecDeque<String>,
    /// The input has ended.
    ended: bool,
    /// It is a terminal, at which somebody types.
    typed: bool,
    /// What was asked about already.
    seen: HashSet<PermitId>,
    change: Option<u64>,
}

impl Watch {
    async fn follow(mut self) -> anyhow::Result<()> {
        while let Some(waiting) = self.changes().await? {
            self.seen.retain(|id| waiting.iter().any(|permit| permit.id == *id));
            let new = waiting.into_iter().find(|permit| !self.seen.contains(&permit.id));
            if let Some(permit) = new
                && !self.ask(permit.id).await?
            {
                break;
            }
        }
        Ok(())
    }

    /// What waits now; after a change, where everything was asked about already. `None` when there are no answers any more.
    async fn changes(&mut self) -> anyhow::Result<Option<Vec<PermitDto>>> {
        let since = self.change.map_or_else(String::new, |change| format!("?since={change}"));
        let path = format!("/permits/changes{since}");
        let mut fetching = pin!(self.gateway.get::<PermitChangesDto>(&path));
        let PermitChangesDto { change, now } = loop {
            if self.ended && self.early.is_empty() {
                return Ok(None);
            }
            tokio::select! {
                fetched = &mut fetching => break fetched?,
                line = self.answers.recv(), if !self.ended && self.early.len() < ANSWERS_MAX => match line {
                    Some(line) => self.early.extend(Some(line).filter(|_| !self.typed)),
                    None => self.ended = true,
                },
            }
        };
        // What was not asked about yet is asked about before the next change.
        let all_seen = now.waiting.iter().filter(|permit| !self.seen.contains(&permit.id)).count() <= 1;
        self.change = all_seen.then_some(change);
        Ok(Some(now.waiting))
    }

    /// Shows a request and does as the operator says; whether there is anybody to ask still.
    async fn ask(&mut self, id: PermitId) -> anyhow::Result<bool> {
        self.seen.insert(id);
        let permit: PermitDto = self.gateway.get(&format!("/permits/{id}")).await?;
        if permit.state != PermitState::Asked {
            return Ok(true);
        }
        while self.typed && self.answers.try_recv().is_ok() {}
        if !output::line_of_many(format!("{}\nallow {} signatures? [y/N/number]", described(&permit), asked_uses(&permit)))? {
            return Ok(false);
        }
        let Some(answer) = self.answer().await? else { return Ok(false) };
        let path = format!("/permits/{id}");
        let decided: anyhow::Result<PermitDto> = match answer {
            Answer::Allow(uses) => self.gateway.post(&format!("{path}/grant"), &GrantDto { uses }).await,
            Answer::Refuse => self.gateway.post(&format!("{path}/refuse"), &GrantDto::default()).await,
        };
        match decided {
            Ok(permit) => output::line_of_many(told(&permit)),
            // Somebody else was quicker, or nobody waits any more: the next one may be decided.
            Err(error) => output::line_of_many(format!("not decided: {error:#}")),
        }
    }

    /// `None` at the end of the input.
    async fn answer(&mut self) -> anyhow::Result<Option<Answer>> {
        loop {
            let early = self.early.pop_front();
            let Some(line) = (if early.is_some() { early } else { self.answers.recv().await }) else { return Ok(None) };
            if let Some(answer) = parse(&line) {
                return Ok(Some(answer));
            }
            if !output::line_of_many("answer y, n, or how many signatures may be made")? {
                return Ok(None);
            }
        }
    }
}

fn parse(line: &str) -> Option<Answer> {
    match line.trim().to_lowercase().as_str() {
        "y" | "yes" => Some(Answer::Allow(None)),
        "" | "n" | "no" => Some(Answer::Refuse),
        number => number.parse().ok().filter(|uses| *uses > 0).map(|uses| Answer::Allow(Some(uses))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_allows_anything() {
        let allow = |uses| Some(Answer::Allow(uses));
        assert_eq!((parse("y"), parse(" YES "), parse("2")), (allow(None), allow(None), allow(Some(2))));
        assert_eq!((parse(""), parse("n"), parse("No")), (Some(Answer::Refuse), Some(Answer::Refuse), Some(Answer::Refuse)));
        assert_eq!((parse("0"), parse("yy"), parse("-1"), parse("да")), (None, None, None, None));
    }
}
