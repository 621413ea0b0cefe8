//! One session on one token.

use std::sync::Arc;

use cryptoki::{
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, CertificateType, ObjectClass, ObjectHandle},
    session::{Session, SessionState, UserType},
    slot::Slot,
    types::{AuthPin, Ulong},
};
use der::{Decode, Encode};
use x509_cert::Certificate;

use super::{
    discovery,
    mechanism::{Mechanisms, Plan, plan},
    module::Loaded,
    objects::Objects,
    public_key::{params_of_curve, params_of_ed25519},
    raw,
    return_value::from_cryptoki,
};
use crate::{
    domain::{
        algorithm::{KeyKind, RSA_BITS_MAX, SignatureAlgorithm},
        digest::ToSign,
        pin::Pin,
        signature::SignatureValue,
        token::{KeyDescription, KeyPairSpec, KeySelector, TokenFlags, TokenOffer},
    },
    token::driver::{CachedKey, DeviceError, SlotId, TokenDriver},
};

/// Room for the longest signature that a key can make here, in bytes.
const SIGNATURE_MAX: usize = RSA_BITS_MAX as usize / 8;
/// 65537.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// A session on a token, through `cryptoki`.
#[derive(Debug)]
pub(super) struct Pkcs11Driver {
    // The fields are dropped in this order: the session must be closed before the module may be finalised.
    session: Session,
    loaded: Arc<Loaded>,
    slot: Slot,
    flags_at_opening: TokenFlags,
    /// Read once: a token does not change its list.
    mechanisms: Option<Mechanisms>,
    /// A signature was begun and never made, so the session is of no use any more.
    abandoned: bool,
}

impl Pkcs11Driver {
    /// Opens a session that can write, or one that cannot if the token cannot be written.
    ///
    /// # Errors
    /// What the module said.
    pub(super) fn open(loaded: Arc<Loaded>, slot: SlotId) -> Result<Self, DeviceError> {
        let slot = Slot::try_from(slot.0).map_err(from_cryptoki)?;
        let info = loaded.pkcs11.get_token_info(slot).map_err(from_cryptoki)?;
        let flags = discovery::flags(&info);
        let writing = if flags.write_protected { None } else { Some(loaded.pkcs11.open_rw_session(slot)) };
        let session = match writing {
            Some(Err(Error::Pkcs11(RvError::TokenWriteProtected | RvError::SessionReadOnly, _))) | None => {
                loaded.pkcs11.open_ro_session(slot)
            }
            Some(opened) => opened,
        };
        let session = session.map_err(from_cryptoki)?;
        Ok(Self { session, loaded, slot, flags_at_opening: flags, mechanisms: None, abandoned: false })
    }

