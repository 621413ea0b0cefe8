//! The fake module and its sessions: what the code under test is given.

use std::sync::MutexGuard;

use der::Decode;
use p256::ecdsa::{Signature, signature::hazmat::PrehashSigner};
use x509_cert::Certificate;

use super::{Call, FAKE_SLOT, Script, State};
use crate::{
    domain::{
        algorithm::{Curve, HashAlgorithm, KeyKind, SignatureAlgorithm},
        digest::{SigningInput, ToSign},
        pin::Pin,
        signature::SignatureValue,
        token::{KeyDescription, KeyPairSpec, KeySelector, TokenFlags, TokenOffer},
    },
    token::{
        driver::{CachedKey, DeviceError, SlotId, TokenDriver, TokenModule, TokenSighting},
        quirks::LibraryInfo,
    },
};

/// A module with one slot, as [`Script`] says.
#[derive(Debug, Clone)]
pub struct FakeModule {
    script: Script,
}

impl FakeModule {
    /// The module with the token of `script`.
    pub(super) const fn new(script: Script) -> Self {
        Self { script }
    }
}

impl TokenModule for FakeModule {
    fn library(&self) -> Result<LibraryInfo, DeviceError> {
        Ok(LibraryInfo::default())
    }

    fn tokens(&self) -> Result<Vec<TokenSighting>, DeviceError> {
        self.script.arrive(Call::Tokens)?;
        let state = self.script.state();
        let seen = state.present && state.flags.initialized;
        Ok(seen
            .then(|| TokenSighting { slot: FAKE_SLOT, token: state.identity.clone(), flags: state.flags, removable: state.removable })
            .into_iter()
            .collect())
    }

    fn open(&self, slot: SlotId) -> Result<Box<dyn TokenDriver>, DeviceError> {
        self.script.arrive(Call::Open)?;
        let mut state = self.script.state();
        state.check_present()?;
        if slot != FAKE_SLOT {
            return Err(DeviceError::TokenGone("there is no such slot".to_owned()));
        }
        let session = state.sessions.last().map_or(1, |last| last + 1);
        state.sessions.insert(session);
        Ok(Box::new(FakeDriver { script: self.script.clone(), session, epoch: state.epoch, abandoned: false }))
    }

    fn create_token(&self, label: &str, _so_pin: &Pin, user_pin: &Pin) -> Result<(), DeviceError> {
        self.script.arrive(Call::CreateToken)?;
        let mut state = self.script.state();
        if state.flags.initialized {
            return Err(DeviceError::TokenGone("no slot holds a token that is not initialised".to_owned()));
        }
        state.initialise(label, user_pin.reveal());
        Ok(())
    }
}

/// One session on the fake token.
#[derive(Debug)]
struct FakeDriver {
    script: Script,
    session: u64,
    epoch: u64,
    abandoned: bool,
}

impl FakeDriver {
    /// Notes the call; the token must be there and the session alive for it to go on.
    fn call(&self, call: Call) -> Result<MutexGuard<'_, State>, DeviceError> {
        self.script.arrive(call)?;
        let state = self.script.state();
        state.check_present()?;
        if self.abandoned || state.epoch != self.epoch {
            return Err(DeviceError::SessionLost("the session is not valid".to_owned()));
        }
        Ok(state)
    }
}

impl Drop for FakeDriver {
    fn drop(&mut self) {
        let mut state = self.script.state();
        state.calls.push(Call::Close);
        // The last session takes the login along, as on a real token.
        if state.epoch == self.epoch && state.sessions.remove(&self.session) && state.sessions.is_empty() {
            state.logged_in = false;
        }
    }
}

impl TokenDriver for FakeDriver {
    fn check_presence(&mut self) -> Result<(), DeviceError> {
        self.script.arrive(Call::CheckPresence)?;
        self.script.state().check_present()
    }

    fn check_session(&mut self, logged_in: bool) -> Result<(), DeviceError> {
        let state = self.script.state();
        state.check_present()?;
        if state.logged_in == logged_in { Ok(()) } else { Err(DeviceError::SessionLost("the login is gone".to_owned())) }
    }

    fn flags(&mut self) -> Result<TokenFlags, DeviceError> {
        self.script.arrive(Call::Flags)?;
        let state = self.script.state();
        state.check_present()?;
        Ok(state.flags)
    }

    fn login(&mut self, pin: Option<&Pin>) -> Result<(), DeviceError> {
        let mut state = self.call(Call::Login)?;
        if state.logged_in {
            return Err(DeviceError::AlreadyLoggedIn);
        }
        state.try_pin(pin)?;
        state.logged_in = true;
        Ok(())
    }

    fn logout(&mut self) -> Result<(), DeviceError> {
        let mut state = self.call(Call::Logout)?;
        state.check_login()?;
        state.logged_in = false;
        state.handle_epoch += 1;
        Ok(())
    }

    fn list_keys(&mut self) -> Result<Vec<KeyDescription>, DeviceError> {
        let state = self.call(Call::ListKeys)?;
        let seen = if state.logged_in { &state.keys[..] } else { &[] };
        Ok(seen.iter().map(|key| key.description.clone()).collect())
    }

