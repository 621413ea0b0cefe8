//! What may happen to an audit log, and that each of it is found, with the first broken record named.
//!
//! The chains are made by the code that a gateway writes them with, the checkpoints by a software key; tests/audit_gateway.rs has real ones.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod log;

use std::{fs, process::Command, sync::Arc};

use log::{Key, Log};
use proptest::prelude::*;
use sealgate::{
    audit::{
        chain::{Anchors, Broken, Fault, SoundChain},
        export::{self, of_line, to_line},
        verify::{VerifyError, verify_export, verify_store},
    },
    domain::audit::{AuditEvent, AuditHead, SealedRecord, Sha256},
    store::{Change, Store, memory::MemoryStore},
};

fn verify(export: &[u8], anchors: &Anchors) -> Result<Vec<SoundChain>, Box<Broken>> {
    verify_export(export, anchors).map_err(|error| match error {
        VerifyError::Broken(broken) => broken,
        other => panic!("{other}"),
    })
}

fn verify_log(log: &Log, anchors: &Anchors) -> Result<SoundChain, Box<Broken>> {
    verify(log.export().as_bytes(), anchors).map(|mut chains| {
        assert_eq!(chains.len(), 1);
        chains.remove(0)
    })
}

fn broken(log: &Log, anchors: &Anchors) -> (u64, Fault) {
    let broken = *verify_log(log, anchors).unwrap_err();
    assert_eq!(broken.gateway, Some(log.head.gateway));
    (broken.record, broken.fault)
}

fn nothing_kept() -> Anchors {
    Anchors::default()
}

fn pinned(key: &Key) -> Anchors {
    Anchors { checkpoint_keys: vec![key.public_key.clone()], heads: Vec::new() }
}

fn kept(head: AuditHead) -> Anchors {
    Anchors { checkpoint_keys: Vec::new(), heads: vec![head] }
}

#[test]
fn a_log_that_nobody_touched_is_sound() {
    let key = Key::new();
    let mut log = Log::of(20);
    log.checkpoint(&key);
    log.grow(5);
    let chain = verify_log(&log, &pinned(&key)).unwrap();
    assert_eq!((chain.first, chain.head, chain.vouched), (1, log.head, 20));
    assert_eq!((chain.keys.len(), chain.keys[0].count, chain.keys[0].pinned), (1, 1, true));
    assert_eq!(verify_log(&log, &kept(log.head)).unwrap().vouched, 26);
}

#[test]
fn a_change_of_any_byte_is_found_in_its_record() {
    let key = Key::new();
    let mut log = Log::of(4);
    log.checkpoint(&key);
    log.grow(1);
    let export = log.export().into_bytes();
    let mut line = 1;
    for at in 0..export.len() {
        for flip in [0x01, 0x20, 0x80] {
            let mut edited = export.clone();
            edited[at] ^= flip;
            let broken = verify(&edited, &nothing_kept()).expect_err("an edit that nobody sees");
            assert_eq!(broken.record, line, "byte {at} ^ {flip:#x}: {}", broken.fault);
        }
        line += u64::from(export[at] == b'\n');
    }
}

#[test]
fn a_record_whose_number_was_made_that_of_the_first_is_named_by_its_place() {
    let export = Log::of(30).export();
    let edited = export.replacen("\"seq\":12,", "\"seq\":1,", 1);
    assert_ne!(edited, export);
    assert_eq!(verify(edited.as_bytes(), &nothing_kept()).unwrap_err().record, 12);
}

proptest! {
    #[test]
    fn bytes_changed_removed_or_put_in_anywhere_are_found_in_the_first_record_they_touch(
        at in 0usize..20_000, byte in any::<u8>(), how in 0..3
    ) {
        let export = Log::of(60).export().into_bytes();
        let at = at % export.len();
        let mut edited = export.clone();
        match how {
            0 => edited[at] = byte,
            1 => drop(edited.remove(at)),
            _ => edited.insert(at, byte),
        }
        prop_assume!(edited != export);
        let first_change = export.iter().zip(&edited).take_while(|(a, b)| a == b).count();
        let line = export[..first_change].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        prop_assert_eq!(verify(&edited, &nothing_kept()).expect_err("an edit that nobody sees").record, line);
    }

    #[test]
    fn no_bytes_make_the_verifier_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = verify(&bytes, &nothing_kept());
    }
}

