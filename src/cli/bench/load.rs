//! The load through HTTP: the whole flow of a ticket, over connections that stay open.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::Body;
use tokio::task::JoinSet;

use super::stats::Turn;
use crate::cli::ticket_client::TicketClient;

/// What is signed: a small document, as most are.
const DOCUMENT: &[u8] = &[b'x'; 1024];
/// How long one signature may take.
const SIGNATURE_MAX: Duration = Duration::from_secs(120);

/// Has `concurrency` clients sign one document after the other for `span`.
pub(super) async fn turn(client: &TicketClient, key: Option<&str>, concurrency: usize, span: Duration) -> anyhow::Result<Turn> {
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..concurrency {
        let (client, key) = (client.clone(), key.map(str::to_owned));
        clients.spawn(async move { one_client(&client, key.as_deref(), began, span).await });
    }
    let mut turn = Turn::default();
    while let Some(ended) = clients.join_next().await {
        turn.add(ended.context("a client of the measurement failed; report this as a bug")??);
    }
    turn.ran_us = u64::try_from(began.elapsed().as_micros())?;
    Ok(turn)
}

async fn one_client(client: &TicketClient, key: Option<&str>, began: Instant, span: Duration) -> anyhow::Result<Turn> {
    let mut turn = Turn::default();
    while began.elapsed() < span {
        let start = Instant::now();
        sign_once(client, key).await?;
        turn.note(start.elapsed());
    }
    Ok(turn)
}

/// Create, upload, sign, fetch, delete.
pub(super) async fn sign_once(client: &TicketClient, key: Option<&str>) -> anyhow::Result<()> {
    let ticket = client.create().await?;
    if let Some(key) = key {
        ticket.choose_key(key).await?;
    }
    ticket.upload(u64::try_from(DOCUMENT.len())?, || Ok(Body::from(DOCUMENT))).await?;
    ticket.start(None).await?;
    ticket.signature(SIGNATURE_MAX).await?;
    ticket.delete().await
}
