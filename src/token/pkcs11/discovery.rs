//! Which tokens are there, and making a new one.

use cryptoki::{
    session::UserType,
    slot::{Slot, TokenInfo},
    types::AuthPin,
};

use super::{module::Loaded, return_value::from_cryptoki};
use crate::{
    domain::{
        pin::Pin,
        token::{TokenFlags, TokenIdentity},
    },
    token::{
        driver::{DeviceError, SlotId, TokenSighting},
        quirks::LibraryInfo,
    },
};

/// Length of `CK_TOKEN_INFO.label` in bytes.
const TOKEN_LABEL_MAX: usize = 32;

/// How the module describes itself.
///
/// # Errors
/// What the module said.
pub(super) fn library(loaded: &Loaded) -> Result<LibraryInfo, DeviceError> {
    let info = loaded.pkcs11.get_library_info().map_err(from_cryptoki)?;
    Ok(LibraryInfo { manufacturer: unpadded(info.manufacturer_id()), description: unpadded(info.library_description()) })
}

/// Lists the initialised tokens.
///
/// A slot that does not answer is left out, so that one bad card does not hide the others; if none answers, that is an error.
///
/// # Errors
/// What the module said.
pub(super) fn tokens(loaded: &Loaded) -> Result<Vec<TokenSighting>, DeviceError> {
    let slots = loaded.pkcs11.get_slots_with_token().map_err(from_cryptoki)?;
    let mut sightings = Vec::new();
    let mut last_error = None;
    let mut answered = false;
    for slot in slots {
        match sighting(loaded, slot) {
            Ok(sighting) => {
                answered = true;
                sightings.extend(sighting);
            }
            // It was taken out meanwhile.
            Err(DeviceError::TokenGone(_)) => answered = true,
            Err(error) => {
                // At every look; whoever misses the token hears of it through the slot's state.
                tracing::debug!(module = %loaded.name, slot = slot.id(), %error, "a slot does not answer");
                last_error = Some(error);
            }
        }
    }
    match last_error {
        Some(error) if !answered => Err(error),
        _ => Ok(sightings),
    }
}

fn sighting(loaded: &Loaded, slot: Slot) -> Result<Option<TokenSighting>, DeviceError> {
    let info = loaded.pkcs11.get_token_info(slot).map_err(from_cryptoki)?;
    if !info.token_initialized() {
        return Ok(None);
    }
    let removable = loaded.pkcs11.get_slot_info(slot).map_err(from_cryptoki)?.removable_device();
    let token = TokenIdentity {
        module: loaded.name.clone(),
        manufacturer: unpadded(info.manufacturer_id()),
        model: unpadded(info.model()),
        serial: unpadded(info.serial_number()),
        label: unpadded(info.label()),
    };
    Ok(Some(TokenSighting { slot: SlotId(slot.id()), token, flags: flags(&info), removable }))
}

/// The standard pads with blanks; some modules pad with NULs.
fn unpadded(field: &str) -> String {
    field.trim_matches([' ', '\0']).to_owned()
}

/// The flags that matter here.
pub(super) fn flags(info: &TokenInfo) -> TokenFlags {
    TokenFlags {
        initialized: info.token_initialized(),
        login_required: info.login_required(),
        user_pin_initialized: info.user_pin_initialized(),
        protected_authentication_path: info.protected_authentication_path(),
        write_protected: info.write_protected(),
        user_pin_count_low: info.user_pin_count_low(),
        user_pin_final_try: info.user_pin_final_try(),
        user_pin_locked: info.user_pin_locked(),
    }
}

/// Makes a token in a free slot, with a user PIN.
///
/// # Errors
/// [`DeviceError::TokenGone`] if no slot is free, [`DeviceError::Refused`] if the label is too long, or what the module said.
pub(super) fn create_token(loaded: &Loaded, label: &str, so_pin: &Pin, user_pin: &Pin) -> Result<(), DeviceError> {
    if label.len() > TOKEN_LABEL_MAX {
        return Err(DeviceError::Refused(format!("a token's label has at most {TOKEN_LABEL_MAX} bytes")));
    }
    let slot = free_slot(loaded)?;
    let so_pin = AuthPin::from(so_pin.reveal());
    loaded.pkcs11.init_token(slot, &so_pin, label).map_err(from_cryptoki)?;
    let session = loaded.pkcs11.open_rw_session(slot).map_err(from_cryptoki)?;
    session.login(UserType::So, Some(&so_pin)).map_err(from_cryptoki)?;
    let set = session.init_pin(&AuthPin::from(user_pin.reveal())).map_err(from_cryptoki);
    // Also when the PIN was refused: nobody should stay logged in as security officer.
    session.logout().map_err(from_cryptoki)?;
    set
}

fn free_slot(loaded: &Loaded) -> Result<Slot, DeviceError> {
    let uninitialised = |slot: &Slot| loaded.pkcs11.get_token_info(*slot).is_ok_and(|info| !info.token_initialized());
    let slots = loaded.pkcs11.get_slots_with_token().map_err(from_cryptoki)?;
    slots.into_iter().find(uninitialised).ok_or_else(|| DeviceError::TokenGone("no slot holds a token that is not initialised".to_owned()))
}
