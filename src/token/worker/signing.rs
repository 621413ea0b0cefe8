//! What a token is asked for with its keys: signatures, and what a key is.

use uuid::Uuid;

use crate::{
    domain::{
        digest::ToSign,
        pin::{Pin, PinOrigin},
        signature::SignatureValue,
        token::{KeyDescription, KeySelector, LoginMode},
    },
    token::{
        command::Reply,
        driver::{DeviceError, Outcome, Retry},
        marks::Marks,
    },
};

use super::{Worker, session::no_session};

impl Worker {
    pub(super) fn sign(
        &mut self,
        key: &KeySelector,
        to_sign: &ToSign,
        pin: Option<&Pin>,
        entering: &mut dyn FnMut(),
    ) -> Result<SignatureValue, DeviceError> {
        if self.parts.login == LoginMode::PerRequest && self.parts.sighting.flags.login_required {
            let pin = pin.ok_or_else(|| DeviceError::LoginRequired("each signature needs the PIN in its request".to_owned()))?;
            return self.logged_in_for_one(pin, |worker| worker.sign_in_session(key, to_sign, Some(pin), entering));
        }
        if let Some(pin) = pin {
            self.compare(pin)?;
        }
        self.require_login()?;
        let mut entered = false;
        let result = self.sign_in_session(key, to_sign, pin, &mut || {
            entered = true;
            entering();
        });
        match result {
            // Nothing can have been signed, so it is safe to open the session again and ask once more.
            Err(error) if error.retry() == Retry::AfterReopen && error.outcome() == Outcome::NotPerformed && !entered => {
                self.reopen(&error)?;
                self.require_login()?;
                self.sign_in_session(key, to_sign, pin, entering)
            }
            Err(error) if error.retry() == Retry::AfterReopen => {
                self.drop_session(&error);
                Err(error)
            }
            other => other,
        }
    }

    fn sign_in_session(
        &mut self,
        selector: &KeySelector,
        to_sign: &ToSign,
        pin: Option<&Pin>,
        entering: &mut dyn FnMut(),
    ) -> Result<SignatureValue, DeviceError> {
        self.ensure_open()?;
        let removable = self.parts.sighting.removable;
        let Some(session) = self.session.as_mut() else { return Err(no_session()) };
        if removable {
            session.driver.check_presence()?;
        }
        let key = match session.key(selector) {
            // Deleted, or the module lost sight of it (seen: SoftHSM whose directory was moved). A fresh start of the module tells which.
            Err(DeviceError::KeyNotFound(which)) if self.seen_keys.contains(selector) => {
                return Err(DeviceError::ModuleLost(format!("the key {which}, which was there, is not found")));
            }
            found => found?,
        };
        if !key.always_authenticate {
            let signature = session.driver.sign(&key, to_sign, None, entering)?;
            if !self.seen_keys.contains(selector) {
                self.seen_keys.insert(selector.clone());
            }
            return Ok(signature);
        }
        let configured = if pin.is_none() { self.desk.configured_pin() } else { None };
        let pin = pin.or(configured.as_ref());
        let pin = pin.ok_or_else(|| DeviceError::LoginRequired("this key wants its PIN for each signature".to_owned()))?;
        let origin = if configured.is_some() { PinOrigin::Configured } else { PinOrigin::Request };
        let result = self.desk.attempt(session.driver.as_mut(), pin, origin, |driver| driver.sign(&key, to_sign, Some(pin), entering));
        if matches!(result, Err(DeviceError::PinRejected)) {
            // A failed context login logs the whole token out (seen: OpenSC's PIV driver).
            self.drop_session(&DeviceError::PinRejected);
        }
        result
    }

    pub(super) fn describe_key(&mut self, selector: &KeySelector, pin: Option<&Pin>) -> Result<Reply, DeviceError> {
        match pin {
            Some(pin) if self.parts.login == LoginMode::PerRequest && self.parts.sighting.flags.login_required => {
                self.logged_in_for_one(pin, |worker| worker.describe_in_session(selector))
            }
            Some(pin) => {
                self.compare(pin)?;
                self.describe_in_session(selector)
            }
            None => self.describe_in_session(selector),
        }
    }

    fn describe_in_session(&mut self, selector: &KeySelector) -> Result<Reply, DeviceError> {
        self.with_session(|session| {
            let keys = session.driver.list_keys()?;
            let key = only_match(keys, selector)?;
            let algorithms = session.driver.algorithms(&key.kind)?;
            Ok(Reply::Key { key, algorithms })
        })
    }
}

/// Notes a mark, or makes sure that nobody relies on there being one.
pub(super) fn note(marks: &mut Option<Marks>, mark: Option<Uuid>) {
    if let (Some(kept), Some(mark)) = (marks.as_mut(), mark)
        && let Err(problem) = kept.note(mark)
        && let Some(kept) = marks.take()
    {
        kept.give_up(&problem);
    }
}

fn only_match(keys: Vec<KeyDescription>, selector: &KeySelector) -> Result<KeyDescription, DeviceError> {
    let fits = |key: &KeyDescription| {
        selector.id.as_ref().is_none_or(|id| *id == key.id) && selector.label.as_ref().is_none_or(|label| *label == key.label)
    };
    let mut matching: Vec<KeyDescription> = keys.into_iter().filter(fits).collect();
    match (matching.pop(), matching.len()) {
        (Some(key), 0) => Ok(key),
        (None, _) => Err(DeviceError::KeyNotFound(selector.to_string())),
        (Some(_), others) => Err(DeviceError::KeyAmbiguous { selector: selector.to_string(), count: others + 1 }),
    }
}
