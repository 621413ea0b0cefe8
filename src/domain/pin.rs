//! PINs, and the rules by which one may be tried on a token.
//!
//! A token counts wrong PINs and locks itself. So a value that a token has rejected is never tried on it again, and PINs that come with
//! requests may spend at most one try between two good logins. [`LedgerEntry`] is that rule as a pure function; [`PinLedger`] is where the
//! entries are kept. Invariant: a [`Pin`] is never printed, cloned or written to disk.

use std::{collections::BTreeSet, fmt, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::token::TokenIdentity;

/// The longest PIN that is taken, in bytes.
pub const PIN_MAX: usize = 255;

/// A user PIN. No `Clone`, `Display` or `Serialize`; `Debug` shows nothing; the memory is wiped when it is dropped.
pub struct Pin(SecretString);

/// A text that cannot be a PIN. It does not say the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a PIN has 1 to {PIN_MAX} bytes and no control characters")]
pub struct PinFormatError;

impl Pin {
    /// Takes `text` as a PIN.
    ///
    /// # Errors
    /// [`PinFormatError`] if it is empty, longer than [`PIN_MAX`] or holds control characters.
    pub fn new(text: impl Into<SecretString>) -> Result<Self, PinFormatError> {
        let secret = text.into();
        let shown = secret.expose_secret();
        if shown.is_empty() || shown.len() > PIN_MAX || shown.chars().any(char::is_control) {
            return Err(PinFormatError);
        }
        Ok(Self(secret))
    }

    /// The PIN in clear. Callers: the driver (to log in), the frame coder (to pass it to the module's process), keyed hashes of it, and the
    /// command line (to send a PIN that was typed to a gateway, and for the PIN file and `dev.json` of development mode).
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }

    /// Makes a second holder of the same PIN; the one place where a PIN is copied, so that copies can be found.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(SecretString::from(self.reveal()))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(…)")
    }
}

/// Where the PIN of a login attempt comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PinOrigin {
    /// The gateway's configuration.
    Configured,
    /// An operator who typed it now.
    Operator {
        /// The operator knows that the token warns of its last try and wants it all the same.
        insist: bool,
    },
    /// A client's request.
    Request,
}

/// A keyed hash (HMAC-SHA-256) of a PIN: enough to know it again, useless without the key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PinTag(#[serde(with = "hex::serde")] pub [u8; 32]);

impl fmt::Debug for PinTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinTag(…)")
    }
}

/// Which token's try counter a login attempt spends.
///
/// Two slots of one card share one counter and so one key. Where the serial number is blank or all zeros (a TPM, say) it names nothing,
/// so label and module stand in for it; what these keys cannot tell, [`may_share_a_counter_with`](Self::may_share_a_counter_with) does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LedgerKey(String);

impl LedgerKey {
    /// The counter that a login on this token spends.
    #[must_use]
    pub fn of(token: &TokenIdentity) -> Self {
        let mut parts = vec![token.manufacturer.as_str(), token.model.as_str(), token.serial.as_str()];
        if names_nothing(&token.serial) {
            parts.extend([token.label.as_str(), token.module.as_str()]);
        }
        Self(parts.join(SEPARATOR))
    }

    /// Whether the other key may stand for the same card: both have no serial number, and all but their labels is the same.
    #[must_use]
    pub fn may_share_a_counter_with(&self, other: &Self) -> bool {
        // A label comes from the token, and may hold anything: so the parts around it are compared.
        let around_the_label = |key: &Self| {
            let (before, module) = key.0.rsplit_once(SEPARATOR)?;
            let mut parts = before.splitn(4, SEPARATOR);
            let named = (parts.next()?.to_owned(), parts.next()?.to_owned(), parts.next()?.to_owned());
            parts.next()?;
            names_nothing(&named.2).then_some((named.0, named.1, module.to_owned()))
        };
        self != other && around_the_label(self).is_some_and(|own| around_the_label(other) == Some(own))
    }

