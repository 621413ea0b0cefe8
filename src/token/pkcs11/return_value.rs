//! The one table from PKCS#11 return values to [`DeviceError`].
//!
//! Most values mean the same whichever function returned them. Two functions read some of them differently: `C_Login` says with argument
//! codes that a PIN has the wrong form, and an error of `C_Sign` may leave it open whether the token has signed.
//! Invariant: what the table does not list is a failure, and from `C_Sign` a failure of unknown outcome.

use cryptoki::{
    context::Function,
    error::{Error, RvError},
};

use crate::token::driver::DeviceError;

/// What a return value means, whichever function it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    TokenGone,
    SessionLost,
    /// The session went while the call was made, which may have had its effect.
    ClosedDuringCall,
    /// The module itself must be started again.
    ModuleLost,
    AlreadyLoggedIn,
    PinRejected,
    PinUnacceptable,
    PinLocked,
    /// A person must do something about the PIN first.
    PinNotReady,
    Unsupported,
    NotWritable,
    /// Arguments, or the state of things, that the module does not accept: nothing was done.
    Refused,
    /// Nothing was handed over, and the session is best opened again.
    Harmless,
}

/// The standard's values (PKCS#11 v3.2 section 5.1), but for those that only say that something failed.
const TABLE: [(Meaning, &[RvError]); 13] = [
    // TOKEN_NOT_PRESENT speaks of the moment of the call, unlike DEVICE_REMOVED.
    (Meaning::TokenGone, &[RvError::TokenNotPresent, RvError::SlotIdInvalid]),
    (
        Meaning::SessionLost,
        &[
            RvError::SessionHandleInvalid,
            RvError::ObjectHandleInvalid,
            RvError::KeyHandleInvalid,
            RvError::UserNotLoggedIn,
            RvError::OperationActive,
            // From `C_Sign`, or from a context login: OpenSC's PIV driver has logged the whole token out.
            RvError::OperationNotInitialized,
        ],
    ),
    // It says that the session was closed during the call, unlike SESSION_HANDLE_INVALID, which speaks of its beginning.
    (Meaning::ClosedDuringCall, &[RvError::SessionClosed]),
    (Meaning::ModuleLost, &[RvError::CryptokiNotInitialized]),
    (Meaning::AlreadyLoggedIn, &[RvError::UserAlreadyLoggedIn]),
    (Meaning::PinRejected, &[RvError::PinIncorrect]),
    (Meaning::PinUnacceptable, &[RvError::PinLenRange, RvError::PinInvalid, RvError::PinTooWeak]),
    (Meaning::PinLocked, &[RvError::PinLocked]),
    (Meaning::PinNotReady, &[RvError::PinExpired, RvError::UserPinNotInitialized, RvError::NewPinMode, RvError::NextOtp]),
    (
        Meaning::Unsupported,
        &[
            RvError::FunctionNotSupported,
            RvError::FunctionNotParallel,
            RvError::MechanismInvalid,
            RvError::MechanismParamInvalid,
            RvError::CurveNotSupported,
            RvError::DomainParamsInvalid,
            RvError::KeySizeRange,
            RvError::KeyTypeInconsistent,
            RvError::KeyFunctionNotPermitted,
            RvError::SessionParallelNotSupported,
            RvError::RandomSeedNotSupported,
            RvError::RandomNoRng,
        ],
    ),
    (Meaning::NotWritable, &[RvError::TokenWriteProtected, RvError::SessionReadOnly, RvError::SessionReadOnlyExists]),
    (
        Meaning::Refused,
        &[
            RvError::Cancel,
            RvError::FunctionCanceled,
            RvError::FunctionRejected,
            RvError::ArgumentsBad,
            RvError::ActionProhibited,
            RvError::AttributeReadOnly,
            RvError::AttributeSensitive,
            RvError::AttributeTypeInvalid,
            RvError::AttributeValueInvalid,
            RvError::TemplateIncomplete,
            RvError::TemplateInconsistent,
            RvError::DataInvalid,
            RvError::DataLenRange,
            RvError::EncryptedDataInvalid,
            RvError::EncryptedDataLenRange,
            RvError::SignatureInvalid,
            RvError::SignatureLenRange,
            RvError::KeyNotNeeded,
            RvError::KeyChanged,
            RvError::KeyNeeded,
            RvError::KeyIndigestible,
            RvError::KeyNotWrappable,
            RvError::KeyUnextractable,
            RvError::PublicKeyInvalid,
            RvError::UnwrappingKeyHandleInvalid,
            RvError::UnwrappingKeySizeRange,
            RvError::UnwrappingKeyTypeInconsistent,
            RvError::WrappedKeyInvalid,
            RvError::WrappedKeyLenRange,
            RvError::WrappingKeyHandleInvalid,
            RvError::WrappingKeySizeRange,
            RvError::WrappingKeyTypeInconsistent,
            RvError::SavedStateInvalid,
            RvError::StateUnsaveable,
            RvError::InformationSensitive,
            RvError::UserTypeInvalid,
            RvError::CryptokiAlreadyInitialized,
        ],
    ),
    (
        Meaning::Harmless,
        &[
            RvError::BufferTooSmall,
            RvError::NoEvent,
            RvError::SessionCount,
            RvError::SessionExists,
            RvError::SessionReadWriteSoExists,
            RvError::UserAnotherAlreadyLoggedIn,
            RvError::UserTooManyTypes,
        ],
    ),
];

