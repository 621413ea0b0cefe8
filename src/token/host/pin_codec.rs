//! How a PIN crosses the process boundary: as text in a frame, whose buffers are wiped on both sides.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

use crate::domain::pin::Pin;

/// For a `Pin`.
pub mod required {
    use super::{Deserialize, Deserializer, Error, Pin, Serializer};

    /// Writes the PIN in clear, for a frame.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(pin: &Pin, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(pin.reveal())
    }

    /// Reads a PIN from a frame.
    ///
    /// # Errors
    /// The text is no PIN; the message does not repeat it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pin, D::Error> {
        Pin::new(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// For an `Option<Pin>`.
pub mod optional {
    use super::{Deserialize, Deserializer, Error, Pin, Serializer};

    /// Writes the PIN in clear, for a frame.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(pin: &Option<Pin>, serializer: S) -> Result<S::Ok, S::Error> {
        match pin {
            Some(pin) => serializer.serialize_some(pin.reveal()),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a PIN from a frame.
    ///
    /// # Errors
    /// The text is no PIN; the message does not repeat it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Pin>, D::Error> {
        Option::<String>::deserialize(deserializer)?.map(Pin::new).transpose().map_err(D::Error::custom)
    }
}
