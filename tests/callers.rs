//! Who may do what: scopes, and what is there for its owner only.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::gateway::{Plan, send};
use reqwest::Method;
use sealgate::domain::caller::Scope;

#[tokio::test]
async fn a_caller_without_the_scope_of_the_ticket_api_is_told_so_in_its_form() {
    let mut plan = Plan::new();
    plan.caller("ci").caller.scopes = [Scope::CscApi].into_iter().collect();
    let gateway = plan.start().await;
    for (method, path) in [(Method::GET, "/features"), (Method::POST, "/ticket"), (Method::GET, "/no-such-path")] {
        let refused = send(gateway.request(method, path).header("accept-language", "en")).await;
        assert_eq!((refused.status, refused.message().contains("may not use this service")), (403, true), "{}", refused.text());
    }
    gateway.stop().await;
}
