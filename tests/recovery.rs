//! What a start does with the jobs of the run before, and what an operator says about those in doubt.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{collections::HashSet, path::Path, sync::Arc};

use common::program::{Gateway, run, stderr, stdout};
use sealgate::{
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        audit::Consent,
        caller::Provenance,
        digest::{Digest, SigningInput, ToSign},
        ids::{GatewayId, JobId, PermitId},
        job::{JobState, KeyAddress, SigningJob},
        permit::Permit,
        token::{KeySelector, TokenIdentity},
    },
    signing::recovery::{LastRun, settle_claims},
    store::{
        Change, Store,
        memory::MemoryStore,
        sqlite::{SqliteSettings, SqliteStore},
    },
    token::marks::Marks,
};
use serde_json::Value;

fn token() -> TokenIdentity {
    let text = |text: &str| text.to_owned();
    TokenIdentity {
        module: "softhsm".parse().unwrap(),
        manufacturer: text("SoftHSM project"),
        model: text("SoftHSM v2"),
        serial: text("0123456789abcdef"),
        label: text("away"),
    }
}

fn job(store: &dyn Store, permit: PermitId) -> SigningJob {
    let digest = Digest::new(HashAlgorithm::Sha256, vec![7; 32]).unwrap();
    SigningJob {
        id: JobId::random(),
        caller: "ci".parse().unwrap(),
        from: Provenance::default(),
        key: KeyAddress { token: token(), selector: KeySelector { id: Some(vec![1]), label: None }, name: None },
        to_sign: ToSign::new(SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256), SigningInput::Digest(digest)).unwrap(),
        certificate_serial: None,
        permit: Some(permit),
        consent: Consent::Policy,
        with_pin: false,
        accepted: store.now(),
        deadline: store.now().after(std::time::Duration::from_secs(3600)),
        state: JobState::Queued,
        claim: None,
        outcome: None,
    }
}

/// Leaves so many jobs in `store` as a run does that ends while they are claimed; a permit pays for all.
async fn claimed_jobs(store: &dyn Store, count: u32) -> (Vec<JobId>, PermitId) {
    let expires = store.now().after(std::time::Duration::from_secs(3600));
    let caller = "ci".parse().unwrap();
    let permit = Permit::by_policy(PermitId::random(), caller, count, expires);
    let jobs: Vec<_> = (0..count).map(|_| job(store, permit.id)).collect();
    let accept = jobs.iter().map(|job| Change::AcceptJob { job: job.clone(), queue_bound: 100 });
    store.commit([Change::InsertPermit(permit.clone())].into_iter().chain(accept).collect()).await.unwrap();
    let claimed = store.claim_jobs(&token(), 100, store.now()).await.unwrap();
    assert_eq!(claimed.len(), jobs.len());
    (jobs.into_iter().map(|job| job.id).collect(), permit.id)
}

async fn states(store: &dyn Store, jobs: &[JobId]) -> Vec<JobState> {
    let mut states = Vec::new();
    for job in jobs {
        states.push(store.find_job(*job).await.unwrap().unwrap().state);
    }
    states
}

fn mark(dir: &Path, jobs: &[JobId]) {
    let mut marks = Marks::open(dir, &token()).unwrap();
    jobs.iter().for_each(|job| marks.note(job.as_uuid()).unwrap());
}

#[tokio::test]
async fn what_was_begun_is_in_doubt_and_what_was_not_waits_again() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let (jobs, permit) = claimed_jobs(&store, 3).await;
    mark(dir.path(), &jobs[..1]);
    settle_claims(&store, LastRun { marks: dir.path(), marks_are_whole: true }, &[]).await.unwrap();
    assert_eq!(states(&store, &jobs).await, [JobState::InDoubt, JobState::Queued, JobState::Queued]);
    let permit = store.find_permit(permit).await.unwrap().unwrap();
    assert_eq!((permit.reserved, permit.committed), (2, 1));
    settle_claims(&store, LastRun { marks: dir.path(), marks_are_whole: true }, &[]).await.unwrap();
    assert_eq!(states(&store, &jobs).await, [JobState::InDoubt, JobState::Queued, JobState::Queued]);
}

#[tokio::test]
async fn after_a_power_loss_and_without_marks_everything_claimed_is_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    for (stayed_up, marked) in [(false, true), (true, false)] {
        let store = MemoryStore::new();
        let (jobs, _) = claimed_jobs(&store, 2).await;
        let marks = dir.path().join(stayed_up.to_string());
        if marked {
            mark(&marks, &jobs[..1]);
        }
        settle_claims(&store, LastRun { marks: &marks, marks_are_whole: stayed_up }, &[]).await.unwrap();
        assert_eq!(states(&store, &jobs).await, [JobState::InDoubt, JobState::InDoubt], "{stayed_up} {marked}");
    }
}

/// The id of the gateway whose folder this is.
fn gateway_of(dir: &Path) -> GatewayId {
    std::fs::read_to_string(dir.join("gateway-id")).unwrap().trim().parse().unwrap()
}

fn jobs_verb(dir: &Path, arguments: &[&str]) -> std::process::Output {
    let dir = ["--dir", dir.to_str().unwrap()];
    run(["jobs"].into_iter().chain(arguments.iter().copied()).chain(dir))
}

#[test]
fn an_operator_settles_jobs_in_doubt_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("dev");
    Gateway::dev(&dir).stop();
    let data = sealgate_data(&dir);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let open = || Arc::new(SqliteStore::open(SqliteSettings::new(data.join("sealgate.db"), gateway_of(&data))).unwrap());
    let (jobs, permit) = runtime.block_on(async {
        let store = open();
        let left = claimed_jobs(&*store, 2).await;
        store.close();
        left
    });

    let gateway = Gateway::dev(&dir);
    let listed = jobs_verb(&dir, &["list", "--state", "in-doubt", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap_or_else(|_| panic!("{}", stderr(&listed)));
    let ids: HashSet<_> = listed["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, jobs.iter().map(ToString::to_string).collect());
    let (first, second) = (jobs[0].to_string(), jobs[1].to_string());
    assert!(stdout(&jobs_verb(&dir, &["show", &first])).contains("nobody knows whether it did"));
    let undecided = jobs_verb(&dir, &["resolve", &first]);
    assert_eq!(undecided.status.code(), Some(2), "{}", stderr(&undecided));
    let signed = jobs_verb(&dir, &["resolve", &first, "--signed"]);
    assert!(stdout(&signed).contains("its permission's use stays spent"), "{}", stderr(&signed));
    let not_signed = jobs_verb(&dir, &["resolve", &second, "--not-signed"]);
    assert!(stdout(&not_signed).contains("was given back"), "{}", stderr(&not_signed));
    let again = jobs_verb(&dir, &["resolve", &second, "--signed"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("is failed, not in doubt"), "{}", stderr(&again));
    let unknown = jobs_verb(&dir, &["show", &JobId::random().to_string()]);
    assert!(stderr(&unknown).contains("no such job"), "{}", stderr(&unknown));
    gateway.stop();

    let store = open();
    let permit = runtime.block_on(store.find_permit(permit)).unwrap().unwrap();
    assert_eq!((permit.reserved, permit.committed), (0, 1));
    store.close();
}

/// Where the gateway of development mode keeps its state.
fn sealgate_data(dir: &Path) -> std::path::PathBuf {
    let found = [dir.join("data"), dir.to_owned()].into_iter().find(|dir| dir.join("gateway-id").exists());
    found.expect("a folder with a gateway's id")
}
