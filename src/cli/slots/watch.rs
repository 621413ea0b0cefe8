//! `sealgate slots --watch`: a line for each token, then one for each change of a token's state.
//!
//! A gateway that runs is asked over its control socket, which answers when something has changed; without one the modules are watched
//! here, with no login. Work that comes and goes is no change: a busy token counts as ready.

use std::collections::HashMap;

use super::seen_by;
use crate::{
    cli::{
        control_client::ControlClient,
        modules::{self, Logins},
        output,
        place::Place,
        server_runtime,
    },
    domain::{ids::ModuleName, key_uri::Pkcs11Uri, timestamp::Timestamp, token::SlotState},
    http::control::dto::{SlotChangesDto, SlotDto},
    shutdown::StopSignals,
};

/// What was printed of each token last.
#[derive(Default)]
struct Printed(HashMap<(Option<String>, ModuleName, Pkcs11Uri), (SlotState, String)>);

/// Prints until a signal, until the gateway ends, or until nobody reads.
pub(super) fn run(place: &Place, json: bool) -> anyhow::Result<()> {
    server_runtime()?.block_on(async {
        let mut signals = StopSignals::install()?;
        match ControlClient::connect(&place.control)? {
            Some(gateway) => tokio::select! {
                ended = follow_gateway(&gateway, json) => ended,
                _ = signals.next() => Ok(()),
            },
            None => follow_modules(place, json, &mut signals).await,
        }
    })
}

async fn follow_gateway(gateway: &ControlClient, json: bool) -> anyhow::Result<()> {
    let mut printed = Printed::default();
    let mut since = String::new();
    loop {
        let SlotChangesDto { change, now } = gateway.get(&format!("/slots/changes{since}")).await?;
        if !printed.print_changes(now.slots, json)? {
            return Ok(());
        }
        since = format!("?since={change}");
    }
}

async fn follow_modules(place: &Place, json: bool, signals: &mut StopSignals) -> anyhow::Result<()> {
    output::note("sealgate: no gateway runs; these are the tokens that are plugged in");
    let opened = modules::open(&place.config, Logins::None).await?;
    let mut changes = opened.tokens.changes();
    let mut printed = Printed::default();
    let ended = loop {
        changes.borrow_and_update();
        match printed.print_changes(seen_by(&opened.tokens, &place.config).slots, json) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break Ok(()) },
            _ = signals.next() => break Ok(()),
        }
    };
    opened.tokens.stop().await;
    ended
}

impl Printed {
    /// Prints what has changed; whether anybody still reads it.
    fn print_changes(&mut self, slots: Vec<SlotDto>, json: bool) -> anyhow::Result<bool> {
        for slot in self.changed(slots) {
            let text = if json { serde_json::to_string(&slot)? } else { line(&slot) };
            if !output::line_of_many(text)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The tokens whose state, or the reason for it, is another than when they were printed.
    fn changed(&mut self, slots: Vec<SlotDto>) -> Vec<SlotDto> {
        let news = |mut slot: SlotDto| {
            if slot.state == SlotState::Busy {
                slot.state = SlotState::Ready;
            }
            let shown = (slot.state, slot.reason.clone());
            let before = self.0.insert((slot.gateway.clone(), slot.module.clone(), slot.uri.clone()), shown.clone());
            (before.as_ref() != Some(&shown)).then_some(slot)
        };
        slots.into_iter().filter_map(news).collect()
    }
}

fn line(slot: &SlotDto) -> String {
    let reason = if slot.reason.is_empty() { String::new() } else { format!("  ({})", slot.reason) };
    let place = slot.gateway.as_ref().map_or_else(String::new, |gateway| format!("  at gateway {gateway}"));
    format!("{}  {}  {}  {}{place}{reason}", utc(slot.since), slot.state, slot.module, slot.uri)
}

/// A time as people and programs read it (RFC 3339, in UTC).
fn utc(time: Timestamp) -> String {
    // There is no such form for times before 1970 and after 9999.
    der::DateTime::from_system_time(time.to_system_time()).map_or_else(|_| "?".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::token::{LoginMode, TokenFlags};

    fn slot(state: SlotState, reason: &str) -> SlotDto {
        SlotDto {
            uri: "pkcs11:token=one".parse().unwrap(),
            module: "softhsm".parse().unwrap(),
            manufacturer: String::new(),
            model: String::new(),
            serial: String::new(),
            label: "one".to_owned(),
            login: LoginMode::Operator,
            state,
            reason: reason.to_owned(),
            since: Timestamp::from_millis(1_767_323_045_678),
            flags: TokenFlags::default(),
            outstanding: 0,
            gateway: None,
        }
    }

    #[test]
    fn a_state_is_printed_when_it_changes_and_work_is_no_change() {
        let mut printed = Printed::default();
        let mut count = |state, reason| printed.changed(vec![slot(state, reason)]).len();
        assert_eq!(count(SlotState::NeedsPin, ""), 1);
        assert_eq!(count(SlotState::NeedsPin, ""), 0);
        assert_eq!(count(SlotState::Ready, ""), 1);
        assert_eq!(count(SlotState::Busy, ""), 0);
        assert_eq!(count(SlotState::Absent, "pulled"), 1);
        assert_eq!(count(SlotState::Absent, "gone"), 1);
    }

    #[test]
    fn a_line_says_when_what_which_and_why() {
        assert_eq!(line(&slot(SlotState::Absent, "pulled")), "2026-01-02T03:04:05Z  absent  softhsm  pkcs11:token=one  (pulled)");
    }
}