/// Turns a return value of `function` into what it means to the slot's thread.
pub(super) fn classify(rv: RvError, function: Function) -> DeviceError {
    let said = said(rv, function);
    match TABLE.iter().find(|(_, values)| values.contains(&rv)).map(|(meaning, _)| *meaning) {
        // A PIN of four digits on a PIV card is CKR_DATA_INVALID; an empty one on SoftHSM is CKR_ARGUMENTS_BAD.
        Some(Meaning::Refused) if is_about_a_pin(rv, function) => DeviceError::PinUnacceptable,
        Some(Meaning::TokenGone) => DeviceError::TokenGone(said),
        Some(Meaning::ClosedDuringCall) if matches!(function, Function::Sign) => DeviceError::Unclear(said),
        Some(Meaning::SessionLost | Meaning::ClosedDuringCall) => DeviceError::SessionLost(said),
        Some(Meaning::ModuleLost) => DeviceError::ModuleLost(said),
        Some(Meaning::AlreadyLoggedIn) => DeviceError::AlreadyLoggedIn,
        Some(Meaning::PinRejected) => DeviceError::PinRejected,
        Some(Meaning::PinUnacceptable) => DeviceError::PinUnacceptable,
        Some(Meaning::PinLocked) => DeviceError::PinLocked,
        Some(Meaning::PinNotReady) => DeviceError::LoginRequired(format!("its PIN must be set or changed first, {said}")),
        Some(Meaning::Unsupported) => DeviceError::Unsupported(said),
        Some(Meaning::NotWritable) => DeviceError::NotWritable(said),
        Some(Meaning::Refused) => DeviceError::Refused(said),
        Some(Meaning::Harmless) => DeviceError::Failed(said),
        None => failure(rv, function, said),
    }
}

/// An error of `cryptoki` itself: mostly return values, otherwise answers that make no sense.
pub(super) fn from_cryptoki(error: Error) -> DeviceError {
    match error {
        Error::Pkcs11(rv, function) => classify(rv, function),
        Error::NullFunctionPointer | Error::MissingSymbol(_) => {
            DeviceError::Unsupported("the module does not have a function that this needs".to_owned())
        }
        other => DeviceError::Failed(format!("the module's answer makes no sense: {other}")),
    }
}

/// The value and the function in the standard's spelling: `CKR_PIN_INCORRECT from C_Login`.
pub(super) fn said(rv: RvError, function: Function) -> String {
    format!("{} from C_{function:?}", name(rv))
}

fn failure(rv: RvError, function: Function, said: String) -> DeviceError {
    let may_have_signed = matches!(function, Function::Sign);
    match rv {
        _ if may_have_signed => DeviceError::Unclear(said),
        RvError::DeviceRemoved | RvError::TokenNotRecognized => DeviceError::TokenGone(said),
        RvError::DeviceMemory if matches!(function, Function::GenerateKeyPair | Function::CreateObject) => DeviceError::NotWritable(said),
        _ => DeviceError::Failed(said),
    }
}

const fn is_about_a_pin(rv: RvError, function: Function) -> bool {
    matches!(rv, RvError::DataInvalid | RvError::DataLenRange | RvError::ArgumentsBad)
        && matches!(function, Function::Login | Function::InitPIN | Function::SetPIN)
}

fn name(rv: RvError) -> String {
    match rv {
        RvError::VendorDefined(code) => format!("the vendor's own CKR {code:#x}"),
        RvError::UnknownErrorCode(code) => format!("an unknown CKR {code:#x}"),
        known => format!("CKR{}", screaming_snake(&format!("{known:?}"))),
    }
}

