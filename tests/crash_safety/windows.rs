//! Crashes at chosen moments, which random ones hardly ever hit.

use std::{fs, future::poll_fn, pin::pin, sync::Arc, task::Poll};

use pkcs11_faults::{bench::Bench, event::Awaited, fault::Fault, function::Function, variables};
use reqwest::Method;
use rusqlite::Connection;
use sealgate::{
    domain::{
        ids::{GatewayId, TicketId},
        job::JobState,
        ticket::{Content, ContentPlace},
    },
    store::sqlite::{SqliteSettings, SqliteStore},
    ticket::TicketSettings,
};

use super::{
    books::Books,
    common::{
        client::{Client, Ended, Told},
        gateway::Plan,
        program::{sealgate, stderr},
        site::Site,
    },
};

/// A gateway whose token is at a bench.
struct Rig {
    // Ends before the folder with its socket goes.
    bench: Bench,
    site: Site,
    client: Arc<Client>,
}

impl Rig {
    fn new() -> Self {
        let mut site = Site::new();
        let socket = site.folder().join("bench.sock");
        let bench = Bench::listen(&socket, None).unwrap();
        site.set_variable(variables::CONTROL, &socket);
        let client = Arc::new(Client::of(&site));
        Self { site, bench, client }
    }

    /// Asks for a signature and gives back its ticket.
    async fn order(&self, content: &[u8]) -> String {
        let ticket = self.client.ticket_with(content).await;
        self.client.start(&ticket, None).await;
        ticket
    }

    async fn until(&self, event: Awaited) {
        let control = self.bench.control();
        tokio::task::spawn_blocking(move || control.wait_for(event)).await.unwrap().unwrap();
    }

    /// Kills the gateway while the token holds the first of two jobs; the other has been handed over and waits behind it. Gives back the
    /// tickets of both.
    async fn crash_with_two_jobs(&self, fault: Fault) -> (String, String) {
        let mut gateway = self.site.serve();
        self.bench.control().arm(fault).unwrap();
        let held = self.order(b"held").await;
        self.until(Awaited::held(Function::C_Sign)).await;
        let behind = self.order(b"behind").await;
        self.until_signing(2);
        gateway.signal("KILL");
        gateway.wait();
        self.bench.control().reset().unwrap();
        (held, behind)
    }

