//! The operators' console: pages that are rendered here, with a little script of our own that they can do without.
//!
//! The table of routes. Handlers translate: they read what a form says, call one service, and answer with a page. Invariants: every route is
//! behind [`guard::guard`], which knows who asks and sets the headers of every answer; every form goes through [`form::Form`], which wants the
//! session's token; an operator sees and does only what their role and their keys allow, which is checked here for every page, action and event.

mod account;
mod assets;
mod audit;
mod callers;
mod certificates;
mod choice;
mod consent;
mod cookies;
mod error;
mod events;
mod form;
mod frame;
mod guard;
mod jobs;
mod login;
mod operators;
mod overview;
mod permits;
mod plot;
mod tokens;
mod visit;
mod words;

use std::sync::{Arc, Mutex};

use actix_web::{
    HttpResponse, Resource,
    middleware::from_fn,
    web::{self, ServiceConfig, get, post},
};

use self::{error::ConsoleError, events::Streams};
use super::app::AppState;

/// Where the console is mounted.
pub(super) const BASE: &str = "/console";

type State = web::Data<AppState>;

/// What a deployment says about the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleSettings {
    /// It is served. Default: yes.
    pub enabled: bool,
    /// It is served over plain HTTP to other machines, too. Default: no.
    pub insecure_http: bool,
}

impl Default for ConsoleSettings {
    fn default() -> Self {
        Self { enabled: true, insecure_http: false }
    }
}

/// What all event loops share of the console.
#[derive(Default)]
pub(super) struct ConsoleState {
    streams: Arc<Streams>,
    check: Arc<Mutex<audit::Check>>,
}

/// Mounts the console.
pub(super) fn configure(config: &mut ServiceConfig) {
    let scope = web::scope(BASE).wrap(from_fn(guard::guard));
    let routes = scope.configure(everybodys).configure(approvers).configure(administrators);
    config.service(routes.default_service(web::to(unknown_page)));
}

/// What comes before a session, and what every page needs.
fn everybodys(config: &mut ServiceConfig) {
    config
        .service(page("").route(get().to(overview::home)))
        .service(page("/assets/{name}").route(get().to(assets::asset)))
        .service(page("/login").route(get().to(login::show)).route(post().to(login::log_in)))
        .service(page("/logout").route(post().to(login::log_out)))
        .service(page("/events").route(get().to(events::events)))
        .service(page("/account").route(get().to(account::show)))
        .service(page("/account/password").route(post().to(account::set_password)))
        .service(page("/account/logout").route(post().to(account::log_out_everywhere)));
}

/// What operators see and do with the keys that are theirs.
fn approvers(config: &mut ServiceConfig) {
    config
        .service(page("/overview").route(get().to(overview::show)))
        .service(page("/consent").route(get().to(consent::list)))
        .service(page("/consent/{permit}").route(get().to(consent::show)))
        .service(page("/consent/{permit}/words").route(get().to(consent::words)))
        .service(page("/consent/{permit}/document").route(get().to(consent::document)))
        .service(page("/consent/{permit}/view").route(get().to(consent::view)))
        .service(page("/consent/{permit}/allow").route(post().to(consent::allow)))
        .service(page("/consent/{permit}/refuse").route(post().to(consent::refuse)))
        .service(page("/tokens").route(get().to(tokens::show)))
        .service(page("/tokens/unlock").route(post().to(tokens::unlock)))
        .service(page("/tokens/lock").route(post().to(tokens::lock)))
        .service(page("/tokens/restart").route(post().to(tokens::restart)))
        .service(page("/jobs").route(get().to(jobs::list)))
        .service(page("/jobs/{job}").route(get().to(jobs::show)))
        .service(page("/jobs/{job}/resolve").route(post().to(jobs::resolve)))
        .service(page("/permits").route(get().to(permits::list)))
        .service(page("/permits/{permit}/revoke").route(post().to(permits::revoke)));
}

/// What is for administrators alone; their handlers see to it.
fn administrators(config: &mut ServiceConfig) {
    config
        .service(page("/audit").route(get().to(audit::browse)))
        .service(page("/audit/verify").route(post().to(audit::verify)))
        .service(page("/audit/export").route(get().to(audit::export)))
        .service(page("/certificates").route(get().to(certificates::list)))
        .service(page("/certificates/{certificate}").route(get().to(certificates::show)))
        .service(page("/certificates/{certificate}/request").route(get().to(certificates::request)))
        .service(page("/certificates/{certificate}/application").route(get().to(certificates::application)))
        .service(page("/certificates/{certificate}/issued").route(get().to(certificates::issued)))
        .service(page("/certificates/{certificate}/approve").route(post().to(certificates::approve)))
        .service(page("/certificates/{certificate}/upload").route(post().to(certificates::upload)))
        .service(page("/certificates/{certificate}/refuse").route(post().to(certificates::refuse)))
        .service(page("/certificates/{certificate}/activate").route(post().to(certificates::activate)))
        .service(page("/callers").route(get().to(callers::list)).route(post().to(callers::add)))
        .service(page("/callers/{caller}").route(get().to(callers::show)))
        .service(page("/callers/{caller}/{change}").route(post().to(callers::change)))
        .service(page("/operators").route(get().to(operators::list)).route(post().to(operators::add)))
        .service(page("/operators/{operator}").route(get().to(operators::show)))
        .service(page("/operators/{operator}/{change}").route(post().to(operators::change)));
}

/// A page, with or without a slash behind it; any other method than those that are added to it is refused.
fn page(path: &str) -> Resource {
    web::resource([path.to_owned(), format!("{path}/")]).default_service(web::to(wrong_method))
}

async fn unknown_page() -> Result<HttpResponse, ConsoleError> {
    Err(ConsoleError::NotFound)
}

async fn wrong_method() -> Result<HttpResponse, ConsoleError> {
    Err(ConsoleError::Method)
}
