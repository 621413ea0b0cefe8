//! A disk without room, and a database that cannot be written: refused with "come again", nothing lost, and no restart needed.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use pkcs11_faults::{bench::Bench, event::Awaited, fault::Fault, function::Function, log::Outcome, variables};
use reqwest::{Method, RequestBuilder};
use rusqlite::Connection;
use serde_json::json;

use super::common::{
    client::{Client, Ended, Told, json_of},
    own_process,
    program::{sealgate, stderr},
    site::Site,
};
use crate::test_name;

/// What every call answers that cannot be served.
const UNAVAILABLE: &str = "The storage service is not running.";
/// So many tickets are ready when the disk is filled.
const READY: usize = 40;
/// After so many tries something that is to be refused has failed.
const TRIES_MAX: usize = 5_000;

/// A small disk under a folder, for this process and its children only.
fn mount_small_disk(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs"]).arg(folder).status().unwrap();
    assert!(mounted.success());
}

/// A file that takes all the room there is.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(&self.0).unwrap();
        for len in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![0; len]).is_ok() {}
        }
    }

    fn drop_it(&self) {
        fs::remove_file(&self.0).unwrap();
    }
}

/// Asks again until it is refused: the database may have some pages of room of its own. Checks how.
async fn refused(client: &Client, ballast: &Ballast, mut make: impl FnMut() -> RequestBuilder) {
    for _ in 0..TRIES_MAX {
        ballast.fill();
        match client.once(make()).await {
            Told::Answer { status, .. } if status.is_success() => {}
            Told::Answer { status, retry_after, body } => {
                assert_eq!((status.as_u16(), retry_after), (503, Some(5)), "{}", String::from_utf8_lossy(&body));
                assert_eq!(json_of(&body), json!({ "message": UNAVAILABLE }), "nothing of the inside is told");
                return;
            }
            Told::Lost => panic!("the gateway has gone"),
        }
    }
    panic!("a full disk was never noticed");
}

#[test]
fn a_full_disk_is_a_503_and_everything_goes_on_when_there_is_room_again() {
    own_process::run_apart(
        test_name!(),
        |_| Vec::new(),
        || {
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(full_disk());
        },
    );
}

async fn full_disk() {
    let mut site = Site::new();
    let socket = site.folder().join("bench.sock");
    let bench = Bench::listen(&socket, None).unwrap();
    site.set_variable(variables::CONTROL, &socket);
    site.set("ticket_api", "spool_threshold_bytes", 4096);
    mount_small_disk(&site.data_dir());
    let ballast = Ballast(site.data_dir().join("ballast"));
    let gateway = site.serve();
    let client = Client::of(&site);
    let mut ready = Vec::new();
    for n in 0..READY {
        ready.push(client.ticket_with(format!("ready {n}").as_bytes()).await);
    }
    bench.control().arm(Fault::on(Function::C_Sign).hangs()).unwrap();
    let running = client.ticket_with(b"running").await;
    client.start(&running, None).await;
    let control = Arc::new(bench.control());
    let held = Arc::clone(&control);
    tokio::task::spawn_blocking(move || held.wait_for(Awaited::held(Function::C_Sign))).await.unwrap().unwrap();

    let octets =
        |path: &str, len: usize| client.request(Method::POST, path).header("content-type", "application/octet-stream").body(vec![1; len]);
    let upload = format!("/ticket/{}/data", ready[0]);
    refused(&client, &ballast, || client.request(Method::POST, "/ticket")).await;
    refused(&client, &ballast, || octets(&upload, 100)).await;
    refused(&client, &ballast, || octets(&upload, 100_000)).await;
    refused(&client, &ballast, || client.request(Method::POST, "/accessToken").json(&json!({ "accessTimesNumber": 5 }))).await;
    let mut started = 0;
    refused(&client, &ballast, || {
        started += 1;
        client.request(Method::POST, &format!("/ticket/{}/ds/creator", ready[started]))
    })
    .await;
    refused(&client, &ballast, || {
        client.request(Method::PUT, &format!("/ticket/{}/option", ready[READY - 1])).json(&json!({ "duplicateSign": true }))
    })
    .await;
    refused(&client, &ballast, || client.request(Method::DELETE, &format!("/ticket/{}", ready.pop().unwrap()))).await;
    // What is there can be read.
    let state = client.once(client.request(Method::GET, &format!("/ticket/{running}/ds/creator"))).await;
    assert!(matches!(state, Told::Answer { status, .. } if status == 202), "{state:?}");

    // The token signs, and its gateway cannot write that down; then it can.
    control.release().unwrap();
    refused(&client, &ballast, || client.request(Method::POST, "/ticket")).await;
    ballast.drop_it();
    assert_eq!(client.wait(&running).await, Ended::Signed);
    control.reset().unwrap();
    for ticket in &ready[1..5] {
        client.start(ticket, None).await;
        assert_eq!(client.wait(ticket).await, Ended::Signed);
    }
    let (status, log) = gateway.stop();
    assert!(status.success(), "{log}");
    let signed: Vec<_> = site.token_log().signings().into_iter().filter(|call| call.outcome == Outcome::Signed).collect();
    let mut digests: Vec<_> = signed.iter().map(|call| call.signing.data_sha256.clone()).collect();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), signed.len(), "nothing was signed twice");
    let database = Connection::open(site.database()).unwrap();
    assert_eq!(database.query_row("PRAGMA integrity_check", (), |row| row.get::<_, String>(0)).unwrap(), "ok");
    assert_eq!(fs::read_dir(site.data_dir().join("spool")).unwrap().count(), 1, "only the lock: uploads that found no room left nothing");
    drop(database);

    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(site.data_dir()).status().unwrap();
    assert!(remounted.success());
    let refused = sealgate().args(["serve", "--config"]).arg(site.config_file()).output().unwrap();
    let said = stderr(&refused);
    assert!(!refused.status.success() && said.contains("cannot be used"), "{said}");
}

/// What `/readyz` answers.
async fn ready(site: &Site) -> u16 {
    reqwest::get(format!("{}/readyz", site.url)).await.unwrap().status().as_u16()
}

#[test]
fn a_database_that_cannot_be_written_is_a_503_until_it_can() {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async {
        let site = Site::new();
        let gateway = site.serve();
        let client = Client::of(&site);
        let ticket = client.ticket_with(b"before").await;
        client.start(&ticket, None).await;
        assert_eq!(client.wait(&ticket).await, Ended::Signed);
        let database = Connection::open(site.database()).unwrap();
        database.execute_batch("BEGIN IMMEDIATE").unwrap();
        let Told::Answer { status, retry_after, body } = client.once(client.request(Method::POST, "/ticket")).await else { panic!("lost") };
        assert_eq!((status.as_u16(), retry_after, json_of(&body)), (503, Some(5), json!({ "message": UNAVAILABLE })));
        assert_eq!(ready(&site).await, 503, "nothing can be accepted");
        // Reading needs no lock.
        assert_eq!(client.wait(&ticket).await, Ended::Signed);
        database.execute_batch("ROLLBACK").unwrap();
        assert_eq!(ready(&site).await, 200, "whoever asks finds out that it can be written again, without any other request");
        let after = client.ticket_with(b"after").await;
        client.start(&after, None).await;
        assert_eq!(client.wait(&after).await, Ended::Signed);
        assert!(gateway.stop().0.success());
    });
}
