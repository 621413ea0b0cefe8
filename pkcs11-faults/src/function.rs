//! The functions of PKCS#11 2.40, by the standard's names, and sets of them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Calls a macro with the names of all functions, in the order of `CK_FUNCTION_LIST`.
macro_rules! for_each_function {
    ($callback:ident) => {
        $callback! {
            C_Initialize, C_Finalize, C_GetInfo, C_GetFunctionList, C_GetSlotList, C_GetSlotInfo, C_GetTokenInfo, C_GetMechanismList,
            C_GetMechanismInfo, C_InitToken, C_InitPIN, C_SetPIN, C_OpenSession, C_CloseSession, C_CloseAllSessions, C_GetSessionInfo,
            C_GetOperationState, C_SetOperationState, C_Login, C_Logout, C_CreateObject, C_CopyObject, C_DestroyObject, C_GetObjectSize,
            C_GetAttributeValue, C_SetAttributeValue, C_FindObjectsInit, C_FindObjects, C_FindObjectsFinal, C_EncryptInit, C_Encrypt,
            C_EncryptUpdate, C_EncryptFinal, C_DecryptInit, C_Decrypt, C_DecryptUpdate, C_DecryptFinal, C_DigestInit, C_Digest,
            C_DigestUpdate, C_DigestKey, C_DigestFinal, C_SignInit, C_Sign, C_SignUpdate, C_SignFinal, C_SignRecoverInit, C_SignRecover,
            C_VerifyInit, C_Verify, C_VerifyUpdate, C_VerifyFinal, C_VerifyRecoverInit, C_VerifyRecover, C_DigestEncryptUpdate,
            C_DecryptDigestUpdate, C_SignEncryptUpdate, C_DecryptVerifyUpdate, C_GenerateKey, C_GenerateKeyPair, C_WrapKey, C_UnwrapKey,
            C_DeriveKey, C_SeedRandom, C_GenerateRandom, C_GetFunctionStatus, C_CancelFunction, C_WaitForSlotEvent
        }
    };
}
pub(crate) use for_each_function;

macro_rules! define_functions {
    ($($name:ident),*) => {
        /// A function of PKCS#11 2.40.
        #[allow(non_camel_case_types, missing_docs)] // The standard's names, each of which the standard documents.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Function {
            $($name),*
        }

        impl Function {
            /// All functions, in the order of `CK_FUNCTION_LIST`.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The function's name, `C_Sign` for example.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name)),*
                }
            }
        }
    };
}
for_each_function!(define_functions);

/// The text is not the name of a function of PKCS#11 2.40.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a function of PKCS#11 2.40; write it as in the standard, C_Sign for example")]
pub struct UnknownFunction(String);

impl fmt::Display for Function {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Function {
    type Err = UnknownFunction;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|function| function.name() == text).ok_or_else(|| UnknownFunction(text.to_owned()))
    }
}

impl Serialize for Function {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Function {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A set of functions. In JSON: a list of names, or `"any"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FunctionSet(u128);

impl FunctionSet {
    /// What `"any"` means: all but `C_GetFunctionList`, `C_Initialize` and `C_Finalize`, so that "every call fails until the module is
    /// initialised again" can be said shortly.
    #[must_use]
    pub fn any() -> Self {
        let spared = [Function::C_GetFunctionList, Function::C_Initialize, Function::C_Finalize];
        Function::ALL.iter().copied().filter(|function| !spared.contains(function)).collect()
    }

    /// Whether the function is one of the set.
    #[must_use]
    pub const fn contains(self, function: Function) -> bool {
        self.0 & Self::bit(function) != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The functions, in the order of `CK_FUNCTION_LIST`.
    pub fn iter(self) -> impl Iterator<Item = Function> {
        Function::ALL.iter().copied().filter(move |function| self.contains(*function))
    }

    const fn bit(function: Function) -> u128 {
        1 << function as u32
    }
}

impl FromIterator<Function> for FunctionSet {
    fn from_iter<I: IntoIterator<Item = Function>>(functions: I) -> Self {
        Self(functions.into_iter().fold(0, |set, function| set | Self::bit(function)))
    }
}

impl From<Function> for FunctionSet {
    fn from(function: Function) -> Self {
        Self(Self::bit(function))
    }
}

impl<const N: usize> From<[Function; N]> for FunctionSet {
    fn from(functions: [Function; N]) -> Self {
        functions.into_iter().collect()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Any(Any),
    One(Function),
    Several(Vec<Function>),
}

#[derive(Serialize, Deserialize)]
enum Any {
    #[serde(rename = "any")]
    Any,
}

impl Serialize for FunctionSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = if *self == Self::any() { Written::Any(Any::Any) } else { Written::Several(self.iter().collect()) };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FunctionSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wanted = "the name of a PKCS#11 2.40 function, a list of them, or \"any\"";
        match Written::deserialize(deserializer).map_err(|_| D::Error::custom(wanted))? {
            Written::Any(Any::Any) => Ok(Self::any()),
            Written::One(function) => Ok(function.into()),
            Written::Several(functions) => Ok(functions.into_iter().collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_functions_of_the_standard_are_known_and_fit_into_a_set() {
        assert_eq!(Function::ALL.len(), 68);
        assert_eq!(Function::ALL.iter().copied().collect::<FunctionSet>().iter().count(), 68);
    }

    #[test]
    fn a_set_is_written_as_names_and_read_back() {
        let set = FunctionSet::from([Function::C_Sign, Function::C_Login]);
        let text = serde_json::to_string(&set).unwrap();
        assert_eq!(text, r#"["C_Login","C_Sign"]"#);
        assert_eq!(serde_json::from_str::<FunctionSet>(&text).unwrap(), set);
        assert_eq!(serde_json::from_str::<FunctionSet>(r#""C_Sign""#).unwrap(), Function::C_Sign.into());
    }

    #[test]
    fn any_spares_what_begins_and_ends_the_use_of_a_module() {
        let any: FunctionSet = serde_json::from_str(r#""any""#).unwrap();
        assert_eq!(any.iter().count(), 65);
        assert!(!any.contains(Function::C_Initialize) && any.contains(Function::C_Sign));
        assert_eq!(serde_json::to_string(&any).unwrap(), r#""any""#);
    }

    #[test]
    fn a_misspelt_function_is_an_error_that_says_what_is_wanted() {
        let error = serde_json::from_str::<FunctionSet>(r#"["C_Sing"]"#).unwrap_err().to_string();
        assert!(error.contains("PKCS#11 2.40 function"), "{error}");
        assert!("Sign".parse::<Function>().is_err());
    }
}
