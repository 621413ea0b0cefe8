//! What a gateway's database says when it has stopped, compared with what its clients were told and what its token did.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use pkcs11_faults::log::{Outcome, SigningCall};
use rusqlite::Connection;
use sealgate::{
    domain::{
        audit::{AuditEvent, AuditRecord, Sha256},
        digest::SigningInput,
        ids::{GatewayId, JobId, TicketId},
        job::{JobState, SigningJob},
    },
    store::{
        JobFilter, Store,
        sqlite::{SqliteSettings, SqliteStore},
    },
};

use super::common::{client::Ended, site::Site};

/// What was counted.
#[derive(Debug, Default)]
pub struct Figures {
    pub jobs: usize,
    pub signed: usize,
    pub in_doubt: usize,
    /// Signatures that the token made for jobs in doubt.
    pub doubts_signed: usize,
    pub killed: usize,
    pub modules_killed: usize,
    pub lost_answers: usize,
    pub signed_after_loss: usize,
    pub audit_records: usize,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.jobs += other.jobs;
        self.signed += other.signed;
        self.in_doubt += other.in_doubt;
        self.doubts_signed += other.doubts_signed;
        self.killed += other.killed;
        self.modules_killed += other.modules_killed;
        self.lost_answers += other.lost_answers;
        self.signed_after_loss += other.signed_after_loss;
        self.audit_records += other.audit_records;
    }
}

/// The database of a gateway that has stopped, and the log of its token.
pub struct Books {
    store: Arc<SqliteStore>,
    gateway: GatewayId,
    pub jobs: HashMap<JobId, SigningJob>,
    /// What the token was given, by the digest in hex.
    calls: HashMap<String, Vec<SigningCall>>,
}

impl Books {
    pub async fn open(site: &Site) -> Self {
        let database = Connection::open(site.database()).unwrap();
        let sound: String = database.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        let reserved: i64 = database.query_row("SELECT count(*) FROM permits WHERE reserved > 0", (), |row| row.get(0)).unwrap();
        assert_eq!(reserved, 0, "uses are reserved for jobs that have all ended");
        let gateway: GatewayId = std::fs::read_to_string(site.data_dir().join("gateway-id")).unwrap().trim().parse().unwrap();
        let store = Arc::new(SqliteStore::open(SqliteSettings::new(site.database(), gateway)).unwrap());
        let jobs = store.list_jobs(&JobFilter::default(), usize::MAX).await.unwrap();
        let mut calls: HashMap<String, Vec<SigningCall>> = HashMap::new();
        let may_have_signed = |call: &SigningCall| call.outcome != Outcome::NotSigned;
        // Checkpoints of the audit log are signed with another key.
        let key_ids: HashSet<_> = jobs.iter().map(|job| job.key.selector.id.as_ref().map(hex::encode)).collect();
        let of_jobs = |call: &SigningCall| key_ids.contains(&call.signing.key_id);
        for call in site.token_log().signings().into_iter().filter(|call| may_have_signed(call) && of_jobs(call)) {
            calls.entry(call.signing.data.clone().expect("a digest")).or_default().push(call);
        }
        Self { store, gateway, jobs: jobs.into_iter().map(|job| (job.id, job)).collect(), calls }
    }

    /// The state of a ticket's job.
    pub async fn state_of(&self, ticket: TicketId) -> JobState {
        let ticket = self.store.find_ticket(ticket).await.unwrap().expect("a ticket that was not deleted");
        self.jobs[&ticket.signing.expect("a signature was asked for").job].state
    }

    /// How often the token may have signed for a ticket's job.
    pub async fn calls_for(&self, ticket: TicketId) -> usize {
        let ticket = self.store.find_ticket(ticket).await.unwrap().unwrap();
        self.calls.get(&digest_of(&self.jobs[&ticket.signing.unwrap().job])).map_or(0, Vec::len)
    }

