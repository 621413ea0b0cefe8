//! `sealgate permits watch`: each request is shown as it comes, and decided in place. Answers are lines of standard input, typed or piped.

use std::{
    collections::HashSet,
    io::{BufRead as _, stdin},
    path::Path,
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
    runtime()?.block_on(Watch { gateway, answers, seen: HashSet::new(), change: None }.follow())
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
    /// What was asked about already.
    seen: HashSet<PermitId>,
    change: Option<u64>,
}

impl Watch {
    async fn follow(mut self) -> anyhow::Result<()> {
        loop {
            let waiting = self.changes().await?;
            self.seen.retain(|id| waiting.iter().any(|permit| permit.id == *id));
            let new = waiting.into_iter().find(|permit| !self.seen.contains(&permit.id));
            if let Some(permit) = new
                && !self.ask(permit.id).await?
            {
                return Ok(());
            }
        }
    }

    /// What waits now; after a change, where everything was asked about already.
    async fn changes(&mut self) -> anyhow::Result<Vec<PermitDto>> {
        let since = self.change.map_or_else(String::new, |change| format!("?since={change}"));
        let PermitChangesDto { change, now } = self.gateway.get(&format!("/permits/changes{since}")).await?;
        // What was not asked about yet is asked about before the next change.
        let all_seen = now.waiting.iter().filter(|permit| !self.seen.contains(&permit.id)).count() <= 1;
        self.change = all_seen.then_some(change);
        Ok(now.waiting)
    }

    /// Shows a request and does as the operator says; whether there is anybody to ask still.
    async fn ask(&mut self, id: PermitId) -> anyhow::Result<bool> {
        self.seen.insert(id);
        let permit: PermitDto = self.gateway.get(&format!("/permits/{id}")).await?;
        if permit.state != PermitState::Asked {
            return Ok(true);
        }
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
        while let Some(line) = self.answers.recv().await {
            if let Some(answer) = parse(&line) {
                return Ok(Some(answer));
            }
            if !output::line_of_many("answer y, n, or how many signatures may be made")? {
                break;
            }
        }
        Ok(None)
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
