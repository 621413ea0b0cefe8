//! A store in a steady state stays as large as it is: what has ended makes room for what comes. Only the audit log grows.

use std::{sync::Arc, time::Duration};

use rusqlite::Connection;
use sealgate::{
    domain::{ids::GatewayId, token::LoginMode},
    store::sqlite::{SqliteSettings, SqliteStore},
    token::fake::Script,
};
use tokio::task::JoinSet;

use super::common::gateway::{Gateway, Plan};

const CLIENTS: usize = 8;
const JOBS: usize = 25;
const CYCLES: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_makes_room_for_what_comes() {
    let mut plan = Plan::scripted(&Script::new("bounded"), LoginMode::Configured, &["k"]);
    let path = plan.directory.path().join("sealgate.db");
    plan.store = Arc::new(SqliteStore::open(SqliteSettings::new(path.clone(), GatewayId::random())).unwrap());
    let gateway = Arc::new(plan.start().await);
    let database = Connection::open(&path).unwrap();
    let number = |sql: &str| database.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap();
    let (pages, audit) = ("PRAGMA page_count", "SELECT sum(length(text) + length(hash) + 32) FROM audit");
    let mut before = None;
    for cycle in 0..CYCLES {
        let clients: JoinSet<_> = (0..CLIENTS).map(|_| some_jobs(Arc::clone(&gateway))).collect();
        clients.join_all().await;
        // As if all had ended long ago.
        let later = gateway.store.now().after(Duration::from_secs(24 * 3600));
        while gateway.store.forget_ended(later, 1_000).await.unwrap() > 0 {}
        for table in ["jobs", "permits", "requests", "tickets", "contents", "metadata"] {
            assert_eq!(number(&format!("SELECT count(*) FROM {table}")), 0, "{table} after cycle {cycle}");
        }
        let (now_pages, now_audit) = (number(pages), number(audit));
        if let Some((then_pages, then_audit)) = before.replace((now_pages, now_audit))
            && cycle > 1
        {
            // Pages of the log are not quite full; one more cycle of jobs and documents would be hundreds of pages.
            let allowed = (now_audit - then_audit) * 3 / 2 / 4096 + 8;
            assert!(now_pages - then_pages <= allowed, "cycle {cycle}: {} pages more, {allowed} for the audit log", now_pages - then_pages);
        }
    }
    drop(database);
    Arc::into_inner(gateway).unwrap().stop().await;
}

async fn some_jobs(gateway: Arc<Gateway>) {
    for _ in 0..JOBS {
        let ticket = gateway.ticket_with(&[9; 3000]).await;
        gateway.sign(&ticket).await;
        assert_eq!(gateway.delete(&ticket).await.status, 200);
    }
}