#[test]
fn a_removed_record_is_named() {
    let mut log = Log::of(9);
    log.records.remove(4);
    assert_eq!(broken(&log, &nothing_kept()), (5, Fault::Missing { last: 4, next: 6 }));
    let mut log = Log::of(9);
    log.records.remove(0);
    assert_eq!(broken(&log, &nothing_kept()), (1, Fault::Missing { last: 0, next: 2 }));
}

#[test]
fn swapped_and_repeated_records_are_named() {
    let mut log = Log::of(9);
    log.records.swap(3, 4);
    assert_eq!(broken(&log, &nothing_kept()), (4, Fault::Missing { last: 3, next: 5 }));
    let mut log = Log::of(9);
    let repeated = log.records[3].clone();
    log.records.insert(4, repeated);
    assert_eq!(broken(&log, &nothing_kept()), (5, Fault::OutOfOrder(4)));
}

#[test]
fn a_record_that_was_rewritten_and_hashed_again_is_named() {
    let mut log = Log::of(9);
    log.rewrite(5, |text| text.replace("\"at\":5", "\"at\":6"));
    assert_eq!(broken(&log, &nothing_kept()), (5, Fault::Rewritten(5)));
    // Its link was changed: the record before it is as the one after it says.
    let mut log = Log::of(9);
    let previous = log.records[3].hash.to_string();
    log.rewrite(5, |text| text.replace(&previous, &Sha256::of(b"another").to_string()));
    assert_eq!(broken(&log, &nothing_kept()), (5, Fault::RewrittenLink(5)));
    // The last but one: nothing follows that says which of the two is right.
    let mut log = Log::of(9);
    log.rewrite(8, |text| text.replace("\"at\":8", "\"at\":9"));
    assert_eq!(broken(&log, &nothing_kept()), (8, Fault::RewrittenOrNext));
}

#[test]
fn a_record_in_another_spelling_of_the_same_json_is_an_edit() {
    let mut log = Log::of(9);
    let record = &mut log.records[4];
    record.text = record.text.replace("\",\"", "\", \"");
    assert_eq!(broken(&log, &nothing_kept()), (5, Fault::Edited));
}