    fn find_key(&mut self, selector: &KeySelector) -> Result<CachedKey, DeviceError> {
        let state = self.call(Call::FindKey)?;
        state.check_login()?;
        let matches = |key: &KeyDescription| {
            selector.id.as_ref().is_none_or(|id| *id == key.id) && selector.label.as_ref().is_none_or(|label| *label == key.label)
        };
        let found: Vec<usize> = (0..state.keys.len()).filter(|index| matches(&state.keys[*index].description)).collect();
        match found[..] {
            [] => Err(DeviceError::KeyNotFound(selector.to_string())),
            [index] => {
                let KeyDescription { kind, always_authenticate, .. } = state.keys[index].description.clone();
                Ok(CachedKey { handle: state.handle(index), kind, always_authenticate })
            }
            _ => Err(DeviceError::KeyAmbiguous { selector: selector.to_string(), count: found.len() }),
        }
    }

    fn sign(
        &mut self,
        key: &CachedKey,
        to_sign: &ToSign,
        pin: Option<&Pin>,
        entering: &mut dyn FnMut(),
    ) -> Result<SignatureValue, DeviceError> {
        let (SignatureAlgorithm::Ecdsa(_), SigningInput::Digest(digest)) = (to_sign.algorithm(), to_sign.input()) else {
            return Err(DeviceError::Unsupported(format!("{} with a key {}", to_sign.algorithm(), key.kind)));
        };
        {
            let state = self.call(Call::SignInit)?;
            state.check_login()?;
            state.key(key.handle)?;
        }
        if key.always_authenticate {
            self.script.state().check_pin_is_at_hand(pin)?;
            let judged = self.call(Call::ContextLogin).and_then(|mut state| state.try_pin(pin));
            judged.inspect_err(|_| self.abandoned = true)?;
        }
        entering();
        let mut state = self.call(Call::Sign)?;
        let mut digest = digest.as_bytes().to_vec();
        if std::mem::take(&mut state.next_is_wrong) {
            digest[0] ^= 1;
        }
        let signed: Result<Signature, _> = state.key(key.handle)?.signing_key.sign_prehash(&digest);
        let signature = signed.map_err(|error| DeviceError::Unclear(error.to_string()))?;
        SignatureValue::from_token(&key.kind, signature.to_bytes().to_vec()).map_err(|error| DeviceError::Unclear(error.to_string()))
    }

    fn generate_key_pair(&mut self, spec: &KeyPairSpec) -> Result<KeyDescription, DeviceError> {
        let mut state = self.call(Call::GenerateKeyPair)?;
        state.check_login()?;
        if spec.kind != KeyKind::Ec(Curve::P256) {
            return Err(DeviceError::Unsupported(format!("making a key {}", spec.kind)));
        }
        if spec.id.is_empty() || state.keys.iter().any(|key| key.description.id == spec.id) {
            return Err(DeviceError::Refused("CKA_ID is empty or in use".to_owned()));
        }
        Ok(state.add_key(&spec.id, &spec.label))
    }

    fn write_certificate(&mut self, id: &[u8], _label: &str, certificate: &[u8]) -> Result<(), DeviceError> {
        let mut state = self.call(Call::WriteCertificate)?;
        state.check_login()?;
        Certificate::from_der(certificate).map_err(|error| DeviceError::Refused(error.to_string()))?;
        state.certificates.push((id.to_vec(), certificate.to_vec()));
        state.show_certificates();
        Ok(())
    }

    fn certificates(&mut self, id: &[u8]) -> Result<Vec<Vec<u8>>, DeviceError> {
        let state = self.call(Call::Certificates)?;
        Ok(state.certificates.iter().filter(|(of, _)| of == id).map(|(_, der)| der.clone()).collect())
    }

    fn remove_certificate(&mut self, id: &[u8], certificate: &[u8]) -> Result<(), DeviceError> {
        let mut state = self.call(Call::RemoveCertificate)?;
        state.check_login()?;
        state.certificates.retain(|(of, der)| of != id || der != certificate);
        state.show_certificates();
        Ok(())
    }

    fn destroy_key_pair(&mut self, id: &[u8]) -> Result<(), DeviceError> {
        let mut state = self.call(Call::DestroyKeyPair)?;
        state.check_login()?;
        state.keys.retain(|key| key.description.id != id);
        // What stood behind a removed key has another index now.
        state.handle_epoch += 1;
        Ok(())
    }

    fn algorithms(&mut self, key: &KeyKind) -> Result<Vec<SignatureAlgorithm>, DeviceError> {
        self.script.arrive(Call::Algorithms)?;
        Ok(match key {
            KeyKind::Ec(Curve::P256) => HashAlgorithm::ALL.map(SignatureAlgorithm::Ecdsa).to_vec(),
            _ => Vec::new(),
        })
    }

    fn offer(&mut self) -> Result<TokenOffer, DeviceError> {
        let kind = KeyKind::Ec(Curve::P256);
        Ok(TokenOffer { signs: self.algorithms(&kind)?, makes: vec![kind] })
    }
}
