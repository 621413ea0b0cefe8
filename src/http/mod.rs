//! HTTP: bytes on a socket to domain types and back; nothing is decided here.
//!
//! [`server::Server`] listens, [`app`] puts the routes together, and each API has a folder with its routes, its wire forms and its own table
//! of errors. Callers: `cli`. Invariants: every answer of an API is in that API's own form; status codes stand in `*/error.rs` only; no
//! handler blocks its event loop; operators' routes are served on the control socket and nowhere else.

pub mod app;
mod cert_request_api;
pub mod control;
mod extract;
mod limits;
pub mod ops;
mod peer;
pub mod server;
mod ticket_api;
pub mod tls;
mod tracking;
pub mod tsa;