#[test]
fn what_a_later_version_may_tell_is_no_fault() {
    let mut log = Log::of(3);
    log.append_text(|seq, previous, gateway| {
        format!(r#"{{"gateway":"{gateway}","seq":{seq},"at":4,"previous":"{previous}","event":"moon-landing","flag":{{"stripes":13}}}}"#)
    });
    assert_eq!(verify_log(&log, &nothing_kept()).unwrap().head, log.head);
}

#[test]
fn a_record_of_another_gateway_is_found_where_it_stands() {
    let (mut log, foreign) = (Log::of(9), Log::of(9));
    log.records[4] = foreign.records[4].clone();
    assert_eq!(broken(&log, &nothing_kept()), (5, Fault::Foreign(foreign.head.gateway)));
    // A whole log of another gateway, put between two records: this one begins once more after it.
    let mut log = Log::of(9);
    log.records.insert(4, foreign.records[0].clone());
    let broken = verify(log.export().as_bytes(), &nothing_kept()).unwrap_err();
    assert_eq!((broken.record, broken.fault), (2, Fault::Foreign(log.head.gateway)));
}

#[test]
fn a_rewritten_suffix_is_found_by_the_checkpoint_that_it_keeps() {
    let key = Key::new();
    let mut log = Log::of(9);
    log.checkpoint(&key);
    log.grow(5);
    log.rewrite_from(4);
    assert_eq!(broken(&log, &nothing_kept()), (9, Fault::NotAsSigned { checkpoint: 10 }));
}

#[test]
fn a_rewritten_suffix_whose_checkpoint_is_adapted_or_signed_anew_is_found_by_the_pinned_key() {
    let (key, theirs) = (Key::new(), Key::new());
    let mut log = Log::of(9);
    log.checkpoint(&key);
    log.grow(5);
    let honest = log.clone();
    // The checkpoint says the new hash under the old signature.
    log.rewrite_from(4);
    let (old, new) = (honest.records[8].hash.to_string(), log.records[8].hash.to_string());
    log.rewrite(10, |text| text.replace(&format!("\"signed_hash\":\"{old}\""), &format!("\"signed_hash\":\"{new}\"")));
    log.link_again_from(11);
    assert!(matches!(broken(&log, &nothing_kept()), (10, Fault::CheckpointSignature(_))));
    // The checkpoint is signed with a key of the one who rewrote it, under the old name: only the pinned key shows that.
    let mut log = Log { records: honest.records[..3].to_vec(), head: honest.head_at(3) };
    log.grow(6);
    log.checkpoint(&theirs);
    log.grow(5);
    assert!(verify_log(&log, &nothing_kept()).is_ok(), "without anything kept it looks sound");
    let by = Sha256::of(&theirs.public_key);
    assert_eq!(broken(&log, &pinned(&key)), (10, Fault::CheckpointByAnotherKey(by)));
    // Without any checkpoint.
    let mut log = Log { records: honest.records[..3].to_vec(), head: honest.head_at(3) };
    log.grow(12);
    assert_eq!(broken(&log, &pinned(&key)), (1, Fault::NoCheckpoint));
    // And by a head that was kept.
    assert_eq!(broken(&log, &kept(honest.head_at(9))), (9, Fault::NotAsKept));
}

#[test]
fn a_log_cut_off_together_with_its_checkpoints_is_found_by_a_kept_head() {
    let key = Key::new();
    let mut log = Log::of(9);
    log.checkpoint(&key);
    log.grow(5);
    log.checkpoint(&key);
    let head = log.head;
    for left in [15, 12, 10] {
        log.cut_to(left);
        assert!(verify_log(&log, &pinned(&key)).is_ok(), "the key alone does not show it: a checkpoint is left");
        assert_eq!(broken(&log, &kept(head)), (left + 1, Fault::CutOff { last: left, kept: 16 }));
    }
    log.cut_to(9);
    assert_eq!(broken(&log, &pinned(&key)), (1, Fault::NoCheckpoint));
    log.cut_to(0);
    let broken = verify(b"", &kept(head)).unwrap_err();
    assert_eq!((broken.gateway, broken.record, broken.fault), (Some(head.gateway), 1, Fault::Gone(16)));
    let broken = verify(b"", &nothing_kept()).unwrap_err();
    assert_eq!((broken.record, broken.fault), (1, Fault::Empty));
}

#[test]
fn a_checkpoint_of_a_record_that_is_not_before_it_is_wrong() {
    let key = Key::new();
    let mut log = Log::of(9);
    let ahead = AuditHead { seq: 30, ..log.head };
    log.append(AuditEvent::Checkpoint(key.checkpoint(ahead)));
    assert_eq!(broken(&log, &nothing_kept()), (10, Fault::CheckpointTooFar(30)));
    let mut log = Log::of(9);
    let foreign = key.checkpoint(Log::of(9).head);
    log.append(AuditEvent::Checkpoint(foreign));
    assert!(matches!(broken(&log, &nothing_kept()), (10, Fault::CheckpointSignature(_))), "a checkpoint is for one gateway's log");
}

#[test]
fn a_checkpoint_may_sign_a_record_some_way_before_it() {
    let key = Key::new();
    let mut log = Log::of(9);
    let then = log.head;
    log.grow(300);
    log.append(AuditEvent::Checkpoint(key.checkpoint(then)));
    assert_eq!(verify_log(&log, &pinned(&key)).unwrap().vouched, 9);
}

#[test]
fn an_archive_continues_after_a_kept_head_and_nowhere_else() {
    let key = Key::new();
    let mut log = Log::of(9);
    log.checkpoint(&key);
    log.grow(5);
    let (head, before) = (log.head_at(9), log.head_at(8));
    log.records.drain(..9);
    let chain = verify_log(&log, &kept(head)).unwrap();
    assert_eq!((chain.first, chain.head.seq), (10, 15));
    assert_eq!(broken(&log, &kept(before)), (1, Fault::Missing { last: 0, next: 10 }));
    assert_eq!(broken(&log, &nothing_kept()), (1, Fault::Missing { last: 0, next: 10 }));
}

#[test]
fn several_gateways_in_one_log_are_proved_one_by_one() {
    let (first, second) = (Log::of(5), Log::of(7));
    let both = format!("{}{}", first.export(), second.export());
    let chains = verify(both.as_bytes(), &nothing_kept()).unwrap();
    assert_eq!(chains.iter().map(|chain| chain.head).collect::<Vec<_>>(), [first.head, second.head]);
    let (mut torn, rest) = (second.clone(), second.records[4..].to_vec());
    torn.records.truncate(4);
    let interleaved = format!("{}{}{}", torn.export(), first.export(), rest.iter().map(to_line).collect::<String>());
    let broken = verify(interleaved.as_bytes(), &nothing_kept()).unwrap_err();
    assert_eq!(broken.fault, Fault::Foreign(second.head.gateway));
}

#[tokio::test]
async fn an_export_of_a_store_is_the_log_in_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let commit = |n: u64| store.commit(vec![Change::Audit(log::event(n)); 7]);
    for n in 0..400 {
        commit(n).await.unwrap();
    }
    let mut out = Vec::new();
    // More than a page, and not a whole number of them.
    assert_eq!(export::export(&store, 1, &mut out).await.unwrap(), 2_800);
    let head = store.audit_head().await.unwrap();
    assert_eq!(verify(&out, &nothing_kept()).unwrap()[0].head, head);
    assert_eq!(verify_store(&store, &kept(head)).await.unwrap()[0].vouched, 2_800);
    let mut rest = Vec::new();
    assert_eq!(export::export(&store, 2_001, &mut rest).await.unwrap(), 800);
    assert!(out.ends_with(&rest));
}