    /// The key as text, for storing.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const SEPARATOR: &str = "\u{1f}";

fn names_nothing(serial: &str) -> bool {
    serial.chars().all(|c| c == '0' || c.is_whitespace())
}

/// Names one run of the code that talks to a token, so that an attempt left open by a crash can be told from one that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerInstance(pub u64);

/// How a login attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoginVerdict {
    /// The token took the PIN.
    Accepted,
    /// The token rejected the PIN: a try is spent.
    Rejected,
    /// The token never judged it (it was gone, say): no try is spent.
    NotTried,
}

/// Why a PIN may not be tried now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum LedgerRefusal {
    /// This token has rejected this very value before.
    #[error("this token has rejected this PIN before; it is not tried a second time")]
    RejectedBefore,
    /// A request's PIN was rejected since the last good login; one more could lock the token.
    #[error("a PIN that came with a request was rejected since the last good login; an operator must unlock the token")]
    TrySpent,
    /// Another login on the same card is under way.
    #[error("another login on this token is under way; try again")]
    UnderWay,
    /// Two login attempts were cut off by crashes; nobody knows how many tries the token has left.
    #[error("login attempts on this token were cut off by crashes; an operator must unlock it")]
    CutOff,
    /// The ledger cannot be read or written, so no try may be spent.
    #[error("the record of PIN tries is not available: {0}")]
    Unavailable(String),
    /// Another gateway had a PIN rejected by this token.
    #[error("another gateway had a PIN rejected by this token; an operator must unlock it here")]
    RejectedElsewhere,
}

/// What is remembered of login attempts on one token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    rejected: BTreeSet<PinTag>,
    request_try_spent: bool,
    open: Option<(LedgerInstance, PinOrigin)>,
    cut_off: u8,
}

impl LedgerEntry {
    /// Opens an attempt with the PIN behind `tag`, or says why it may not be made.
    ///
    /// The entry that results must be kept (durably, where there is a disk) before the token is touched.
    ///
    /// # Errors
    /// The [`LedgerRefusal`] that applies; the entry is unchanged then, but for an attempt that a crash cut off being counted.
    pub fn begin(&mut self, tag: &PinTag, origin: PinOrigin, instance: LedgerInstance) -> Result<(), LedgerRefusal> {
        if let Some((opened_by, left_origin)) = self.open {
            if opened_by == instance {
                return Err(LedgerRefusal::UnderWay);
            }
            self.open = None;
            self.cut_off = self.cut_off.saturating_add(1);
            // Nobody knows whether the try was spent; a request's is taken as spent.
            self.request_try_spent |= left_origin == PinOrigin::Request;
        }
        if self.rejected.contains(tag) {
            return Err(LedgerRefusal::RejectedBefore);
        }
        match origin {
            PinOrigin::Request if self.request_try_spent => return Err(LedgerRefusal::TrySpent),
            PinOrigin::Request | PinOrigin::Configured if self.cut_off > 1 => return Err(LedgerRefusal::CutOff),
            _ => {}
        }
        self.open = Some((instance, origin));
        Ok(())
    }

    /// Opens an attempt with a PIN that is known to be right (it logged in before, in this run): it counts against no limit.
    ///
    /// # Errors
    /// [`LedgerRefusal::UnderWay`], or [`LedgerRefusal::RejectedBefore`] if the token has rejected it since.
    pub fn begin_known_good(&mut self, tag: &PinTag, instance: LedgerInstance) -> Result<(), LedgerRefusal> {
        if self.open.is_some_and(|(opened_by, _)| opened_by == instance) {
            return Err(LedgerRefusal::UnderWay);
        }
        if self.rejected.contains(tag) {
            return Err(LedgerRefusal::RejectedBefore);
        }
        self.open = Some((instance, PinOrigin::Configured));
        Ok(())
    }

    /// Whether an attempt may be made on a token that may be this one under another name: nothing is tried there that would not be tried here.
    ///
    /// # Errors
    /// The [`LedgerRefusal`] that applies.
    pub fn allows_kin(&self, tag: &PinTag, origin: PinOrigin, known_good: bool, instance: LedgerInstance) -> Result<(), LedgerRefusal> {
        let cut_off_request = match self.open {
            Some((opened_by, _)) if opened_by == instance => return Err(LedgerRefusal::UnderWay),
            Some((_, left_origin)) => left_origin == PinOrigin::Request,
            None => false,
        };
        // It is right there, whatever it is here.
        if known_good {
            return Ok(());
        }
        if self.rejected.contains(tag) {
            return Err(LedgerRefusal::RejectedBefore);
        }
        if origin == PinOrigin::Request && (self.request_try_spent || cut_off_request) {
            return Err(LedgerRefusal::TrySpent);
        }
        Ok(())
    }