    fn objects(&self) -> Result<Objects<'_>, DeviceError> {
        if self.abandoned {
            return Err(DeviceError::SessionLost("a signature was begun on it and not finished".to_owned()));
        }
        Ok(Objects::of(&self.session))
    }

    fn mechanisms(&mut self) -> Result<&Mechanisms, DeviceError> {
        match &mut self.mechanisms {
            Some(mechanisms) => Ok(mechanisms),
            unread => Ok(unread.insert(Mechanisms::read(&self.loaded.pkcs11, self.slot)?)),
        }
    }

    /// A token shows private keys to those who are logged in, so finding none proves nothing for the others.
    fn no_such_key(&self, selector: &KeySelector) -> DeviceError {
        let state = self.session.get_session_info().map(|info| info.session_state());
        let nobody = matches!(state, Ok(SessionState::RoPublic | SessionState::RwPublic));
        if nobody && self.flags_at_opening.login_required {
            return DeviceError::SessionLost("nobody is logged in, and private keys cannot be seen".to_owned());
        }
        DeviceError::KeyNotFound(selector.to_string())
    }

    fn login_as(&self, user: UserType, pin: Option<&Pin>) -> Result<(), DeviceError> {
        let pin = pin.map(|pin| AuthPin::from(pin.reveal()));
        self.session.login(user, pin.as_ref()).map_err(from_cryptoki)
    }

    /// Without a PIN, somebody must be able to type one at the reader.
    fn check_pin_is_at_hand(&self, pin: Option<&Pin>, purpose: &str) -> Result<(), DeviceError> {
        if pin.is_none() && !self.flags_at_opening.protected_authentication_path {
            return Err(DeviceError::LoginRequired(format!("{purpose} wants a PIN, and its reader has no PIN pad")));
        }
        Ok(())
    }

    /// One `C_SignInit`, the login that the key may want, one `C_Sign`.
    fn sign_planned(
        &mut self,
        key: &CachedKey,
        mut plan: Plan,
        pin: Option<&Pin>,
        entering: &mut dyn FnMut(),
    ) -> Result<Vec<u8>, DeviceError> {
        let Some(functions) = self.loaded.sign_functions else {
            return self.sign_through_cryptoki(key, &plan, entering);
        };
        functions.sign_init(&self.session, &plan.mechanism, key.handle)?;
        if key.always_authenticate {
            // The operation stays active when this fails, and PKCS#11 2.40 has no way to end it but the end of the session.
            self.login_as(UserType::ContextSpecific, pin).inspect_err(|_| self.abandoned = true)?;
        }
        let mut signature = vec![0; SIGNATURE_MAX];
        entering();
        let length = functions.sign(&self.session, &mut plan.data, &mut signature)?;
        signature.truncate(length);
        Ok(signature)
    }

    /// For modules that give each caller an instance of its own: one more `C_Sign`, which only asks for the length.
    fn sign_through_cryptoki(&self, key: &CachedKey, plan: &Plan, entering: &mut dyn FnMut()) -> Result<Vec<u8>, DeviceError> {
        if key.always_authenticate {
            return Err(DeviceError::Unsupported(
                "a PIN for each signature, through a module that gives each caller an instance".to_owned(),
            ));
        }
        entering();
        self.session.sign(&plan.mechanism, raw::object_handle(key.handle), &plan.data).map_err(from_cryptoki)
    }

    fn generate(&self, mechanism: &Mechanism<'_>, spec: &KeyPairSpec, public_half: Vec<Attribute>) -> Result<ObjectHandle, Error> {
        let shared = [Attribute::Token(true), Attribute::Id(spec.id.clone()), Attribute::Label(spec.label.clone().into_bytes())];
        let mut public = vec![Attribute::Private(false), Attribute::Verify(true)];
        let mut private = vec![Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false), Attribute::Sign(true)];
        public.extend(public_half);
        public.extend(shared.clone());
        private.extend(shared);
        let (_, private) = self.session.generate_key_pair(mechanism, &public, &private)?;
        self.forbid_other_uses(private);
        Ok(private)
    }

    /// Tokens allow more uses of a new key than were asked for, and are asked to take them back.
    ///
    /// Saying so in the template would be simpler, but tpm2-pkcs11 1.9 makes no key then. Tokens that do not let a use be taken back keep it.
    fn forbid_other_uses(&self, private: ObjectHandle) {
        for forbidden in [Attribute::Decrypt(false), Attribute::Unwrap(false), Attribute::SignRecover(false), Attribute::Derive(false)] {
            if let Err(error) = self.session.update_attributes(private, &[forbidden]) {
                tracing::debug!(%error, "the token does not take back a use that it gave a new key");
            }
        }
    }

    /// By curve name first; tokens that only know the object identifier say so with a parameter or template error.
    fn generate_ed25519(&self, mechanism: &Mechanism<'_>, spec: &KeyPairSpec) -> Result<ObjectHandle, Error> {
        let [by_name, by_identifier] = params_of_ed25519();
        match self.generate(mechanism, spec, vec![Attribute::EcParams(by_name)]) {
            Err(Error::Pkcs11(rv, _)) if is_about_parameters(rv) => {
                self.generate(mechanism, spec, vec![Attribute::EcParams(by_identifier)])
            }
            other => other,
        }
    }
}

const fn is_about_parameters(rv: RvError) -> bool {
    matches!(
        rv,
        RvError::AttributeValueInvalid
            | RvError::CurveNotSupported
            | RvError::DomainParamsInvalid
            | RvError::MechanismParamInvalid
            | RvError::TemplateInconsistent
            | RvError::ArgumentsBad
    )
}

impl TokenDriver for Pkcs11Driver {
    fn check_presence(&mut self) -> Result<(), DeviceError> {
        let info = self.loaded.pkcs11.get_slot_info(self.slot).map_err(from_cryptoki)?;
        if info.token_present() { Ok(()) } else { Err(DeviceError::TokenGone("its slot is empty".to_owned())) }
    }

    fn check_session(&mut self, logged_in: bool) -> Result<(), DeviceError> {
        let info = self.session.get_session_info().map_err(from_cryptoki)?;
        let is_user = matches!(info.session_state(), SessionState::RoUser | SessionState::RwUser);
        if is_user == logged_in { Ok(()) } else { Err(DeviceError::SessionLost("the login is gone".to_owned())) }
    }

    fn flags(&mut self) -> Result<TokenFlags, DeviceError> {
        self.loaded.pkcs11.get_token_info(self.slot).map(|info| discovery::flags(&info)).map_err(from_cryptoki)
    }

    fn login(&mut self, pin: Option<&Pin>) -> Result<(), DeviceError> {
        self.check_pin_is_at_hand(pin, "the token")?;
        self.login_as(UserType::User, pin)
    }

    fn logout(&mut self) -> Result<(), DeviceError> {
        self.session.logout().map_err(from_cryptoki)
    }

    fn list_keys(&mut self) -> Result<Vec<KeyDescription>, DeviceError> {
        let objects = self.objects()?;
        objects.private_keys(None)?.into_iter().map(|key| objects.describe(key)).collect()
    }

