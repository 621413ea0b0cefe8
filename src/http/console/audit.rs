//! The audit log: browsing, proving and carrying it out. For administrators.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::{
    HttpResponse,
    http::header::{self, HeaderValue},
    web::{Bytes, Query},
};
use askama::Template;
use futures_util::stream;
use serde::Deserialize;

use super::{
    State,
    error::ConsoleError,
    form::Form,
    frame::{self, Frame, Place},
    overview::framed,
    visit::Visit,
};
use crate::{
    audit::desk::{AuditDesk, LogUnavailable, PAGE_LEN},
    domain::{
        audit::{AuditRecord, SealedRecord},
        ids::GatewayId,
        timestamp::Timestamp,
    },
};

/// The facts that are moments.
const TIMES: [&str; 4] = ["decide_by", "expires", "old_keys_end", "time"];

/// The last proof of the whole log, or the one that is under way.
#[derive(Debug, Clone, Default)]
pub(super) enum Check {
    /// Nobody has asked for one since the start.
    #[default]
    None,
    /// One is being made.
    Running { since: Timestamp },
    /// All records fit.
    Sound { at: Timestamp, chains: Vec<String> },
    /// They do not, or could not be read.
    Failed { at: Timestamp, reason: String },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Where {
    gateway: String,
    last: Option<u64>,
    done: Option<String>,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    logs: Vec<(GatewayId, bool)>,
    gateway: GatewayId,
    rows: Vec<Row>,
    older: Option<u64>,
    newer: Option<u64>,
    check: Check,
}

struct Row {
    seq: u64,
    at: Option<Timestamp>,
    event: String,
    facts: Vec<(String, String)>,
    hash: String,
}

pub(super) async fn browse(state: State, visit: Visit, place: Query<Where>) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let Where { gateway, last, done } = place.into_inner();
    let desk = &state.services.audit;
    let (logs, head) = (desk.logs().await?, desk.own_head().await?);
    let gateway = gateway.parse().ok().filter(|gateway| logs.contains(gateway)).unwrap_or(head.gateway);
    let last = match last {
        Some(last) => last,
        None if gateway == head.gateway => head.seq,
        None => end_of(desk, gateway).await?,
    };
    let page = desk.page(gateway, last).await?;
    let first = page.records.last().map_or(1, |record| record.seq);
    let is_end = !desk.has(gateway, last.saturating_add(1)).await?;
    frame::page(&AuditPage {
        frame: framed(&state, &visit, Place::Audit, "Audit log").await.noting(done.as_deref()),
        logs: logs.into_iter().map(|log| (log, log == gateway)).collect(),
        gateway,
        rows: page.records.into_iter().map(row).collect(),
        older: (first > 1).then(|| first - 1),
        newer: (!is_end).then(|| last.saturating_add(PAGE_LEN as u64)),
        check: lock(&state.console.check).clone(),
    })
}

/// The number of a log's last record, found in a few dozen steps.
async fn end_of(desk: &AuditDesk, gateway: GatewayId) -> Result<u64, ConsoleError> {
    let mut beyond = 1_u64;
    while desk.has(gateway, beyond).await? {
        beyond = beyond.saturating_mul(2);
    }
    let (mut known, mut beyond) = (beyond / 2, beyond);
    while known + 1 < beyond {
        let middle = known + (beyond - known) / 2;
        if desk.has(gateway, middle).await? {
            known = middle;
        } else {
            beyond = middle;
        }
    }
    Ok(known)
}

fn row(record: SealedRecord) -> Row {
    let SealedRecord { seq, text, hash } = record;
    let hash = hash.to_string();
    let parsed = serde_json::from_str::<AuditRecord>(&text);
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_str(&text) else {
        return Row { seq, at: None, event: "unreadable".to_owned(), facts: vec![("text".to_owned(), text)], hash };
    };
    for shown in ["gateway", "seq", "at", "previous"] {
        fields.remove(shown);
    }
    let event = fields.remove("event").and_then(|event| event.as_str().map(|event| event.replace('-', " "))).unwrap_or_default();
    let facts = fields.into_iter().map(|(name, value)| (name.replace('_', " "), plain(&name, &value))).collect();
    Row { seq, at: parsed.ok().map(|record| record.at), event, facts, hash }
}

/// A value as a person reads it.
fn plain(name: &str, value: &serde_json::Value) -> String {
    let several = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(", ");
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Object(fields) => several(&mut fields.iter().map(|(name, value)| format!("{name}: {}", plain(name, value)))),
        serde_json::Value::Array(values) => several(&mut values.iter().map(|value| plain(name, value))),
        serde_json::Value::Number(millis) if TIMES.contains(&name) => {
            millis.as_u64().map_or_else(|| millis.to_string(), |millis| frame::moment(&Timestamp::from_millis(millis)))
        }
        other => other.to_string(),
    }
}

pub(super) async fn verify(state: State, visit: Visit, _form: Form) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let now = || Timestamp::from(std::time::SystemTime::now());
    let check = Arc::clone(&state.console.check);
    {
        let mut known = lock(&check);
        if matches!(*known, Check::Running { .. }) {
            return Ok(frame::done("audit", "verifying"));
        }
        *known = Check::Running { since: now() };
    }
    let (desk, told) = (state.services.audit.clone(), Arc::clone(&state.console.streams));
    actix_web::rt::spawn(async move {
        let proved = desk.verify().await;
        *lock(&check) = match proved {
            Ok(chains) => Check::Sound {
                at: now(),
                chains: chains
                    .iter()
                    .map(|chain| format!("{}: records {} to {}", chain.head.gateway, chain.first, chain.head.seq))
                    .collect(),
            },
            Err(error) => Check::Failed { at: now(), reason: error.to_string() },
        };
        told.tell_of_audit();
    });
    Ok(frame::done("audit", "verifying"))
}

/// The whole log as one file, read while it is sent.
pub(super) async fn export(state: State, visit: Visit) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let desk = state.services.audit.clone();
    let logs = desk.logs().await?;
    let lines = stream::try_unfold(
        (desk, logs.into_iter(), None),
        |(desk, mut logs, place): (AuditDesk, std::vec::IntoIter<GatewayId>, _)| async move {
            let mut place = place;
            loop {
                let Some((gateway, from)) = place.take().or_else(|| logs.next().map(|gateway| (gateway, 1))) else { return Ok(None) };
                if let Some((lines, next)) = desk.export(gateway, from).await? {
                    return Ok::<_, LogUnavailable>(Some((Bytes::from(lines), (desk, logs, Some((gateway, next))))));
                }
            }
        },
    );
    Ok(HttpResponse::Ok()
        .content_type("application/jsonl")
        .insert_header((header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"sealgate-audit.jsonl\"")))
        .streaming(lines))
}

fn lock(check: &Mutex<Check>) -> MutexGuard<'_, Check> {
    check.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<LogUnavailable> for ConsoleError {
    fn from(_: LogUnavailable) -> Self {
        Self::Store
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_are_shown_as_a_person_reads_them() {
        let change = json!({ "added": { "keys": ["one", "two"], "expires": 1_700_000_000_000_u64 } });
        assert_eq!(plain("change", &change), "added: expires: 2023-11-14 22:13:20 UTC, keys: one, two");
        assert_eq!(plain("uses", &json!(1_700_000_000_000_u64)), "1700000000000");
    }
}
