//! What gateways put into their audit logs, and the program that proves them: real SoftHSM checkpoints, the real database, exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use common::{
    gateway::{Gateway, OTHER_KEY, PATIENCE, Plan, send},
    program::{self, dev_json, stderr, stdout},
};
use reqwest::Method;
use sealgate::{
    audit::{
        chain::{Anchors, SoundChain},
        checkpoint::{CheckpointSigner, Checkpointer, Made, SignedStatement},
        refusals::BURST,
        verify::verify_store,
    },
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        audit::{AuditEvent, AuditHead, AuditRecord, PinIncident},
        caller::KeyAccess,
        ids::KeyName,
        job::{FailureCause, JobOutcome, JobState},
        token::LoginMode,
    },
    store::{Change, JobFilter, Store, memory::MemoryStore},
    token::fake::{Call, FAKE_PIN, Script},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

type AnyStore = Arc<dyn Store>;

/// The events of a store's log, oldest first; what there is of it must be sound.
async fn events(store: &AnyStore) -> Vec<AuditEvent> {
    let AuditHead { gateway, seq, .. } = store.audit_head().await.unwrap();
    if seq > 0 {
        sound(store).await;
    }
    let records = store.audit_records(gateway, 1, usize::MAX).await.unwrap();
    records.iter().map(|record| serde_json::from_str::<AuditRecord>(&record.text).unwrap().event).collect()
}

async fn sound(store: &AnyStore) -> SoundChain {
    verify_store(store, &Anchors::default()).await.unwrap().remove(0)
}

/// What was refused, and why.
async fn refusals(store: &AnyStore) -> Vec<(String, String)> {
    let refused = |event| match event {
        AuditEvent::Refused { caller, what, reason, .. } => Some((format!("{caller}: {what}"), reason)),
        _ => None,
    };
    events(store).await.into_iter().filter_map(refused).collect()
}

async fn pins(store: &AnyStore) -> Vec<(PinIncident, Option<String>)> {
    let pin = |event| if let AuditEvent::Pin { what, by, .. } = event { Some((what, by)) } else { None };
    events(store).await.into_iter().filter_map(pin).collect()
}

