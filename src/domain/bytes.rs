//! How byte strings are serialised: Base64 in text formats, plain in binary ones.
//!
//! For `#[serde(with = "…")]`: this module for one byte string, [`list`] for several.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Serialises a byte string.
///
/// # Errors
/// Those of the format.
pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() { serializer.serialize_str(&STANDARD.encode(bytes)) } else { serializer.serialize_bytes(bytes) }
}

/// Deserialises a byte string.
///
/// # Errors
/// Those of the format, and text that is not Base64.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    if deserializer.is_human_readable() {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    } else {
        Vec::deserialize(deserializer)
    }
}

/// A list of byte strings.
pub mod list {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Item(#[serde(with = "super")] Vec<u8>);

    /// Serialises a list of byte strings.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(list: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|bytes| Item(bytes.clone())))
    }

    /// Deserialises a list of byte strings.
    ///
    /// # Errors
    /// Those of the format.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
        Ok(Vec::<Item>::deserialize(deserializer)?.into_iter().map(|Item(bytes)| bytes).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Both {
        #[serde(with = "super")]
        one: Vec<u8>,
        #[serde(with = "super::list")]
        many: Vec<Vec<u8>>,
    }

    #[test]
    fn bytes_are_base64_in_text_and_themselves_in_binary() {
        let both = Both { one: vec![0, 255], many: vec![vec![1], Vec::new()] };
        let text = serde_json::to_string(&both).unwrap();
        assert_eq!(text, r#"{"one":"AP8=","many":["AQ==",""]}"#);
        assert_eq!(serde_json::from_str::<Both>(&text).unwrap(), both);
        let binary = postcard::to_stdvec(&both).unwrap();
        assert_eq!(binary, [2, 0, 255, 2, 1, 1, 0]);
        assert_eq!(postcard::from_bytes::<Both>(&binary).unwrap(), both);
    }
}