#[test]
fn python_alone_recomputes_an_export_and_openssl_judges_its_checkpoints() {
    let directory = tempfile::tempdir().unwrap();
    let key = Key::new();
    let mut log = Log::of(30);
    log.checkpoint(&key);
    log.grow(3);
    log.checkpoint(&key);
    let export = directory.path().join("export.jsonl");
    fs::write(&export, log.export()).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audit_log/verify_export.py");
    let python =
        || Command::new("python3").arg(script).arg(&export).arg(directory.path()).output().expect("python3; apt-get install python3");
    let said = python();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    assert_eq!(serde_json::from_slice::<AuditHead>(&said.stdout).unwrap(), log.head);
    for record in [31, 35] {
        let file = |extension: &str| directory.path().join(format!("{record}.{extension}"));
        let mut openssl = Command::new("openssl");
        openssl
            .args(["dgst", "-sha256", "-keyform", "DER", "-verify"])
            .arg(file("key"))
            .arg("-signature")
            .arg(file("sig"))
            .arg(file("txt"));
        let judged = openssl.output().expect("openssl; apt-get install openssl");
        assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
    }
    log.rewrite(12, |text| text.replace("\"at\":12", "\"at\":13"));
    fs::write(&export, log.export()).unwrap();
    let said = python();
    assert_eq!((said.status.code(), String::from_utf8_lossy(&said.stdout).starts_with("line 13:")), (Some(1), true));
}

#[test]
fn a_line_holds_the_text_of_its_record_byte_for_byte() {
    let log = Log::of(1);
    let SealedRecord { text, hash, .. } = &log.records[0];
    let line = log.export();
    assert_eq!(of_line(line.trim_end_matches('\n')), Some((text.as_str(), *hash)));
}
