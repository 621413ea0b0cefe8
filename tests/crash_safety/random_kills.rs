//! Kills at random moments, while many clients sign.

use std::{
    env,
    ffi::OsStr,
    process::Command,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use sealgate::domain::ids::TicketId;
use tokio::{sync::watch, task::JoinSet};

use super::{
    books::{Books, Figures},
    common::{
        client::{Client, Ended},
        program::{self, Gateway},
        site::Site,
    },
};

/// Rounds, jobs in each, kills in each: in CI, and with `scripts/test.sh --long`.
const SHORT: (usize, usize, usize) = (1, 600, 6);
const LONG: (usize, usize, usize) = (20, 5_000, 4);

/// Clients that sign at the same time.
const CONCURRENCY: usize = 32;
/// How many signatures a client that asks for permits asks for at a time.
const PERMIT_USES: usize = 10;
/// One kill in so many is of the module's process alone.
const MODULE_KILLS: u64 = 4;
/// The most jobs that a crash can leave in doubt: as many as one token is given at a time.
const DOUBTS_MAX: usize = 64;
/// A kill comes at most so long after the signature that it is counted from, in microseconds.
const WITHIN_US: u64 = 30_000;

/// Random numbers that come again with their seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

#[test]
fn kills_at_random_moments_lose_no_job_and_repeat_no_signature() {
    let (rounds, jobs, kills) = if env::var_os("SEALGATE_TEST_LONG").is_some() { LONG } else { SHORT };
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = env::var("SEALGATE_TEST_SEED").map_or(clock.as_micros() as u64, |seed| seed.parse().unwrap());
    println!("SEALGATE_TEST_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut site = Site::new();
    // The tickets stay until they have been looked at.
    site.set("ticket_api", "tickets_per_caller", 100_000);
    let (mut dice, mut total) = (Dice(seed), Figures::default());
    for round in 0..rounds {
        site.use_folder(&format!("round-{round}"));
        let began = Instant::now();
        let figures = runtime.block_on(play(&site, &mut dice, jobs, kills));
        println!("round {}: {figures:?}, {:.1} s", round + 1, began.elapsed().as_secs_f64());
        total.add(&figures);
    }
    println!("all: {total:?}");
    assert!(total.signed_after_loss > 0, "no client was polling across a restart");
}

/// One round on a new database.
async fn play(site: &Site, dice: &mut Dice, jobs: usize, kills: usize) -> Figures {
    let mut gateway = site.serve();
    let client = Arc::new(Client::of(site));
    let done = watch::Sender::new(0);
    let mut progress = done.subscribe();
    let clients = tokio::spawn(sign_all(Arc::clone(&client), jobs, done));
    let mut moments: Vec<_> = (0..kills).map(|_| dice.roll(jobs as u64 * 9 / 10) as usize).collect();
    moments.sort_unstable();
    let (mut killed, mut modules_killed) = (0, 0);
    for moment in moments {
        // Nothing is done any more when the clients have given up; why, they say themselves.
        if progress.wait_for(|done| *done >= moment).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_micros(dice.roll(WITHIN_US))).await;
        if dice.roll(MODULE_KILLS) == 0 {
            modules_killed += kill_modules(&gateway);
        } else {
            gateway.signal("KILL");
            gateway.wait();
            killed += 1;
            gateway = site.serve();
        }
    }
    let ended = clients.await.unwrap();
    let (status, log) = gateway.stop();
    assert!(status.success(), "{status}\n{log}");
    let verified = program::run([OsStr::new("audit"), OsStr::new("verify"), site.data_dir().as_os_str()]);
    assert!(verified.status.success(), "{}", program::stderr(&verified));
    let (lost_answers, signed_after_loss) = client.losses();
    let figures = Books::open(site).await.check(&ended).await;
    assert!(figures.in_doubt <= (killed + modules_killed) * DOUBTS_MAX, "{figures:?} after {killed} + {modules_killed} kills");
    Figures { killed, modules_killed, lost_answers, signed_after_loss, ..figures }
}

fn kill_modules(gateway: &Gateway) -> usize {
    let children = gateway.children();
    for child in &children {
        // One that ends by itself meanwhile cannot be killed.
        let _ = Command::new("kill").args(["-s", "KILL", &child.to_string()]).status().unwrap();
    }
    children.len()
}

/// Has all jobs made; gives back how each ticket's ended.
async fn sign_all(client: Arc<Client>, jobs: usize, done: watch::Sender<usize>) -> Vec<(TicketId, Ended)> {
    let mut clients = JoinSet::new();
    for n in 0..CONCURRENCY {
        let (client, done) = (Arc::clone(&client), done.clone());
        // Half of the clients ask for permits, the others' consent comes with each job.
        let permits = n.is_multiple_of(2);
        let share = jobs / CONCURRENCY + usize::from(n < jobs % CONCURRENCY);
        clients.spawn(async move { sign_some(&client, share, permits, &done).await });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

async fn sign_some(client: &Client, jobs: usize, permits: bool, done: &watch::Sender<usize>) -> Vec<(TicketId, Ended)> {
    let mut permit = None;
    let mut ended = Vec::with_capacity(jobs);
    for job in 0..jobs {
        if permits && job.is_multiple_of(PERMIT_USES) {
            permit = Some(client.permit(PERMIT_USES).await);
        }
        let ticket = client.ticket_with(uuid::Uuid::new_v4().as_bytes()).await;
        client.start(&ticket, permit.as_deref()).await;
        ended.push((ticket.parse().unwrap(), client.wait(&ticket).await));
        done.send_modify(|done| *done += 1);
    }
    ended
}
