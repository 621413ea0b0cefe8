//! Permits: consent for N signatures, spent once per signature.
//!
//! Invariant: `reserved + committed ≤ uses`. A use is reserved before a job is queued, committed with its result, or given back when the
//! token certainly never signed.

use serde::{Deserialize, Serialize};

use super::{
    ids::{CallerId, PermitId},
    timestamp::Timestamp,
};

/// Consent for a number of signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// Its id: the ticket API's `accessTokenUuid`.
    pub id: PermitId,
    /// The caller that asked for it; nobody else can use it.
    pub caller: CallerId,
    /// How many signatures it allows.
    pub uses: u32,
    /// Uses held by jobs that have not ended.
    pub reserved: u32,
    /// Uses spent.
    pub committed: u32,
    /// When it ends, spent or not.
    pub expires: Timestamp,
    /// It was taken back.
    pub revoked: bool,
}

/// Why a permit cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PermitRefusal {
    /// There is no such permit, or it is another caller's: the two look the same from outside.
    #[error("there is no such permission")]
    Unknown,
    /// Every use is spent or reserved.
    #[error("the permission is used up")]
    UsedUp,
    /// Its time is over.
    #[error("the permission has expired")]
    Expired,
    /// It was taken back.
    #[error("the permission was revoked")]
    Revoked,
}

impl Permit {
    /// Uses that are neither spent nor reserved.
    #[must_use]
    pub const fn uses_left(&self) -> u32 {
        self.uses.saturating_sub(self.reserved + self.committed)
    }

    /// Whether a use of it could still be reserved at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        !self.revoked && self.expires > now && self.uses_left() > 0
    }

    /// Reserves one use for `caller`.
    ///
    /// # Errors
    /// The [`PermitRefusal`]; the permit is unchanged then.
    pub fn reserve(&mut self, caller: &CallerId, now: Timestamp) -> Result<(), PermitRefusal> {
        if self.caller != *caller {
            return Err(PermitRefusal::Unknown);
        }
        if self.revoked {
            return Err(PermitRefusal::Revoked);
        }
        if self.expires <= now {
            return Err(PermitRefusal::Expired);
        }
        if self.uses_left() == 0 {
            return Err(PermitRefusal::UsedUp);
        }
        self.reserved += 1;
        Ok(())
    }

    /// Spends a reserved use; also when the permit has expired or was revoked meanwhile, for the signature exists.
    pub fn commit(&mut self) {
        debug_assert!(self.reserved > 0, "a use is committed only after it was reserved");
        self.reserved = self.reserved.saturating_sub(1);
        self.committed = self.committed.saturating_add(1);
    }

    /// Gives a spent use back: an operator found that the token had not signed after all.
    pub fn give_back(&mut self) {
        self.committed = self.committed.saturating_sub(1);
    }

    /// Gives a reserved use back.
    pub fn release(&mut self) {
        debug_assert!(self.reserved > 0, "a use is given back only after it was reserved");
        self.reserved = self.reserved.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permit(uses: u32) -> Permit {
        Permit {
            id: PermitId::random(),
            caller: "ci".parse().unwrap(),
            uses,
            reserved: 0,
            committed: 0,
            expires: Timestamp::from_millis(1_000),
            revoked: false,
        }
    }

    proptest! {
        #[test]
        fn a_permit_is_never_over_spent(uses in 1u32..6, steps in proptest::collection::vec(0u8..3, 0..60)) {
            let mut permit = permit(uses);
            let caller = permit.caller.clone();
            let mut open = 0u32;
            for step in steps {
                match step {
                    0 => open += u32::from(permit.reserve(&caller, Timestamp::from_millis(1)).is_ok()),
                    1 if open > 0 => { permit.commit(); open -= 1; }
                    2 if open > 0 => { permit.release(); open -= 1; }
                    _ => {}
                }
                prop_assert!(permit.reserved + permit.committed <= permit.uses);
                prop_assert_eq!(permit.reserved, open);
            }
        }
    }

    #[test]
    fn each_refusal_has_its_own_reason() {
        let caller: CallerId = "ci".parse().unwrap();
        let now = Timestamp::from_millis(1);
        let mut one = permit(1);
        assert_eq!(one.reserve(&"other".parse().unwrap(), now), Err(PermitRefusal::Unknown));
        assert_eq!(one.reserve(&caller, Timestamp::from_millis(1_000)), Err(PermitRefusal::Expired));
        assert_eq!(one.reserve(&caller, now), Ok(()));
        assert_eq!(one.reserve(&caller, now), Err(PermitRefusal::UsedUp));
        one.revoked = true;
        assert_eq!(one.reserve(&caller, now), Err(PermitRefusal::Revoked));
    }
}
