//! A permission that an operator granted is never over-spent: whatever races for it, whatever fails, and whatever is started again meanwhile; on
//! SQLite, and on PostgreSQL with two gateways.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/postgres.rs"]
#[allow(dead_code)]
mod postgres_server;

use std::{path::PathBuf, sync::Arc, time::Duration};

use postgres_server::Postgres;
use sealgate::{
    domain::{
        algorithm::{HashAlgorithm, KeyKind, SignatureAlgorithm},
        audit::Consent,
        caller::{Caller, ConsentPolicy, KeyAccess, Provenance, Scopes},
        digest::{Digest, SigningInput, ToSign},
        ids::{GatewayId, JobId, PermitId},
        job::{FailureCause, JobOutcome, JobState, KeyAddress, SigningJob},
        operator::{Operator, Role},
        permit::{Permit, PermitState},
        signature::SignatureValue,
        token::{KeySelector, TokenIdentity},
    },
    permit::{PermitService, PermitSettings},
    signing::recovery::{LastRun, settle_claims},
    store::{
        Change, Conflict, Store, StoreError,
        postgres::{PostgresSettings, PostgresStore},
        sqlite::{SqliteSettings, SqliteStore},
    },
};

/// How many were asked for, and how many an operator allowed.
const ASKED: u32 = 60;
const ALLOWED: u32 = 40;
/// How many want one, each round.
const JOBS: usize = 100;

type AnyStore = Arc<dyn Store>;

/// Where the state is, and how a gateway comes to it.
enum House {
    Sqlite(PathBuf, GatewayId),
    Postgres(String),
}

impl House {
    /// A gateway's store; for SQLite there is one at a time.
    async fn open(&self, gateway: GatewayId) -> Opened {
        match self {
            Self::Sqlite(path, gateway) => {
                let store = Arc::new(SqliteStore::open(SqliteSettings::new(path.clone(), *gateway)).unwrap());
                Opened::Sqlite(store)
            }
            Self::Postgres(url) => {
                Opened::Postgres(Arc::new(PostgresStore::open(PostgresSettings::new(url, gateway).unwrap()).await.unwrap()))
            }
        }
    }
}

#[derive(Clone)]
enum Opened {
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PostgresStore>),
}

impl Opened {
    fn store(&self) -> AnyStore {
        match self {
            Self::Sqlite(store) => store.clone(),
            Self::Postgres(store) => store.clone(),
        }
    }

    async fn close(self) {
        match self {
            Self::Sqlite(store) => tokio::task::spawn_blocking(move || store.close()).await.unwrap(),
            Self::Postgres(store) => store.close(Duration::from_secs(10)).await,
        }
    }
}

fn caller() -> Caller {
    Caller {
        id: "ci".parse().unwrap(),
        keys: KeyAccess::All,
        default_key: None,
        consent: ConsentPolicy::Operator.into(),
        permit_uses_max: 1_000,
        scopes: Scopes::default(),
        account: None,
        rate: None,
        from: Provenance::default(),
    }
}

fn token() -> TokenIdentity {
    let [manufacturer, model, serial, label] = ["m", "o", "s", "l"].map(str::to_owned);
    TokenIdentity { module: "softhsm".parse().unwrap(), manufacturer, model, serial, label }
}

fn job(store: &AnyStore, permit: PermitId) -> SigningJob {
    let digest = Digest::new(HashAlgorithm::Sha256, vec![7; 32]).unwrap();
    SigningJob {
        id: JobId::random(),
        caller: caller().id,
        from: Provenance::default(),
        key: KeyAddress { token: token(), selector: KeySelector { id: Some(vec![1]), label: None }, name: None },
        to_sign: ToSign::new(SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256), SigningInput::Digest(digest)).unwrap(),
        certificate_serial: None,
        consent: Consent::Policy,
        permit: Some(permit),
        with_pin: false,
        accepted: store.now(),
        deadline: store.now().after(Duration::from_secs(600)),
        state: JobState::Queued,
        claim: None,
        outcome: None,
    }
}

/// What a job comes to, by its number: most are signed, some certainly were not, some nobody knows of.
fn outcome(n: usize) -> JobOutcome {
    match n % 5 {
        0 => JobOutcome::not_signed(FailureCause::Device, ""),
        1 => JobOutcome::not_signed(FailureCause::OutcomeUnknown, ""),
        _ => JobOutcome::Signed(SignatureValue::from_token(&KeyKind::Rsa { modulus_bits: 2048 }, vec![1; 256]).unwrap()),
    }
}

