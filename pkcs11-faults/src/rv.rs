//! PKCS#11 return values, by the standard's names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::Error as _};

/// A return value, `CK_RV`. In JSON: its name, `"CKR_DEVICE_REMOVED"`, or the number where the standard has no name (`"0x80000001"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rv(pub u64);

macro_rules! define_values {
    ($($short:ident = $name:ident),* $(,)?) => {
        #[allow(missing_docs)] // The standard documents them.
        impl Rv {
            $(pub const $short: Self = Self(cryptoki_sys::$name);)*
        }

        const NAMES: &[(Rv, &str)] = &[$((Rv::$short, stringify!($name))),*];
    };
}

define_values! {
    OK = CKR_OK, CANCEL = CKR_CANCEL, HOST_MEMORY = CKR_HOST_MEMORY, SLOT_ID_INVALID = CKR_SLOT_ID_INVALID,
    GENERAL_ERROR = CKR_GENERAL_ERROR, FUNCTION_FAILED = CKR_FUNCTION_FAILED, ARGUMENTS_BAD = CKR_ARGUMENTS_BAD,
    NO_EVENT = CKR_NO_EVENT, NEED_TO_CREATE_THREADS = CKR_NEED_TO_CREATE_THREADS, CANT_LOCK = CKR_CANT_LOCK,
    ATTRIBUTE_READ_ONLY = CKR_ATTRIBUTE_READ_ONLY, ATTRIBUTE_SENSITIVE = CKR_ATTRIBUTE_SENSITIVE,
    ATTRIBUTE_TYPE_INVALID = CKR_ATTRIBUTE_TYPE_INVALID, ATTRIBUTE_VALUE_INVALID = CKR_ATTRIBUTE_VALUE_INVALID,
    ACTION_PROHIBITED = CKR_ACTION_PROHIBITED, DATA_INVALID = CKR_DATA_INVALID, DATA_LEN_RANGE = CKR_DATA_LEN_RANGE,
    DEVICE_ERROR = CKR_DEVICE_ERROR, DEVICE_MEMORY = CKR_DEVICE_MEMORY, DEVICE_REMOVED = CKR_DEVICE_REMOVED,
    ENCRYPTED_DATA_INVALID = CKR_ENCRYPTED_DATA_INVALID, ENCRYPTED_DATA_LEN_RANGE = CKR_ENCRYPTED_DATA_LEN_RANGE,
    FUNCTION_CANCELED = CKR_FUNCTION_CANCELED, FUNCTION_NOT_PARALLEL = CKR_FUNCTION_NOT_PARALLEL,
    FUNCTION_NOT_SUPPORTED = CKR_FUNCTION_NOT_SUPPORTED, KEY_HANDLE_INVALID = CKR_KEY_HANDLE_INVALID,
    KEY_SIZE_RANGE = CKR_KEY_SIZE_RANGE, KEY_TYPE_INCONSISTENT = CKR_KEY_TYPE_INCONSISTENT, KEY_NOT_NEEDED = CKR_KEY_NOT_NEEDED,
    KEY_CHANGED = CKR_KEY_CHANGED, KEY_NEEDED = CKR_KEY_NEEDED, KEY_INDIGESTIBLE = CKR_KEY_INDIGESTIBLE,
    KEY_FUNCTION_NOT_PERMITTED = CKR_KEY_FUNCTION_NOT_PERMITTED, KEY_NOT_WRAPPABLE = CKR_KEY_NOT_WRAPPABLE,
    KEY_UNEXTRACTABLE = CKR_KEY_UNEXTRACTABLE, MECHANISM_INVALID = CKR_MECHANISM_INVALID,
    MECHANISM_PARAM_INVALID = CKR_MECHANISM_PARAM_INVALID, OBJECT_HANDLE_INVALID = CKR_OBJECT_HANDLE_INVALID,
    OPERATION_ACTIVE = CKR_OPERATION_ACTIVE, OPERATION_NOT_INITIALIZED = CKR_OPERATION_NOT_INITIALIZED,
    PIN_INCORRECT = CKR_PIN_INCORRECT, PIN_INVALID = CKR_PIN_INVALID, PIN_LEN_RANGE = CKR_PIN_LEN_RANGE, PIN_EXPIRED = CKR_PIN_EXPIRED,
    PIN_LOCKED = CKR_PIN_LOCKED, SESSION_CLOSED = CKR_SESSION_CLOSED, SESSION_COUNT = CKR_SESSION_COUNT,
    SESSION_HANDLE_INVALID = CKR_SESSION_HANDLE_INVALID, SESSION_PARALLEL_NOT_SUPPORTED = CKR_SESSION_PARALLEL_NOT_SUPPORTED,
    SESSION_READ_ONLY = CKR_SESSION_READ_ONLY, SESSION_EXISTS = CKR_SESSION_EXISTS,
    SESSION_READ_ONLY_EXISTS = CKR_SESSION_READ_ONLY_EXISTS, SESSION_READ_WRITE_SO_EXISTS = CKR_SESSION_READ_WRITE_SO_EXISTS,
    SIGNATURE_INVALID = CKR_SIGNATURE_INVALID, SIGNATURE_LEN_RANGE = CKR_SIGNATURE_LEN_RANGE,
    TEMPLATE_INCOMPLETE = CKR_TEMPLATE_INCOMPLETE, TEMPLATE_INCONSISTENT = CKR_TEMPLATE_INCONSISTENT,
    TOKEN_NOT_PRESENT = CKR_TOKEN_NOT_PRESENT, TOKEN_NOT_RECOGNIZED = CKR_TOKEN_NOT_RECOGNIZED,
    TOKEN_WRITE_PROTECTED = CKR_TOKEN_WRITE_PROTECTED, UNWRAPPING_KEY_HANDLE_INVALID = CKR_UNWRAPPING_KEY_HANDLE_INVALID,
    UNWRAPPING_KEY_SIZE_RANGE = CKR_UNWRAPPING_KEY_SIZE_RANGE, UNWRAPPING_KEY_TYPE_INCONSISTENT = CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT,
    USER_ALREADY_LOGGED_IN = CKR_USER_ALREADY_LOGGED_IN, USER_NOT_LOGGED_IN = CKR_USER_NOT_LOGGED_IN,
    USER_PIN_NOT_INITIALIZED = CKR_USER_PIN_NOT_INITIALIZED, USER_TYPE_INVALID = CKR_USER_TYPE_INVALID,
    USER_ANOTHER_ALREADY_LOGGED_IN = CKR_USER_ANOTHER_ALREADY_LOGGED_IN, USER_TOO_MANY_TYPES = CKR_USER_TOO_MANY_TYPES,
    WRAPPED_KEY_INVALID = CKR_WRAPPED_KEY_INVALID, WRAPPED_KEY_LEN_RANGE = CKR_WRAPPED_KEY_LEN_RANGE,
    WRAPPING_KEY_HANDLE_INVALID = CKR_WRAPPING_KEY_HANDLE_INVALID, WRAPPING_KEY_SIZE_RANGE = CKR_WRAPPING_KEY_SIZE_RANGE,
    WRAPPING_KEY_TYPE_INCONSISTENT = CKR_WRAPPING_KEY_TYPE_INCONSISTENT, RANDOM_SEED_NOT_SUPPORTED = CKR_RANDOM_SEED_NOT_SUPPORTED,
    RANDOM_NO_RNG = CKR_RANDOM_NO_RNG, DOMAIN_PARAMS_INVALID = CKR_DOMAIN_PARAMS_INVALID, CURVE_NOT_SUPPORTED = CKR_CURVE_NOT_SUPPORTED,
    BUFFER_TOO_SMALL = CKR_BUFFER_TOO_SMALL, SAVED_STATE_INVALID = CKR_SAVED_STATE_INVALID,
    INFORMATION_SENSITIVE = CKR_INFORMATION_SENSITIVE, STATE_UNSAVEABLE = CKR_STATE_UNSAVEABLE,
    CRYPTOKI_NOT_INITIALIZED = CKR_CRYPTOKI_NOT_INITIALIZED, CRYPTOKI_ALREADY_INITIALIZED = CKR_CRYPTOKI_ALREADY_INITIALIZED,
    MUTEX_BAD = CKR_MUTEX_BAD, MUTEX_NOT_LOCKED = CKR_MUTEX_NOT_LOCKED, FUNCTION_REJECTED = CKR_FUNCTION_REJECTED,
    VENDOR_DEFINED = CKR_VENDOR_DEFINED,
}