async fn operator(gateway: &Gateway, path: &str, body: Value) -> u16 {
    let http = reqwest::Client::builder().unix_socket(gateway.control_socket.clone()).build().unwrap();
    http.post(format!("http://gateway{path}")).body(body.to_string()).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_callers_are_refused_is_recorded() {
    let script = Script::new("scripted");
    let mut plan = Plan::scripted(&script, LoginMode::Configured, &["one", "two"]);
    plan.caller("other").caller.keys = KeyAccess::Only(vec!["two".parse().unwrap()]);
    let gateway = plan.start().await;
    let store = Arc::clone(&gateway.store);
    let other = |method, path: &str| gateway.anonymous(method, &format!("/api/v1{path}")).bearer_auth(OTHER_KEY);

    // A key that it may not use.
    let ticket = send(other(Method::POST, "/ticket")).await.json()["ticketUuid"].as_str().unwrap().to_owned();
    send(other(Method::POST, &format!("/ticket/{ticket}/data")).header("content-type", "application/octet-stream").body("x")).await;
    let chosen =
        send(other(Method::PUT, &format!("/ticket/{ticket}/keyStore")).json(&json!({ "keyStorePath": "pkcs11:object=one" }))).await;
    assert_eq!(chosen.status, 200, "{}", chosen.text());
    send(other(Method::POST, &format!("/ticket/{ticket}/ds/creator"))).await;
    // More consent than it may ask for, and a permit of somebody else.
    assert_ne!(send(other(Method::POST, "/accessToken").json(&json!({ "accessTimesNumber": 100_000 }))).await.status, 200);
    let permit =
        gateway.post_json("/accessToken", json!({ "accessTimesNumber": 1 })).await.json()["accessTokenUuid"].as_str().unwrap().to_owned();
    assert_ne!(send(other(Method::DELETE, &format!("/accessToken/{permit}"))).await.status, 200);
    // A permit that is used up.
    let pay = json!({ "accessTokenUuid": permit });
    let paid = gateway.ticket_with(b"x").await;
    assert_eq!(gateway.post_json(&format!("{paid}/ds/creator"), pay.clone()).await.status, 200);
    assert_eq!(gateway.get(&format!("{paid}/ds/data")).await.status, 200);
    let unpaid = gateway.ticket_with(b"x").await;
    assert_eq!(gateway.post_json(&format!("{unpaid}/ds/creator"), pay).await.status, 403);
    // Nobody known: nothing is written.
    let before = store.audit_head().await.unwrap();
    assert_eq!(gateway.anonymous(Method::POST, "/api/v1/ticket").bearer_auth("wrong").send().await.unwrap().status().as_u16(), 401);
    assert_eq!(store.audit_head().await.unwrap(), before);
    gateway.stop().await;

    let refusals = refusals(&store).await;
    let whats: Vec<_> = refusals.iter().map(|(what, _)| what.as_str()).collect();
    let expected = [
        "other: a signature with the key at pkcs11:object=one".to_owned(),
        "other: a permit for 100000 signatures".to_owned(),
        format!("other: permit {permit}"),
        format!("ci: a signature with permit {permit}"),
    ];
    assert_eq!(whats, expected);
    assert_eq!(refusals[3].1, "the permission is used up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_is_refused_without_end_does_not_fill_the_log() {
    let script = Script::new("scripted");
    let gateway = Plan::scripted(&script, LoginMode::Configured, &["one"]).start().await;
    let store = Arc::clone(&gateway.store);
    let tries = u64::from(BURST) * 4;
    for _ in 0..tries {
        assert_ne!(gateway.post_json("/accessToken", json!({ "accessTimesNumber": 100_000 })).await.status, 200);
    }
    gateway.stop().await;
    let mut told = 0;
    let mut recorded = 0;
    for event in events(&store).await {
        if let AuditEvent::Refused { omitted, .. } = event {
            recorded += 1;
            told += omitted + 1;
        }
    }
    assert_eq!(told, tries, "each is counted");
    assert!(recorded < tries / 2, "{recorded} of {tries}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_operators_do_with_pins_is_recorded() {
    let script = Script::new("scripted");
    let gateway = Plan::scripted(&script, LoginMode::Operator, &["one"]).start().await;
    let store = Arc::clone(&gateway.store);
    assert_ne!(operator(&gateway, "/unlock", json!({ "pin": "wrong-pin" })).await, 200);
    assert_eq!(operator(&gateway, "/unlock", json!({ "pin": FAKE_PIN, "forget_rejection": true })).await, 200);
    assert_eq!(operator(&gateway, "/lock", json!({})).await, 200);
    gateway.stop().await;
    let user = Command::new("id").arg("-un").output().unwrap();
    let by = || Some(String::from_utf8(user.stdout.clone()).unwrap().trim().to_owned());
    let expected = [PinIncident::Rejected, PinIncident::RejectionForgotten, PinIncident::Unlocked, PinIncident::Locked];
    assert_eq!(pins(&store).await, expected.map(|what| (what, by())));
    let gateway = store.audit_head().await.unwrap().gateway;
    let text: String = store.audit_records(gateway, 1, 1_000).await.unwrap().into_iter().map(|record| record.text).collect();
    assert!(!text.contains("wrong-pin") && !text.contains(FAKE_PIN), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_pin_that_a_token_rejects_is_recorded() {
    let script = Script::new("scripted");
    let gateway = Plan::scripted(&script, LoginMode::Configured, &["one"]).start().await;
    let store = Arc::clone(&gateway.store);
    let mut changes = gateway.tokens.changes();
    script.pull();
    let state = || gateway.tokens.find(&"pkcs11:".parse().unwrap()).unwrap().status().state;
    let until = async |changes: &mut tokio::sync::watch::Receiver<u64>, wanted| {
        let reached = async {
            while state() != wanted {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap();
    };
    until(&mut changes, sealgate::domain::token::SlotState::Absent).await;
    script.change_pin("654321");
    script.put_back();
    until(&mut changes, sealgate::domain::token::SlotState::PinRejected).await;
    let recorded = async {
        while pins(&store).await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, recorded).await.unwrap();
    gateway.stop().await;
    assert_eq!(pins(&store).await, [(PinIncident::Rejected, None)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_signature_that_comes_after_its_job_was_settled_is_recorded_and_never_delivered() {
    let script = Script::new("scripted");
    let gateway = Plan::scripted(&script, LoginMode::Configured, &["one"]).start().await;
    let store = Arc::clone(&gateway.store);
    let ticket = gateway.ticket_with(b"x").await;
    let gate = script.hang(Call::Sign, 1);
    assert_eq!(gateway.post(&format!("{ticket}/ds/creator")).await.status, 200);
    gate.wait_entered();
    let signing = JobFilter { state: Some(JobState::Signing), ..JobFilter::default() };
    let job = store.list_jobs(&signing, 1).await.unwrap().remove(0);
    let outcome = JobOutcome::not_signed(FailureCause::OutcomeUnknown, "given up");
    store.commit(vec![Change::EndJob { job: job.id, claim: job.claim, outcome }]).await.unwrap();
    gate.release();
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 500);
    gateway.stop().await;
    let late: Vec<_> = events(&store).await.into_iter().filter(|event| matches!(event, AuditEvent::LateResult { .. })).collect();
    assert!(matches!(late.as_slice(), [AuditEvent::LateResult { job: of, .. }] if *of == job.id), "{late:?}");
    assert_eq!(store.find_job(job.id).await.unwrap().unwrap().state, JobState::InDoubt);
}

/// A software key that signs checkpoints, while others go on writing into the log.
struct Signer {
    name: KeyName,
    key: EcdsaKeyPair,
    store: AnyStore,
    meanwhile: usize,
    fails: bool,
    asked: mpsc::UnboundedSender<()>,
}

#[async_trait]
impl CheckpointSigner for Signer {
    fn key_name(&self) -> &KeyName {
        &self.name
    }

    async fn sign(&self, statement: &[u8]) -> Result<SignedStatement, String> {
        self.store.commit(vec![Change::Audit(AuditEvent::GatewayStopped); self.meanwhile]).await.unwrap();
        let _ = self.asked.send(());
        if self.fails {
            return Err("the token is away".to_owned());
        }
        Ok(SignedStatement {
            algorithm: SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256),
            public_key: self.key.public_key().as_der().unwrap().as_ref().to_vec(),
            signature: self.key.sign(&SystemRandom::new(), statement).unwrap().as_ref().to_vec(),
        })
    }
}

fn checkpointer(meanwhile: usize, fails: bool, every: Duration) -> (AnyStore, Checkpointer, mpsc::UnboundedReceiver<()>) {
    let store: AnyStore = Arc::new(MemoryStore::new());
    let (asked, times) = mpsc::unbounded_channel();
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let signer = Signer { name: "seal".parse().unwrap(), key, store: Arc::clone(&store), meanwhile, fails, asked };
    (Arc::clone(&store), Checkpointer::start(store, Arc::new(signer), every), times)
}

const NEVER: Duration = Duration::from_secs(1_000_000);

async fn something_happens(store: &AnyStore) {
    store.commit(vec![Change::Audit(AuditEvent::GatewayStopped)]).await.unwrap();
}

#[tokio::test]
async fn there_is_a_checkpoint_only_where_there_is_something_new() {
    let (store, checkpointer, mut times) = checkpointer(0, false, NEVER);
    assert_eq!(checkpointer.make().await, Made::NothingNew, "an empty log");
    something_happens(&store).await;
    assert_eq!(checkpointer.make().await, Made::UpTo(1));
    assert_eq!(checkpointer.make().await, Made::NothingNew, "the checkpoint itself is nothing new");
    something_happens(&store).await;
    assert_eq!(checkpointer.stop().await, Made::UpTo(3));
    assert_eq!(sound(&store).await.vouched, 3);
    times.close();
}

#[tokio::test]
async fn the_log_goes_on_while_its_checkpoint_is_signed() {
    let (store, checkpointer, _times) = checkpointer(100, false, NEVER);
    something_happens(&store).await;
    assert_eq!(checkpointer.make().await, Made::UpTo(1));
    let chain = sound(&store).await;
    assert_eq!((chain.head.seq, chain.vouched), (102, 1));
    assert_eq!(checkpointer.make().await, Made::UpTo(102), "what came meanwhile is new");
}

#[tokio::test]
async fn checkpoints_are_made_at_intervals_and_a_failure_is_recorded_once() {
    let (store, checkpointer, mut times) = checkpointer(0, true, Duration::from_millis(1));
    something_happens(&store).await;
    for _ in 0..20 {
        tokio::time::timeout(PATIENCE, times.recv()).await.unwrap().unwrap();
    }
    assert_eq!(checkpointer.stop().await, Made::Failed("the token is away".to_owned()));
    let failures = events(&store).await.into_iter().filter(|event| matches!(event, AuditEvent::OwnSignature { failure: Some(_), .. }));
    assert_eq!(failures.count(), 1);
}

// The program.

/// A gateway of development mode that has signed once and stopped, and its folder.
struct Stopped {
    _parent: tempfile::TempDir,
    dir: PathBuf,
    /// The head while it ran.
    head: PathBuf,
}

impl Stopped {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let (dir, head) = (parent.path().join("dev"), parent.path().join("head"));
        let gateway = program::Gateway::dev(&dir);
        let dev = dev_json(&dir);
        let document = parent.path().join("document");
        fs::write(&document, "document").unwrap();
        let mut sign = program::sealgate();
        sign.args(["sign", "--url", &gateway.url, "--key", "ec-p256"])
            .arg(&document)
            .env("SEALGATE_API_KEY", dev["api_key"].as_str().unwrap());
        let signed = sign.output().unwrap();
        assert!(signed.status.success(), "{}", stderr(&signed));
        // The log is proved beside the gateway that writes it.
        let printed = audit(["head", "--dir", text(&dir)]);
        assert!(printed.status.success(), "{}", stderr(&printed));
        fs::write(&head, &printed.stdout).unwrap();
        assert!(gateway.stop().0.success());
        Self { _parent: parent, dir, head }
    }

    fn key(&self) -> String {
        text(&self.dir.join("certificates/rsa-2048.pem")).to_owned()
    }

    fn export(&self, file: &str) -> PathBuf {
        let file = self.dir.join(file);
        let done = audit(["export", "--dir", text(&self.dir), "-o", text(&file)]);
        assert!(done.status.success(), "{}", stderr(&done));
        file
    }

    /// Changes the database as its owner can, with what should hinder that taken away.
    fn tamper(&self, sql: &str) {
        let database = rusqlite::Connection::open(self.dir.join("sealgate.db")).unwrap();
        database.execute_batch("DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_removed;").unwrap();
        database.execute_batch(sql).unwrap();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn audit<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Output {
    program::run(["audit"].into_iter().chain(arguments))
}

#[track_caller]
fn assert_sound(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

#[track_caller]
fn assert_broken(output: &Output, words: &str) {
    let said = stdout(output);
    assert_eq!(output.status.code(), Some(1), "{said}{}", stderr(output));
    assert!(said.starts_with("BROKEN at record") && said.contains(words), "{said}");
}

#[test]
fn a_gateway_that_signed_leaves_a_log_that_is_proved_offline_with_its_checkpoint_by_the_token() {
    let stopped = Stopped::new();
    let key = stopped.key();
    let said = assert_sound(&audit(["verify", text(&stopped.dir), "--checkpoint-key", &key, "--head", text(&stopped.head)]));
    assert!(said.contains("checkpoints by key rsa-2048 (pinned"), "{said}");
    let export = stopped.export("log.jsonl");
    let said = assert_sound(&audit(["verify", text(&export), "--json", "--checkpoint-key", &key]));
    let said: Value = serde_json::from_str(&said).unwrap();
    let chain = &said["chains"][0];
    assert_eq!((&said["sound"], &chain["checkpoint_keys"][0]["pinned"]), (&json!(true), &json!(true)));
    // All but the record of the last checkpoint itself.
    assert_eq!(chain["vouched"].as_u64().unwrap() + 1, chain["last"].as_u64().unwrap());
    // A copy of the folder, and the export through a pipe.
    let copy = tempfile::tempdir().unwrap();
    fs::copy(stopped.dir.join("sealgate.db"), copy.path().join("sealgate.db")).unwrap();
    assert_sound(&audit(["verify", text(copy.path())]));
    let piped = program::sealgate().args(["audit", "verify", "-"]).stdin(fs::File::open(&export).unwrap()).output().unwrap();
    assert_sound(&piped);
    // Every kind of event of a plain signature is there, in order.
    let exported = fs::read_to_string(&export).unwrap();
    let events: Vec<String> =
        exported.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["record"]["event"].as_str().unwrap().to_owned()).collect();
    let expected = [
        "configuration-loaded",
        // The operator of development mode.
        "operator-changed",
        "ticket-opened",
        "content-received",
        "consent-given",
        "signed",
        "ticket-closed",
        "gateway-stopped",
        "checkpoint",
    ];
    assert_eq!(events, expected);
    let first: Value = serde_json::from_str(exported.lines().next().unwrap()).unwrap();
    let config = sealgate::domain::audit::Sha256::of(&fs::read(stopped.dir.join("sealgate.toml")).unwrap());
    assert_eq!(first["record"]["sha256"], config.to_string());
    // Somebody else recomputes it.
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audit_log/verify_export.py");
    let python = Command::new("python3").arg(script).arg(&export).arg(copy.path()).output().expect("python3; apt-get install python3");
    assert!(python.status.success(), "{}", stdout(&python));
    let head = audit(["head", "--dir", text(&stopped.dir)]);
    assert_eq!(stdout(&python), stdout(&head));
    let file = |extension: &str| copy.path().join(format!("9.{extension}"));
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-keyform", "DER", "-verify"]).arg(file("key")).arg("-signature").arg(file("sig")).arg(file("txt"));
    let judged = openssl.output().unwrap();
    assert!(judged.status.success(), "{}", stdout(&judged));
}

#[test]
fn a_second_run_continues_the_log_and_an_archive_continues_at_a_kept_head() {
    let stopped = Stopped::new();
    assert!(program::Gateway::dev(&stopped.dir).stop().0.success());
    let said = assert_sound(&audit(["verify", text(&stopped.dir), "--checkpoint-key", &stopped.key()]));
    assert!(said.contains("records 1 to 13"), "{said}");
    let head: Value = serde_json::from_str(&fs::read_to_string(&stopped.head).unwrap()).unwrap();
    let next = (head["seq"].as_u64().unwrap() + 1).to_string();
    let exported = audit(["export", "--dir", text(&stopped.dir), "--from", &next]);
    let rest = stopped.dir.join("rest.jsonl");
    fs::write(&rest, &exported.stdout).unwrap();
    assert_sound(&audit(["verify", text(&rest), "--head", text(&stopped.head)]));
    assert_broken(&audit(["verify", text(&rest)]), "it is missing");
}

#[test]
fn a_log_that_was_tampered_with_in_the_database_is_found_and_the_first_broken_record_named() {
    let stopped = Stopped::new();
    stopped.tamper("UPDATE audit SET text = replace(text, 'ec-p256', 'ec-p257') WHERE seq = 6");
    assert_broken(&audit(["verify", text(&stopped.dir)]), "record 6 of gateway");
    let json = audit(["verify", "--json", text(&stopped.dir)]);
    assert_eq!(json.status.code(), Some(1));
    let said: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!((&said["sound"], &said["record"]), (&json!(false), &json!(6)));
    let head = audit(["head", "--dir", text(&stopped.dir)]);
    assert_eq!((head.status.code(), stdout(&head)), (Some(1), String::new()));
    assert!(stderr(&head).contains("record 6"), "{}", stderr(&head));
    // The export of a broken log is as broken.
    assert_broken(&audit(["verify", text(&stopped.export("broken.jsonl"))]), "record 6 of gateway");
}

#[test]
fn records_removed_spoilt_or_cut_off_in_the_database_are_found() {
    let stopped = Stopped::new();
    stopped.tamper("UPDATE audit SET hash = zeroblob(3) WHERE seq = 7");
    assert_broken(&audit(["verify", text(&stopped.dir)]), "record 7 of gateway");
    let database = rusqlite::Connection::open(stopped.dir.join("sealgate.db")).unwrap();
    database.execute_batch("UPDATE audit SET gateway = randomblob(16) WHERE seq = 6").unwrap();
    let said = audit(["verify", text(&stopped.dir)]);
    assert_eq!(said.status.code(), Some(1), "{}", stdout(&said));
    database.execute_batch("DELETE FROM audit WHERE seq = 6").unwrap();
    assert_broken(&audit(["verify", text(&stopped.dir)]), "record 6 of gateway");
    database.execute_batch("DELETE FROM audit WHERE seq > 4").unwrap();
    drop(database);
    assert_sound(&audit(["verify", text(&stopped.dir)]));
    assert_broken(&audit(["verify", text(&stopped.dir), "--head", text(&stopped.head)]), "cut off after record 4");
    assert_broken(&audit(["verify", text(&stopped.dir), "--checkpoint-key", &stopped.key()]), "no checkpoint of a pinned key");
}

#[test]
fn checkpoints_by_another_key_than_the_pinned_one_are_refused() {
    let stopped = Stopped::new();
    let other = stopped.dir.join("certificates/ec-p256.pem");
    assert_broken(&audit(["verify", text(&stopped.dir), "--checkpoint-key", text(&other)]), "a key that was not pinned");
}

#[test]
fn what_cannot_be_verified_is_an_error_that_says_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let missing = audit(["verify", text(empty.path())]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("data folder"), "{}", stderr(&missing));
    assert_eq!(audit(["verify"]).status.code(), Some(2));
    let file = empty.path().join("no-key");
    fs::write(&file, "no key").unwrap();
    let wrong = audit(["verify", text(empty.path()), "--checkpoint-key", text(&file)]);
    assert!(stderr(&wrong).contains("openssl x509 -pubkey"), "{}", stderr(&wrong));
    let wrong = audit(["verify", text(empty.path()), "--head", text(&file)]);
    assert!(stderr(&wrong).contains("sealgate audit head"), "{}", stderr(&wrong));
}