/// Asks at one gateway, has it allowed in part at another one, and returns the permit that whoever asked was given.
async fn granted(asked_at: &AnyStore, decided_at: &AnyStore) -> Permit {
    let service = |store: &AnyStore| Arc::new(PermitService::new(Arc::clone(store), PermitSettings::default()));
    let (asker, decider) = (service(asked_at), service(decided_at));
    let operator = |name: &str| Operator { name: name.parse().unwrap(), role: Role::Approver, keys: KeyAccess::All };
    let mut changes = decider.watch();
    let asking = {
        let asker = Arc::clone(&asker);
        tokio::spawn(async move { asker.request(&caller(), ASKED).await })
    };
    let request = loop {
        changes.borrow_and_update();
        match decider.waiting(&operator("anna")).await.unwrap().pop() {
            Some(request) => break request,
            None => changes.changed().await.unwrap(),
        }
    };
    // Many operators at once, at both gateways: one decision counts.
    let decisions: Vec<_> = (0..8)
        .map(|n| {
            let (service, by) = ([&asker, &decider].map(Arc::clone)[n % 2].clone(), operator(&format!("operator-{n}")));
            tokio::spawn(async move { service.grant(&by, request.id, Some(ALLOWED)).await.is_ok() })
        })
        .collect();
    let mut counted = 0;
    for decision in decisions {
        counted += usize::from(decision.await.unwrap());
    }
    assert_eq!(counted, 1);
    let permit = asking.await.unwrap().unwrap();
    assert_eq!((permit.state, permit.uses), (PermitState::Granted, ALLOWED));
    permit
}

/// As many jobs as there are want a use of the permit, at every gateway at once.
async fn rush(stores: &[AnyStore], permit: PermitId) -> usize {
    let tries: Vec<_> = (0..JOBS)
        .map(|n| {
            let store = Arc::clone(&stores[n % stores.len()]);
            tokio::spawn(async move {
                match store.commit(vec![Change::AcceptJob { job: job(&store, permit), queue_bound: 10_000 }]).await {
                    Ok(()) => true,
                    Err(StoreError::Conflict(Conflict::Permit(_))) => false,
                    Err(error) => panic!("{error}"),
                }
            })
        })
        .collect();
    let mut accepted = 0;
    for attempt in tries {
        accepted += usize::from(attempt.await.unwrap());
    }
    accepted
}

/// Claims and ends jobs until none is queued; returns how many were signed or may have been. `ended` counts all of them, round after round.
async fn work_off(store: &AnyStore, permit: PermitId, ended: &mut usize) -> u32 {
    let mut spent = 0;
    loop {
        let claimed = store.claim_jobs(&token(), 7, store.now()).await.unwrap();
        if claimed.is_empty() {
            return spent;
        }
        for job in claimed {
            let outcome = outcome(*ended);
            *ended += 1;
            spent += u32::from(outcome.spends_the_use());
            store.commit(vec![Change::EndJob { job: job.id, claim: job.claim, outcome }]).await.unwrap();
            let permit = store.find_permit(permit).await.unwrap().unwrap();
            assert!(permit.reserved + permit.committed <= permit.uses, "{permit:?}");
        }
    }
}

async fn never_over_spent(house: House, gateways: usize) {
    let ids: Vec<_> = (0..gateways).map(|_| GatewayId::random()).collect();
    let mut opened = Vec::new();
    for id in &ids {
        opened.push(house.open(*id).await);
    }
    let stores = |opened: &[Opened]| opened.iter().map(Opened::store).collect::<Vec<_>>();
    let all = stores(&opened);
    let permit = granted(&all[0], all.last().unwrap()).await.id;
    assert_eq!(rush(&all, permit).await, ALLOWED as usize);
    // In the middle of it a gateway goes: some of its jobs are at the token, and nobody can say how far they came.
    let claimed = all[0].claim_jobs(&token(), 5, all[0].now()).await.unwrap();
    assert_eq!(claimed.len(), 5);
    drop(all);
    opened.remove(0).close().await;
    opened.insert(0, house.open(ids[0]).await);
    let all = stores(&opened);
    let nowhere = LastRun { marks: "/nonexistent".as_ref(), marks_are_whole: false };
    settle_claims(&*all[0], nowhere, &[]).await.unwrap();
    let (mut spent, mut ended) = (claimed.len() as u32, 0);
    // Uses that were given back are fought for again, until none is left.
    loop {
        for store in &all {
            spent += work_off(store, permit, &mut ended).await;
        }
        let stands = all[0].find_permit(permit).await.unwrap().unwrap();
        assert_eq!((stands.reserved, stands.committed, stands.uses), (0, spent, ALLOWED));
        if stands.uses_left() == 0 {
            break;
        }
        assert_eq!(rush(&all, permit).await, stands.uses_left() as usize);
    }
    assert_eq!((spent, rush(&all, permit).await), (ALLOWED, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_granted_permission_is_never_over_spent_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    never_over_spent(House::Sqlite(directory.path().join("sealgate.db"), GatewayId::random()), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_granted_permission_is_never_over_spent_by_two_gateways_on_postgresql() {
    let url = tokio::task::spawn_blocking(|| Postgres::shared().new_database()).await.unwrap();
    never_over_spent(House::Postgres(url), 2).await;
}