/// `PinIncorrect` → `_PIN_INCORRECT`.
fn screaming_snake(camel: &str) -> String {
    let mut snake = String::with_capacity(camel.len() + 4);
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_uppercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use cryptoki::error::Rv;
    use cryptoki_sys::{CK_RV, CKR_FUNCTION_REJECTED, CKR_VENDOR_DEFINED};

    use super::*;
    use crate::token::driver::{Outcome, Retry};

    /// Every value that cryptoki knows by name, found by asking it.
    fn known_values() -> Vec<RvError> {
        (1..=CKR_FUNCTION_REJECTED + 0x100)
            .filter_map(|code: CK_RV| match Rv::from(code) {
                Rv::Ok | Rv::Error(RvError::UnknownErrorCode(_)) => None,
                Rv::Error(rv) => Some(rv),
            })
            .collect()
    }

    fn variant(error: &DeviceError) -> String {
        format!("{error:?}").split(['(', ' ']).next().unwrap_or_default().to_owned()
    }

    #[test]
    fn the_table_is_as_reviewed() {
        let strange = [RvError::VendorDefined(CKR_VENDOR_DEFINED + 5), RvError::UnknownErrorCode(0x3ff)];
        let mut table = String::new();
        for rv in known_values().into_iter().chain(strange) {
            let columns = [Function::OpenSession, Function::Login, Function::SignInit, Function::Sign].map(|f| variant(&classify(rv, f)));
            let [open, login, init, sign] = columns;
            writeln!(table, "{:<40} {open:<16} {login:<16} {init:<16} {sign}", name(rv)).unwrap();
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn no_value_stands_in_the_table_twice() {
        let listed: Vec<RvError> = TABLE.iter().flat_map(|(_, values)| values.iter().copied()).collect();
        for (at, rv) in listed.iter().enumerate() {
            assert!(!listed[..at].contains(rv), "{rv:?} is listed twice");
        }
    }

    #[test]
    fn only_c_sign_leaves_the_outcome_open() {
        for rv in known_values() {
            for function in [Function::OpenSession, Function::Login, Function::SignInit, Function::GenerateKeyPair, Function::GetSlotInfo] {
                assert_eq!(classify(rv, function).outcome(), Outcome::NotPerformed, "{rv:?} from {function:?}");
            }
        }
    }

    #[test]
    fn a_failure_in_c_sign_is_in_doubt_and_reopens_the_session() {
        let failures = [
            RvError::DeviceError,
            RvError::DeviceMemory,
            RvError::DeviceRemoved,
            RvError::GeneralError,
            RvError::FunctionFailed,
            RvError::HostMemory,
            RvError::VendorDefined(CKR_VENDOR_DEFINED),
            RvError::UnknownErrorCode(0x3ff),
        ];
        for rv in failures {
            let error = classify(rv, Function::Sign);
            assert_eq!((error.outcome(), error.retry()), (Outcome::Unknown, Retry::AfterReopen), "{rv:?}");
        }
    }

    #[test]
    fn handle_session_login_and_argument_codes_of_c_sign_mean_that_nothing_was_signed() {
        let codes = [
            RvError::SessionHandleInvalid,
            RvError::KeyHandleInvalid,
            RvError::ObjectHandleInvalid,
            RvError::UserNotLoggedIn,
            RvError::OperationNotInitialized,
            RvError::ArgumentsBad,
            RvError::DataLenRange,
            RvError::TokenNotPresent,
        ];
        for rv in codes {
            assert_eq!(classify(rv, Function::Sign).outcome(), Outcome::NotPerformed, "{rv:?}");
        }
    }

    #[test]
    fn a_pin_of_the_wrong_form_is_told_from_a_wrong_pin() {
        for rv in [RvError::PinLenRange, RvError::PinInvalid, RvError::DataInvalid, RvError::ArgumentsBad] {
            assert_eq!(classify(rv, Function::Login), DeviceError::PinUnacceptable, "{rv:?}");
        }
        assert_eq!(classify(RvError::PinIncorrect, Function::Login), DeviceError::PinRejected);
        assert!(matches!(classify(RvError::DataInvalid, Function::SignInit), DeviceError::Refused(_)));
    }

    #[test]
    fn texts_use_the_names_of_the_standard() {
        assert_eq!(said(RvError::SessionReadWriteSoExists, Function::InitPIN), "CKR_SESSION_READ_WRITE_SO_EXISTS from C_InitPIN");
        assert_eq!(said(RvError::VendorDefined(0x8000_0001), Function::Sign), "the vendor's own CKR 0x80000001 from C_Sign");
    }
}