impl Rv {
    /// Whether it is `CKR_OK`.
    #[must_use]
    pub const fn is_ok(self) -> bool {
        self.0 == Self::OK.0
    }
}

/// The text is neither the name of a return value nor a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no return value; write its name as in the standard, CKR_DEVICE_REMOVED for example, or a number such as 0x80000001")]
pub struct UnknownRv(String);

impl fmt::Display for Rv {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(rv, _)| rv == self) {
            Some((_, name)) => formatter.write_str(name),
            None => write!(formatter, "{:#010x}", self.0),
        }
    }
}

impl FromStr for Rv {
    type Err = UnknownRv;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = NAMES.iter().find(|(_, name)| *name == text).map(|(rv, _)| *rv);
        let numbered = || match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        named.or_else(|| numbered().ok().map(Self)).ok_or_else(|| UnknownRv(text.to_owned()))
    }
}

impl Serialize for Rv {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rv {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrNumber;
        impl de::Visitor<'_> for NameOrNumber {
            type Value = Rv;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a return value, CKR_DEVICE_REMOVED for example, or a number")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Rv, E> {
                Ok(Rv(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Rv, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(NameOrNumber).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_value_is_written_by_name_and_read_by_name_or_number() {
        assert_eq!(serde_json::to_string(&Rv::DEVICE_REMOVED).unwrap(), r#""CKR_DEVICE_REMOVED""#);
        for text in [r#""CKR_DEVICE_REMOVED""#, r#""0x32""#, "50"] {
            assert_eq!(serde_json::from_str::<Rv>(text).unwrap(), Rv::DEVICE_REMOVED, "{text}");
        }
    }

    #[test]
    fn a_vendors_return_value_is_written_as_a_number() {
        assert_eq!(Rv(0x8000_0005).to_string(), "0x80000005");
        assert_eq!("0x80000005".parse(), Ok(Rv(0x8000_0005)));
    }

    #[test]
    fn a_misspelt_return_value_is_an_error() {
        assert!(serde_json::from_str::<Rv>(r#""CKR_DEVICE_GONE""#).unwrap_err().to_string().contains("CKR_DEVICE_GONE"));
    }
}
