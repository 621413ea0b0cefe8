//! What `sealgate audit verify` prints.

use serde::Serialize;

use crate::{
    audit::chain::{Anchors, Broken, CheckpointKey, SoundChain},
    cli::output,
    domain::{
        audit::Sha256,
        ids::{GatewayId, KeyName},
        timestamp::Timestamp,
    },
};

#[derive(Serialize)]
struct SoundJson<'a> {
    sound: bool,
    chains: Vec<ChainJson<'a>>,
}

#[derive(Serialize)]
struct ChainJson<'a> {
    gateway: GatewayId,
    first: u64,
    last: u64,
    hash: Sha256,
    last_at: Timestamp,
    vouched: u64,
    checkpoint_keys: Vec<KeyJson<'a>>,
}

#[derive(Serialize)]
struct KeyJson<'a> {
    sha256: Sha256,
    name: &'a KeyName,
    pinned: bool,
    checkpoints: u64,
    signed: u64,
}

#[derive(Serialize)]
struct BrokenJson {
    sound: bool,
    gateway: Option<GatewayId>,
    record: u64,
    fault: String,
}

/// The first broken record, in words.
pub(super) fn words(broken: &Broken) -> String {
    let gateway = broken.gateway.map(|gateway| format!(" of gateway {gateway}")).unwrap_or_default();
    format!("record {}{gateway}: {}", broken.record, broken.fault)
}

/// Prints the first broken record.
pub(super) fn broken(broken: &Broken, json: bool) -> anyhow::Result<()> {
    if json {
        let (gateway, record, fault) = (broken.gateway, broken.record, broken.fault.to_string());
        return output::json(&BrokenJson { sound: false, gateway, record, fault });
    }
    output::line(format_args!("BROKEN at {}", words(broken)))
}

/// Prints what was proved, and what was not.
pub(super) fn sound(chains: &[SoundChain], anchors: &Anchors, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(&SoundJson { sound: true, chains: chains.iter().map(chain_json).collect() });
    }
    chains.iter().try_for_each(|chain| chain_lines(chain, anchors).into_iter().try_for_each(output::line))?;
    output::line("sound: no record was edited, removed, inserted or moved")
}

fn chain_json(chain: &SoundChain) -> ChainJson<'_> {
    let keys = chain.keys.iter().map(|key| KeyJson {
        sha256: key.sha256,
        name: &key.name,
        pinned: key.pinned,
        checkpoints: key.count,
        signed: key.signed_seq,
    });
    ChainJson {
        gateway: chain.head.gateway,
        first: chain.first,
        last: chain.head.seq,
        hash: chain.head.hash,
        last_at: chain.last_at,
        vouched: chain.vouched,
        checkpoint_keys: keys.collect(),
    }
}

fn chain_lines(chain: &SoundChain, anchors: &Anchors) -> Vec<String> {
    let SoundChain { first, head, vouched, .. } = chain;
    let mut lines = vec![format!("gateway {}: records {first} to {}, hash {}", head.gateway, head.seq, head.hash)];
    for key in &chain.keys {
        let CheckpointKey { name, sha256, count, signed_seq, .. } = key;
        let pinned = if key.pinned { "pinned" } else { "NOT pinned" };
        lines.push(format!(
            "  checkpoints by key {name} ({pinned}, SHA-256 of the public key {sha256}): {count}, the last signs record {signed_seq}"
        ));
    }
    let kept = anchors.heads.iter().filter(|kept| kept.gateway == head.gateway && kept.seq >= *first).count();
    if kept > 0 {
        lines.push(format!("  kept heads that are in it: {kept}"));
    }
    lines.push(match head.seq - vouched {
        0 => "  all of it is vouched for".to_owned(),
        1 if *vouched > 0 => {
            format!("  record {} came after what is vouched for: whoever can write the log could have changed or cut it", head.seq)
        }
        _ if *vouched == 0 => {
            "  nothing vouches for it: no checkpoint, no kept head. Whoever can write it could have written it anew".to_owned()
        }
        _ => format!(
            "  records {} to {} came after what is vouched for: whoever can write the log could have changed or cut them",
            vouched + 1,
            head.seq
        ),
    });
    if !chain.keys.is_empty() && anchors.checkpoint_keys.is_empty() {
        lines.push("  the checkpoints' key was not pinned: see that it is yours, or name it with --checkpoint-key".to_owned());
    }
    lines
}