    /// Checks everything; `ended` is what clients were told of each ticket.
    pub async fn check(&self, ended: &[(TicketId, Ended)]) -> Figures {
        for (ticket, told) in ended {
            let state = self.state_of(*ticket).await;
            let wanted = if *told == Ended::Signed { JobState::Signed } else { JobState::InDoubt };
            assert_eq!(state, wanted, "the client of ticket {ticket} was told {told:?}");
        }
        assert_eq!(self.jobs.len(), ended.len(), "every job is one that a client was told was accepted");
        let mut figures = self.check_token();
        self.check_permits().await;
        figures.audit_records = self.check_audit().await;
        figures
    }

    /// What is signed was signed once, what is in doubt once at most, and nothing else.
    fn check_token(&self) -> Figures {
        let mut figures = Figures { jobs: self.jobs.len(), ..Figures::default() };
        let mut digests: HashMap<String, &SigningJob> = HashMap::new();
        for job in self.jobs.values() {
            let digest = digest_of(job);
            let calls = self.calls.get(&digest).map_or(&[][..], Vec::as_slice);
            match job.state {
                JobState::Signed => {
                    assert_eq!(calls.len(), 1, "job {} is signed; the token was given it so often: {calls:?}", job.id);
                    assert_eq!(calls[0].outcome, Outcome::Signed, "job {}", job.id);
                    figures.signed += 1;
                }
                JobState::InDoubt => {
                    assert!(calls.len() <= 1, "job {} is in doubt; the token was given it so often: {calls:?}", job.id);
                    figures.in_doubt += 1;
                    figures.doubts_signed += calls.len();
                }
                state => panic!("job {} ended as {state}: {:?}", job.id, job.outcome),
            }
            assert!(digests.insert(digest, job).is_none(), "two jobs with one digest would prove nothing");
        }
        let strangers: Vec<_> = self.calls.keys().filter(|digest| !digests.contains_key(*digest)).collect();
        assert!(strangers.is_empty(), "the token was given what was never accepted: {strangers:?}");
        figures
    }

    /// A permit's uses are those of its jobs.
    async fn check_permits(&self) {
        let mut spent: HashMap<_, u32> = HashMap::new();
        for job in self.jobs.values() {
            let spends = job.outcome.as_ref().is_some_and(|outcome| outcome.spends_the_use());
            *spent.entry(job.permit.expect("a permit")).or_default() += u32::from(spends);
        }
        for (id, uses) in spent {
            let permit = self.store.find_permit(id).await.unwrap().expect("a permit that jobs refer to");
            assert_eq!((permit.reserved, permit.committed), (0, uses), "permit {id}");
        }
    }

    /// The chain holds, and tells the end of each job once.
    async fn check_audit(&self) -> usize {
        let records = self.store.audit_records(self.gateway, 1, usize::MAX).await.unwrap();
        let mut previous = Sha256::ZERO;
        let mut ends: HashMap<JobId, usize> = HashMap::new();
        for (record, seq) in records.iter().zip(1..) {
            let read: AuditRecord = serde_json::from_str(&record.text).unwrap();
            assert_eq!((record.seq, read.seq, read.gateway, read.previous), (seq, seq, self.gateway, previous));
            assert_eq!(Sha256::of(record.text.as_bytes()), record.hash, "record {seq}");
            previous = record.hash;
            if let AuditEvent::Signed { facts, .. } | AuditEvent::NotSigned { facts, .. } = &read.event {
                *ends.entry(facts.job).or_default() += 1;
            }
        }
        for job in self.jobs.values() {
            assert_eq!(ends.remove(&job.id), Some(1), "the end of job {} stands once in the audit log", job.id);
        }
        assert!(ends.is_empty(), "the audit log tells of jobs that there are not: {ends:?}");
        records.len()
    }
}

fn digest_of(job: &SigningJob) -> String {
    let SigningInput::Digest(digest) = job.to_sign.input() else { panic!("the key signs digests") };
    hex::encode(digest.as_bytes())
}
