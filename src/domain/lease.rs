//! Tokens of several gateways on one store: what each announces, and which one a token belongs to for the time being.
//!
//! Invariant: at any time at most one gateway holds the lease of a token, by the store's clock; only that one claims jobs for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    algorithm::SignatureAlgorithm,
    ids::GatewayId,
    timestamp::Timestamp,
    token::{KeyDescription, SlotReport, TokenIdentity},
};

/// How long a lease lasts unless it is renewed: the longest that a token is without a gateway after its own has died.
pub const LEASE: Duration = Duration::from_secs(10);

/// How often a gateway renews its leases and announces its tokens.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// A token as its gateway announces it: all that another gateway needs to accept a job for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAnnouncement {
    /// The token and its state.
    pub slot: SlotReport,
    /// The most jobs that may be queued for it.
    pub queue_bound: usize,
    /// Its keys, as far as they can be seen without a request's PIN.
    pub keys: Vec<AnnouncedKey>,
}

/// A key on an announced token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedKey {
    /// The key, with its public key and certificate.
    pub key: KeyDescription,
    /// What the token can sign with it.
    pub algorithms: Vec<SignatureAlgorithm>,
}

/// A token of another gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteToken {
    /// Its gateway, which holds the lease.
    pub gateway: GatewayId,
    /// The name that this gateway goes by.
    pub name: String,
    /// When the lease ends unless it is renewed.
    pub until: Timestamp,
    /// What it announces.
    pub announced: TokenAnnouncement,
}

impl RemoteToken {
    /// The token.
    #[must_use]
    pub const fn token(&self) -> &TokenIdentity {
        &self.announced.slot.token
    }
}

/// What came of a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leases {
    /// The tokens whose lease this gateway holds now, for [`LEASE`] from when the heartbeat was sent.
    pub held: Vec<TokenIdentity>,
    /// The tokens that other gateways hold, among them any that this one has, too, and waits for.
    pub remote: Vec<RemoteToken>,
}