    /// How many values the token has rejected.
    #[must_use]
    pub fn rejected_count(&self) -> usize {
        self.rejected.len()
    }

    /// Closes the open attempt.
    pub fn end(&mut self, tag: &PinTag, verdict: LoginVerdict) {
        let opened = self.open.take();
        match verdict {
            LoginVerdict::Accepted => {
                self.request_try_spent = false;
                self.cut_off = 0;
            }
            LoginVerdict::Rejected => {
                self.rejected.insert(tag.clone());
                self.request_try_spent |= matches!(opened, Some((_, PinOrigin::Request)));
            }
            LoginVerdict::NotTried => {}
        }
    }
}

/// Where login attempts are remembered; shared by all slots of all modules of a gateway.
///
/// Every method may block (a file, a database, another process). An implementation must make `begin` atomic, and durable before it returns
/// where it claims to survive a restart.
pub trait PinLedger: Send + Sync {
    /// Opens an attempt: see [`LedgerEntry::begin`], and [`LedgerEntry::begin_known_good`] for `known_good`.
    ///
    /// # Errors
    /// The refusal; the token must not be touched then.
    fn begin(&self, attempt: &LoginAttempt<'_>) -> Result<(), LedgerRefusal>;

    /// Closes the attempt that `begin` opened.
    fn end(&self, attempt: &LoginAttempt<'_>, verdict: LoginVerdict);

    /// Forgets what the token, and whatever may share its counter, has rejected: an operator knows better (an unblocked card, a stale PIN cache).
    fn forget(&self, token: &LedgerKey);

    /// Waits until everybody knows what this record is to tell them, at most `bound`; whether they do. To be called when no token is touched
    /// any more. A record of its own tells nobody.
    fn finish(&self, bound: Duration) -> bool {
        let _ = bound;
        true
    }
}

/// One login that is about to be made.
#[derive(Debug)]
pub struct LoginAttempt<'a> {
    /// Whose try counter it may spend.
    pub token: LedgerKey,
    /// The PIN.
    pub pin: &'a Pin,
    /// Where it comes from.
    pub origin: PinOrigin,
    /// It logged in before, in this run of the slot's thread.
    pub known_good: bool,
    /// The run that makes the attempt.
    pub instance: LedgerInstance,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: LedgerInstance = LedgerInstance(2);
    const BEFORE: LedgerInstance = LedgerInstance(1);
    const OPERATOR: PinOrigin = PinOrigin::Operator { insist: false };

    fn tag(of: u8) -> PinTag {
        PinTag([of; 32])
    }

    fn rejected(entry: &mut LedgerEntry, pin: u8, origin: PinOrigin) {
        entry.begin(&tag(pin), origin, NOW).unwrap();
        entry.end(&tag(pin), LoginVerdict::Rejected);
    }

    #[test]
    fn a_rejected_value_is_not_tried_again_whoever_brings_it() {
        let mut entry = LedgerEntry::default();
        rejected(&mut entry, 1, PinOrigin::Configured);
        for origin in [PinOrigin::Configured, OPERATOR, PinOrigin::Request] {
            assert_eq!(entry.begin(&tag(1), origin, NOW), Err(LedgerRefusal::RejectedBefore));
        }
    }

    #[test]
    fn requests_spend_one_try_between_two_good_logins() {
        let mut entry = LedgerEntry::default();
        rejected(&mut entry, 1, PinOrigin::Request);
        assert_eq!(entry.begin(&tag(2), PinOrigin::Request, NOW), Err(LedgerRefusal::TrySpent));
        entry.begin(&tag(3), OPERATOR, NOW).unwrap();
        entry.end(&tag(3), LoginVerdict::Accepted);
        assert_eq!(entry.begin(&tag(2), PinOrigin::Request, NOW), Ok(()));
    }

    #[test]
    fn a_pin_that_logged_in_before_is_not_stopped_by_another_callers_mistake() {
        let mut entry = LedgerEntry::default();
        rejected(&mut entry, 1, PinOrigin::Request);
        assert_eq!(entry.begin_known_good(&tag(2), NOW), Ok(()));
    }

    #[test]
    fn an_attempt_cut_off_by_a_crash_allows_one_more_and_then_the_operator() {
        let mut entry = LedgerEntry::default();
        entry.begin(&tag(1), PinOrigin::Configured, BEFORE).unwrap();
        assert_eq!(entry.begin(&tag(1), PinOrigin::Configured, NOW), Ok(()));
        assert_eq!(entry.begin(&tag(1), PinOrigin::Configured, LedgerInstance(3)), Err(LedgerRefusal::CutOff));
        assert_eq!(entry.begin(&tag(1), OPERATOR, LedgerInstance(3)), Ok(()));
    }

    #[test]
    fn two_slots_of_one_card_do_not_try_at_once() {
        let mut entry = LedgerEntry::default();
        entry.begin(&tag(1), OPERATOR, NOW).unwrap();
        assert_eq!(entry.begin(&tag(2), OPERATOR, NOW), Err(LedgerRefusal::UnderWay));
    }

    fn key(serial: &str, label: &str, module: &str) -> LedgerKey {
        let text = |text: &str| text.to_owned();
        let (manufacturer, model) = (text("maker"), text("model"));
        LedgerKey::of(&TokenIdentity { module: module.parse().unwrap(), manufacturer, model, serial: text(serial), label: text(label) })
    }

    #[test]
    fn tokens_without_a_serial_number_may_be_one_card_unless_their_modules_differ() {
        for blank in ["", "  ", "0000000000000000"] {
            assert!(key(blank, "User PIN", "m").may_share_a_counter_with(&key(blank, "User PIN (sig)", "m")));
            assert!(key(blank, "odd\u{1f}label", "m").may_share_a_counter_with(&key(blank, "other", "m")));
            assert!(!key(blank, "one", "m").may_share_a_counter_with(&key(blank, "two", "n")));
            assert!(!key(blank, "one", "m").may_share_a_counter_with(&key(blank, "one", "m")), "that is the same key");
            assert!(!key(blank, "one", "m").may_share_a_counter_with(&key("0815", "two", "m")));
        }
        assert_eq!(key("0815", "one", "m"), key("0815", "two", "n"), "one card, two slots");
        assert!(!key("0815", "one", "m").may_share_a_counter_with(&key("0816", "two", "m")));
    }

    #[test]
    fn what_one_of_two_names_has_spent_is_not_tried_under_the_other() {
        let mut entry = LedgerEntry::default();
        let allows = |entry: &LedgerEntry, pin, origin| entry.allows_kin(&tag(pin), origin, false, NOW);
        entry.begin(&tag(1), PinOrigin::Request, NOW).unwrap();
        assert_eq!(entry.allows_kin(&tag(2), OPERATOR, true, NOW), Err(LedgerRefusal::UnderWay));
        assert_eq!(
            entry.allows_kin(&tag(2), PinOrigin::Request, false, LedgerInstance(3)),
            Err(LedgerRefusal::TrySpent),
            "cut off by a crash"
        );
        entry.end(&tag(1), LoginVerdict::Rejected);
        assert_eq!(allows(&entry, 1, PinOrigin::Configured), Err(LedgerRefusal::RejectedBefore));
        assert_eq!(allows(&entry, 2, PinOrigin::Request), Err(LedgerRefusal::TrySpent));
        assert_eq!(allows(&entry, 2, PinOrigin::Configured), Ok(()));
        assert_eq!(entry.allows_kin(&tag(1), PinOrigin::Request, true, NOW), Ok(()), "it is right for the other token");
    }

    #[test]
    fn a_pin_shows_nothing() {
        let pin = Pin::new("123456".to_owned()).unwrap();
        assert_eq!(format!("{pin:?}"), "Pin(…)");
        assert!(Pin::new(String::new()).is_err());
        assert!(Pin::new("12\n34".to_owned()).is_err());
    }
}