    fn find_key(&mut self, selector: &KeySelector) -> Result<CachedKey, DeviceError> {
        let objects = self.objects()?;
        match objects.private_keys(Some(selector))?[..] {
            [] => Err(self.no_such_key(selector)),
            [key] => objects.cached(key),
            ref several => Err(DeviceError::KeyAmbiguous { selector: selector.to_string(), count: several.len() }),
        }
    }

    fn sign(
        &mut self,
        key: &CachedKey,
        to_sign: &ToSign,
        pin: Option<&Pin>,
        entering: &mut dyn FnMut(),
    ) -> Result<SignatureValue, DeviceError> {
        self.objects()?;
        let plan = plan(self.mechanisms()?, &key.kind, to_sign)?;
        if key.always_authenticate {
            self.check_pin_is_at_hand(pin, "each signature of this key")?;
        }
        let bytes = self.sign_planned(key, plan, pin, entering)?;
        SignatureValue::from_token(&key.kind, bytes).map_err(|error| DeviceError::Unclear(error.to_string()))
    }

    fn generate_key_pair(&mut self, spec: &KeyPairSpec) -> Result<KeyDescription, DeviceError> {
        let mechanism = self.mechanisms()?.check_generate(&spec.kind)?;
        if spec.id.is_empty() {
            return Err(DeviceError::Refused("a key needs a CKA_ID, or nothing joins its two halves".to_owned()));
        }
        if self.objects()?.id_in_use(&spec.id)? {
            return Err(DeviceError::Refused(format!("CKA_ID {} is in use on this token", hex::encode(&spec.id))));
        }
        let generated = match &spec.kind {
            KeyKind::Rsa { modulus_bits } => {
                let size = Attribute::ModulusBits(Ulong::new((*modulus_bits).into()));
                self.generate(&mechanism, spec, vec![size, Attribute::PublicExponent(RSA_EXPONENT.to_vec())])
            }
            KeyKind::Ec(curve) => self.generate(&mechanism, spec, vec![Attribute::EcParams(params_of_curve(*curve))]),
            KeyKind::Ed25519 | KeyKind::Unsupported(_) => self.generate_ed25519(&mechanism, spec),
        };
        self.objects()?.describe(generated.map_err(from_cryptoki)?)
    }

    fn write_certificate(&mut self, id: &[u8], label: &str, certificate: &[u8]) -> Result<(), DeviceError> {
        self.objects()?;
        let template = certificate_template(id, label, certificate)
            .map_err(|error| DeviceError::Refused(format!("this is not an X.509 certificate in DER: {error}")))?;
        self.session.create_object(&template).map(drop).map_err(from_cryptoki)
    }

    fn certificates(&mut self, id: &[u8]) -> Result<Vec<Vec<u8>>, DeviceError> {
        let found = self.objects()?.certificates(id)?;
        Ok(found.into_iter().map(|(_, certificate)| certificate).collect())
    }

    fn remove_certificate(&mut self, id: &[u8], certificate: &[u8]) -> Result<(), DeviceError> {
        let found = self.objects()?.certificates(id)?;
        let meant = found.into_iter().filter(|(_, der)| der == certificate);
        meant.map(|(object, _)| object).try_for_each(|object| self.session.destroy_object(object).map_err(from_cryptoki))
    }

    fn destroy_key_pair(&mut self, id: &[u8]) -> Result<(), DeviceError> {
        if id.is_empty() {
            return Err(DeviceError::Refused("without a CKA_ID it is not clear which keys are meant".to_owned()));
        }
        let halves = self.objects()?.halves(id)?;
        halves.into_iter().try_for_each(|object| self.session.destroy_object(object).map_err(from_cryptoki))
    }

    fn algorithms(&mut self, key: &KeyKind) -> Result<Vec<SignatureAlgorithm>, DeviceError> {
        Ok(self.mechanisms()?.algorithms(key))
    }

    fn offer(&mut self) -> Result<TokenOffer, DeviceError> {
        Ok(self.mechanisms()?.offer())
    }
}

fn certificate_template(id: &[u8], label: &str, certificate: &[u8]) -> der::Result<Vec<Attribute>> {
    let parsed = Certificate::from_der(certificate)?;
    let tbs = parsed.tbs_certificate();
    Ok(vec![
        Attribute::Class(ObjectClass::CERTIFICATE),
        Attribute::CertificateType(CertificateType::X_509),
        Attribute::Token(true),
        // Anybody may see it, so that it can be found before a login.
        Attribute::Private(false),
        Attribute::Id(id.to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Subject(tbs.subject().to_der()?),
        Attribute::Issuer(tbs.issuer().to_der()?),
        Attribute::SerialNumber(tbs.serial_number().to_der()?),
        Attribute::Value(certificate.to_vec()),
    ])
}
