//! Operators: the people with the tokens, who consent to signatures and look after the gateway; their accounts and sessions.

use std::{fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{audit::Sha256, caller::KeyAccess, ids::OperatorName, timestamp::Timestamp};

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

impl Operator {
    /// Whether they look after the gateway, too.
    #[must_use]
    pub const fn is_administrator(&self) -> bool {
        matches!(self.role, Role::Administrator)
    }
}

/// The hash of a password as it is kept: a PHC string of argon2id. `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Takes a PHC string; what is none matches no password.
    #[must_use]
    pub const fn new(phc: String) -> Self {
        Self(phc)
    }

    /// The PHC string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// An operator as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorAccount {
    /// Who, and what they may.
    pub operator: Operator,
    /// What their password is checked against.
    pub password: PasswordHash,
    /// They cannot log in, and are logged in nowhere.
    pub disabled: bool,
    /// When they were added.
    pub added: Timestamp,
    /// Sessions of another epoch are over. It never comes again, not for a later account of the same name either: it is a time.
    pub epoch: Timestamp,
    /// Counts the changes: of two who change an account, the second is refused.
    pub version: u64,
}

impl OperatorAccount {
    /// Ends every session that there is at `now`.
    pub fn log_out_everywhere(&mut self, now: Timestamp) {
        let next = self.epoch.after(Duration::from_millis(1));
        self.epoch = now.max(next);
    }
}

/// A session's id: the SHA-256 of the token that the browser has. Nobody can come in with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Sha256);

impl SessionId {
    /// The id of the session with this token.
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::of(token))
    }

    /// Its 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl From<[u8; 32]> for SessionId {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes.into())
    }
}

/// A login of an operator, until it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorSession {
    /// What its token hashes to.
    pub id: SessionId,
    /// Whose it is.
    pub operator: OperatorName,
    /// The account's epoch when it began.
    pub epoch: Timestamp,
    /// When it began.
    pub began: Timestamp,
    /// When it was used last, to the minute.
    pub seen: Timestamp,
    /// When it ends in any case.
    pub expires: Timestamp,
    /// The address that the operator logged in from.
    pub address: Option<IpAddr>,
}

impl OperatorSession {
    /// Whether it lets its operator in at `now`, having been idle for less than `idle_max`.
    #[must_use]
    pub fn is_open(&self, account: &OperatorAccount, now: Timestamp, idle_max: Duration) -> bool {
        !account.disabled && self.epoch == account.epoch && now < self.expires && now < self.seen.after(idle_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> OperatorAccount {
        OperatorAccount {
            operator: Operator { name: "ann".parse().unwrap(), role: Role::Approver, keys: KeyAccess::All },
            password: PasswordHash::new("$argon2id$secret".to_owned()),
            disabled: false,
            added: Timestamp::from_millis(5),
            epoch: Timestamp::from_millis(5),
            version: 0,
        }
    }

    #[test]
    fn a_session_ends_by_time_by_idling_with_its_epoch_and_with_its_account() {
        let mut account = account();
        let session = OperatorSession {
            id: SessionId::of(b"token"),
            operator: account.operator.name.clone(),
            epoch: account.epoch,
            began: Timestamp::from_millis(10),
            seen: Timestamp::from_millis(100),
            expires: Timestamp::from_millis(1_000),
            address: None,
        };
        let idle = Duration::from_millis(500);
        let open = |account: &OperatorAccount, now| session.is_open(account, Timestamp::from_millis(now), idle);
        assert!(open(&account, 100) && open(&account, 599) && !open(&account, 600));
        assert!(!OperatorSession { seen: Timestamp::from_millis(900), ..session.clone() }.is_open(
            &account,
            Timestamp::from_millis(1_000),
            idle
        ));
        assert!(!open(&OperatorAccount { disabled: true, ..account.clone() }, 100));
        // Twice in one millisecond, or with a clock that went back, the epoch is still another one.
        account.log_out_everywhere(Timestamp::from_millis(5));
        assert!(!open(&account, 100));
        let before = account.epoch;
        account.log_out_everywhere(Timestamp::from_millis(1));
        assert!(account.epoch > before);
    }

    #[test]
    fn an_account_shows_no_hash() {
        assert!(!format!("{:?}", account()).contains("secret"));
    }
}
