//! Callers: the programs and pages that ask for signatures.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    ids::{CallerId, KeyName},
    request_id::RequestId,
};

/// Who decides about a caller's signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsentPolicy {
    /// Consent is given by configuration.
    Auto,
}

/// Which keys a caller may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyAccess {
    /// Every key of the gateway, also those chosen by URI.
    All,
    /// These only.
    Only(Vec<KeyName>),
}

impl KeyAccess {
    /// Whether the named key is among them.
    #[must_use]
    pub fn allows(&self, key: &KeyName) -> bool {
        match self {
            Self::All => true,
            Self::Only(keys) => keys.contains(key),
        }
    }
}

/// Where a request came from, as far as the gateway saw it itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Provenance {
    /// The web page's origin, which its browser told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<String>,
    /// The peer's address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<IpAddr>,
    /// The request's id, which its log lines have too.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<RequestId>,
}

/// A program or page that may ask for signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its name: owner of its tickets, permits and jobs.
    pub id: CallerId,
    /// The keys it may use.
    pub keys: KeyAccess,
    /// The key it signs with when it names none.
    pub default_key: Option<KeyName>,
    /// Who decides about its signatures.
    pub consent: ConsentPolicy,
    /// The algorithms it may ask for are those of the key; uses of one permit are bounded by this number.
    pub permit_uses_max: u32,
    /// Where its present request came from.
    pub from: Provenance,
}