    /// Waits until so many jobs are claimed.
    fn until_signing(&self, wanted: u32) {
        let database = Connection::open(self.site.database()).unwrap();
        let signing = || database.query_row("SELECT count(*) FROM jobs WHERE state = 'signing'", (), |row| row.get::<_, u32>(0));
        while signing().unwrap() < wanted {
            std::thread::yield_now();
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test);
}

fn ticket(id: &str) -> TicketId {
    id.parse().unwrap()
}

#[test]
fn a_client_that_waits_across_a_crash_gets_its_signature_afterwards() {
    run(async {
        let rig = Rig::new();
        let client = Arc::clone(&rig.client);
        let mut gateway = rig.site.serve();
        rig.bench.control().arm(Fault::on(Function::C_Sign).hangs()).unwrap();
        let held = rig.order(b"held").await;
        rig.until(Awaited::held(Function::C_Sign)).await;
        let behind = rig.order(b"behind").await;
        rig.until_signing(2);
        let waiting = tokio::spawn({
            let behind = behind.clone();
            async move { client.wait(&behind).await }
        });
        // An answer that comes later than the waiting request was sent: it has been taken by then.
        rig.client.ticket_with(b"later").await;
        gateway.signal("KILL");
        gateway.wait();
        rig.bench.control().reset().unwrap();
        let gateway = rig.site.serve();
        assert_eq!(waiting.await.unwrap(), Ended::Signed);
        assert!(matches!(rig.client.wait(&held).await, Ended::NotSigned(_)));
        assert!(gateway.stop().0.success());
        let books = Books::open(&rig.site).await;
        assert_eq!((books.state_of(ticket(&held)).await, books.state_of(ticket(&behind)).await), (JobState::InDoubt, JobState::Signed));
        assert_eq!(
            (books.calls_for(ticket(&held)).await, books.calls_for(ticket(&behind)).await),
            (0, 1),
            "held before the token was called"
        );
    });
}

#[test]
fn what_the_token_signed_and_the_gateway_did_not_record_is_in_doubt_and_not_repeated() {
    run(async {
        let rig = Rig::new();
        let (held, behind) = rig.crash_with_two_jobs(Fault::on(Function::C_Sign).after().hangs()).await;
        let gateway = rig.site.serve();
        let ended = [(ticket(&held), rig.client.wait(&held).await), (ticket(&behind), rig.client.wait(&behind).await)];
        assert!(gateway.stop().0.success());
        assert!(matches!(ended[0].1, Ended::NotSigned(_)) && ended[1].1 == Ended::Signed, "{ended:?}");
        let books = Books::open(&rig.site).await;
        let figures = books.check(&ended).await;
        assert_eq!((figures.signed, figures.in_doubt, figures.doubts_signed), (1, 1, 1));
    });
}

#[test]
fn after_a_power_loss_all_that_was_claimed_is_in_doubt_even_if_the_first_start_fails() {
    run(async {
        let rig = Rig::new();
        let (held, behind) = rig.crash_with_two_jobs(Fault::on(Function::C_Sign).hangs()).await;
        let boot = rig.site.data_dir().join("boot-id");
        fs::write(&boot, "the run of the machine before this one\n").unwrap();
        // A start that cannot settle what was claimed ends, and does not pass for the one after the power loss.
        let database = Connection::open(rig.site.database()).unwrap();
        database.execute_batch("CREATE TRIGGER stuck BEFORE UPDATE ON jobs BEGIN SELECT RAISE(ABORT, 'stuck'); END").unwrap();
        let refused = sealgate().args(["serve", "--config"]).arg(rig.site.config_file()).output().unwrap();
        assert!(
            !refused.status.success() && stderr(&refused).contains("what the last run left could not be settled"),
            "{}",
            stderr(&refused)
        );
        database.execute_batch("DROP TRIGGER stuck").unwrap();
        drop(database);
        let gateway = rig.site.serve();
        for id in [&held, &behind] {
            assert!(matches!(rig.client.wait(id).await, Ended::NotSigned(_)), "marks from before a power loss prove nothing");
        }
        let after = rig.order(b"after").await;
        assert_eq!(rig.client.wait(&after).await, Ended::Signed);
        assert!(gateway.stop().0.success());
        assert_ne!(fs::read_to_string(boot).unwrap(), "the run of the machine before this one\n");
        let books = Books::open(&rig.site).await;
        assert_eq!((books.calls_for(ticket(&held)).await, books.calls_for(ticket(&behind)).await), (0, 0));
    });
}

#[test]
fn an_upload_that_a_crash_cut_off_leaves_no_file() {
    run(async {
        let mut site = Site::new();
        site.set("ticket_api", "spool_threshold_bytes", 1024);
        let client = Client::of(&site);
        let spooled =
            || fs::read_dir(site.data_dir().join("spool")).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != ".lock").count();
        let mut gateway = site.serve();
        let kept = client.ticket_with(&[7; 5000]).await;
        // A body that never ends.
        let (mut pieces, body) = tokio::io::duplex(1 << 20);
        tokio::io::AsyncWriteExt::write_all(&mut pieces, &[1; 300_000]).await.unwrap();
        let endless = client
            .request(Method::POST, &format!("/ticket/{kept}/data"))
            .header("content-type", "application/octet-stream")
            .body(reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::new(body)));
        let cut_off = tokio::spawn(async move { endless.send().await.is_err() });
        while spooled() < 2 {
            tokio::task::yield_now().await;
        }
        gateway.signal("KILL");
        gateway.wait();
        assert!(cut_off.await.unwrap());
        assert_eq!(spooled(), 2, "a killed program cleans nothing up");
        let gateway = site.serve();
        assert_eq!(spooled(), 1);
        client.start(&kept, None).await;
        assert_eq!(client.wait(&kept).await, Ended::Signed);
        assert!(matches!(client.once(client.request(Method::DELETE, &format!("/ticket/{kept}"))).await, Told::Answer { .. }));
        while spooled() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(gateway.stop().0.success());
    });
}

/// Polls `future` at most `times`; `None` if it was not done by then, and is dropped.
async fn poll_at_most<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut polled) = (pin!(future), 0);
    poll_fn(|context| {
        polled += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if polled >= times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[test]
fn an_upload_whose_client_goes_away_at_any_step_is_whole_or_not_there() {
    const LEN: usize = 5_000;
    run(async {
        let mut plan = Plan::new();
        let settings = SqliteSettings::new(plan.directory.path().join("sealgate.db"), GatewayId::random());
        plan.store = Arc::new(SqliteStore::open(settings).unwrap());
        // Room for one: what is not given back is missed.
        plan.tickets = TicketSettings { spool_threshold: 1024, content_disk_max: LEN as u64, ..plan.tickets };
        let caller = plan.caller("ci").caller.clone();
        let gateway = plan.start().await;
        let spool = gateway.directory.path().join("spool");
        let files = || fs::read_dir(&spool).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != ".lock").count();
        for polls in 1.. {
            let id = gateway.tickets.create(&caller).await.unwrap();
            let mut upload = gateway.tickets.begin_upload(&caller, id).await.unwrap();
            upload.write(&[1; LEN]).await.unwrap();
            let done = poll_at_most(polls, gateway.tickets.finish_upload(&caller, id, upload)).await;
            // What goes on without its client comes to an end of its own.
            let referred = loop {
                let content = gateway.store.find_ticket(id).await.unwrap().unwrap().content;
                if content.is_some() || files() == 0 {
                    break content;
                }
                tokio::task::yield_now().await;
            };
            if let Some(Content { place: ContentPlace::Spooled(name), .. }) = referred {
                assert_eq!(fs::metadata(spool.join(name)).unwrap().len(), LEN as u64, "given up after {polls} polls");
            }
            // Given up in the middle, too: the ticket goes with all that belongs to it.
            let _ = poll_at_most(polls, gateway.tickets.delete(&caller, id)).await;
            while files() > 0 || gateway.store.find_ticket(id).await.unwrap().is_some() {
                tokio::task::yield_now().await;
            }
            if done.is_some() {
                break;
            }
        }
        gateway.stop().await;
    });
}
