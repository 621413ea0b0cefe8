//! Operators: the people with the tokens, who consent to signatures and look after the gateway.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{caller::KeyAccess, ids::OperatorName};

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Decides about signatures with the keys that are theirs, and unlocks their tokens.
    Approver,
    /// All of that, and looks after callers, operators, jobs, certificate requests and the audit log.
    Administrator,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Approver => "approver",
            Self::Administrator => "administrator",
        })
    }
}

/// A person who is logged in, or acts through the control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The name that stands in the audit log beside each decision.
    pub name: OperatorName,
    /// What they may do.
    pub role: Role,
    /// The keys that are theirs: they see and decide for these only.
    pub keys: KeyAccess,
}
