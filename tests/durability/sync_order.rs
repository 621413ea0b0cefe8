//! The order of system calls of one signature: nothing is begun, and nothing is told, before it is on disk.

use pkcs11_faults::log::Outcome;
use rusqlite::Connection;
use sealgate::{
    domain::{
        audit::{AuditEvent, AuditRecord},
        digest::SigningInput,
        ids::GatewayId,
        job::{JobOutcome, SigningJob},
    },
    store::{
        JobFilter, Store,
        sqlite::{SqliteSettings, SqliteStore},
    },
};

use super::{
    common::{
        client::{Client, Ended},
        program::{Gateway, sealgate},
        site::Site,
    },
    trace::{Call, Strace},
};

const WAL: &str = "sealgate.db-wal";
const CONTENT: &[u8] = &[0xc5; 3000];

struct Traced {
    calls: Vec<Call>,
}

impl Traced {
    /// When the first call that fits began.
    fn first(&self, what: &str, fits: impl Fn(&Call) -> bool) -> &Call {
        self.calls.iter().find(|call| fits(call)).unwrap_or_else(|| panic!("{what} is not in the trace"))
    }

    /// When these bytes, as they were first written to a file, were on disk: a sync of it began after the write and has returned.
    fn on_disk(&self, what: &str, file: &str, bytes: &[u8]) -> usize {
        let written = self.first(what, |call| !call.is_sync() && call.is_to(file) && call.carries(bytes));
        let sync = self.first(&format!("a sync after {what}"), |call| call.is_sync() && call.is_to(file) && call.began > written.returned);
        sync.returned
    }

    /// When these bytes were first given to a socket.
    fn sent(&self, what: &str, socket: &str, bytes: &[u8]) -> usize {
        self.first(what, |call| !call.is_sync() && call.is_to(socket) && call.carries(bytes)).began
    }
}

#[test]
fn every_step_of_a_signature_is_on_disk_before_the_next_begins() {
    let mut site = Site::new();
    site.set("ticket_api", "spool_threshold_bytes", 1024);
    let strace = Strace::to(site.folder());
    let mut program = sealgate();
    program.env("SEALGATE_LOG", "warn").args(["serve", "--config"]).arg(site.config_file());
    let gateway = Gateway::start(&mut strace.around(&program));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::of(&site);
        let ticket = client.ticket_with(CONTENT).await;
        client.start(&ticket, None).await;
        assert_eq!(client.wait(&ticket).await, Ended::Signed);
    });
    // The signal is for the program, not for strace, which ends with it.
    let program = gateway.children()[0];
    assert!(std::process::Command::new("kill").arg(program.to_string()).status().unwrap().success());
    let mut gateway = gateway;
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");

    let (job, audit_hash) = runtime.block_on(the_job(&site));
    let spooled: String =
        Connection::open(site.database()).unwrap().query_row("SELECT spooled FROM tickets", (), |row| row.get(0)).unwrap();
    let trace = Traced { calls: strace.read() };

    // The upload: its bytes and its name are on disk before the database refers to it.
    let bytes = trace.on_disk("the content", &spooled, &CONTENT[..64]);
    let synced = trace.first("a sync of the spool folder", |call| call.is_sync() && call.is_to_end("/spool"));
    let referred = trace.first("the ticket", |call| call.is_to(WAL) && call.carries(spooled.as_bytes()));
    assert!(bytes < referred.began && synced.returned < referred.began, "the upload");

    // Accepted: on disk before the client hears of it.
    let accepted = trace.on_disk("the job", WAL, job.id.as_uuid().as_bytes());
    let answered = trace.sent("the answer to the request for a signature", "TCP", b"creation of the signature was started");
    assert!(accepted < answered, "the job is accepted on disk before the client is told");

    // Claimed: on disk before the command goes to the module's process; its mark stands before the token is called.
    let SigningInput::Digest(digest) = job.to_sign.input() else { panic!("a digest") };
    let claimed = trace.on_disk("the claim", WAL, job.claim.unwrap().as_uuid().as_bytes());
    let commanded = trace.sent("the command", "UNIX", digest.as_bytes());
    // A dispatcher that waits has the job claimed in the commit that accepts it.
    assert!(accepted <= claimed && claimed < commanded, "the claim is on disk before the token's process is told");
    let marked = trace.first("the mark", |call| call.is_to("/begun/") && call.carries(job.id.as_uuid().as_bytes()));
    let begun = trace.first("C_Sign", |call| {
        call.is_to("token.log") && call.carries(b"sign_begin") && call.carries(hex::encode(digest.as_bytes()).as_bytes())
    });
    assert!(commanded < marked.returned && marked.returned < begun.began, "the mark stands before C_Sign");

    // Ended: on disk, with its audit record, before the client gets the signature.
    let recorded = trace.on_disk("the audit record of the end", WAL, &audit_hash);
    let Some(JobOutcome::Signed(signature)) = &job.outcome else { panic!("{:?}", job.outcome) };
    // Half of the raw signature stands in its DER form as it is, if it does not begin with a zero; 24 bytes of it always do.
    let handed_out = trace.sent("the signature", "TCP", &signature.as_raw_bytes()[8..32]);
    assert!(recorded < handed_out, "the end is on disk before the signature is handed out");
    assert_eq!(
        site.token_log()
            .signings()
            .iter()
            .filter(|call| call.outcome == Outcome::Signed && call.signing.data.as_deref() == Some(&hex::encode(digest.as_bytes())))
            .count(),
        1
    );
}

/// The only job, and the hash of the audit record of its end.
async fn the_job(site: &Site) -> (SigningJob, [u8; 32]) {
    let gateway: GatewayId = std::fs::read_to_string(site.data_dir().join("gateway-id")).unwrap().trim().parse().unwrap();
    let store = SqliteStore::open(SqliteSettings::new(site.database(), gateway)).unwrap();
    let mut jobs = store.list_jobs(&JobFilter::default(), 2).await.unwrap();
    assert_eq!(jobs.len(), 1);
    let records = store.audit_records(gateway, 1, usize::MAX).await.unwrap();
    let end = records.iter().find(|record| {
        let read: AuditRecord = serde_json::from_str(&record.text).unwrap();
        matches!(read.event, AuditEvent::Signed { .. })
    });
    (jobs.remove(0), *end.expect("the end of the job").hash.as_bytes())
}
