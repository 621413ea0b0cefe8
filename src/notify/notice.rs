//! What somebody may be told.

use serde::Serialize;
use uuid::Uuid;

use crate::domain::{
    ids::{CallerId, GatewayId, KeyName, PermitId},
    notice::NoticeKind,
    timestamp::Timestamp,
};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// Its id: a receiver that sees it twice was told twice.
    pub id: Uuid,
    /// The gateway.
    pub gateway: GatewayId,
    /// When, in milliseconds since the Unix epoch.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// An operator is asked for consent.
    ConsentWaiting {
        /// The permit that is asked for.
        permit: PermitId,
        /// Who asks.
        caller: CallerId,
        /// For how many signatures.
        uses: u32,
        /// Until when it can be decided, in milliseconds since the Unix epoch.
        decide_by: Timestamp,
    },
    /// A token signs nothing before an operator gives it its PIN.
    PinNeeded {
        /// The token as an RFC 7512 URI.
        token: String,
        /// The state of its slot.
        state: String,
    },
    /// A token that was there is not there any more.
    TokenGone {
        /// The token as an RFC 7512 URI.
        token: String,
    },
    /// A key's certificate ends soon.
    CertificateExpiring {
        /// The key.
        key: KeyName,
        /// When, in milliseconds since the Unix epoch.
        not_after: Timestamp,
        /// Whole days until then; 0 on the last day, and when it is over.
        days_left: u32,
    },
}

impl Notice {
    /// A notice that is told at `at`.
    #[must_use]
    pub fn new(gateway: GatewayId, at: Timestamp, what: What) -> Self {
        Self { id: Uuid::new_v4(), gateway, at, what }
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> NoticeKind {
        match self.what {
            What::ConsentWaiting { .. } => NoticeKind::ConsentWaiting,
            What::PinNeeded { .. } => NoticeKind::PinNeeded,
            What::TokenGone { .. } => NoticeKind::TokenGone,
            What::CertificateExpiring { .. } => NoticeKind::CertificateExpiring,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_an_object_whose_event_is_the_name_of_its_kind() {
        let gateway = GatewayId::random();
        let gone = What::TokenGone { token: "pkcs11:serial=1".to_owned() };
        let notice = Notice::new(gateway, Timestamp::from_millis(5), gone);
        let json = serde_json::to_value(&notice).unwrap();
        assert_eq!((&json["event"], &json["token"], &json["at"]), (&"token-gone".into(), &"pkcs11:serial=1".into(), &5.into()));
        assert_eq!(json["event"], notice.kind().as_str());
    }
}
