//! What this API takes out of a request: who asks, which ticket, and bodies as its clients send them.

use std::{fmt, future::Ready, future::ready, sync::Arc};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest, dev,
    web::{self, Payload},
};
use futures_util::future::LocalBoxFuture;
use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use zeroize::Zeroizing;

use super::{
    error::{AccessError, ApiError, BodyError, Operation},
    messages::Language,
};
use crate::{
    domain::{caller::Caller, ids::TicketId, pin::Pin},
    http::{
        app::AppState,
        extract::{Pace, read_whole},
    },
    ticket::TicketError,
};

/// Who asks, and in which language the answer is given; [`access`](super::access) finds out.
#[derive(Clone)]
pub(super) struct Asking {
    pub(super) caller: Arc<Caller>,
    pub(super) language: Language,
}

impl FromRequest for Asking {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        let asking = request.extensions().get::<Self>().cloned();
        ready(asking.ok_or_else(|| Operation::Other.error(AccessError::UnknownCaller)))
    }
}

/// The ticket in the path. One that is not written as a UUID cannot exist.
pub(super) struct TicketPath(pub(super) TicketId);

impl FromRequest for TicketPath {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        let id = request.match_info().get("uuid").and_then(|uuid| uuid.parse().ok());
        ready(id.map(Self).ok_or_else(|| Operation::Other.error(TicketError::Missing)))
    }
}

/// A whole body of limited length, whatever its content type. Wiped when it is dropped.
pub(super) struct Body(Zeroizing<Vec<u8>>);

impl FromRequest for Body {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let state = request.app_data::<web::Data<AppState>>().cloned();
        let payload = Payload::from_request(request, payload);
        Box::pin(async move {
            let broken = || Operation::Other.error(BodyError::NotJson);
            let (state, mut payload) = (state.ok_or_else(broken)?, payload.await.map_err(|_| broken())?);
            let settings = &state.settings;
            let pace = Pace::start(settings.body_idle_max, settings.body_total_max);
            let read = read_whole(&mut payload, settings.body_bytes_max, pace).await;
            read.map(Self).map_err(|error| Operation::Other.error(BodyError::from(error)))
        })
    }
}

impl Body {
    /// Reads a JSON object.
    pub(super) fn object<T: DeserializeOwned>(&self) -> Result<T, BodyError> {
        // `from_slice` alone would read a sequence into a structure, too.
        if self.0.trim_ascii_start().first() != Some(&b'{') {
            return Err(BodyError::NotJson);
        }
        serde_json::from_slice(&self.0).map_err(|_| BodyError::NotJson)
    }

    /// Reads a JSON object, or nothing: an empty body, `[]` and `null` say as much as `{}`.
    pub(super) fn object_or_nothing<T: DeserializeOwned + Default>(&self) -> Result<T, BodyError> {
        let nothing = self.0.trim_ascii().is_empty()
            || serde_json::from_slice::<[(); 0]>(&self.0).is_ok()
            || serde_json::from_slice::<()>(&self.0).is_ok();
        if nothing { Ok(T::default()) } else { self.object() }
    }
}

/// A `keyStorePassword` as it was sent: a string, or a number that is taken as its decimal digits.
#[derive(Default)]
pub(super) enum GivenPin {
    /// Not there, or `null`.
    #[default]
    Absent,
    /// This text.
    Text(SecretString),
    /// Something that cannot be a PIN.
    Wrong,
}

impl GivenPin {
    pub(super) fn into_pin(self) -> Result<Option<Pin>, BodyError> {
        match self {
            Self::Absent => Ok(None),
            Self::Text(text) if text.expose_secret().is_empty() => Err(BodyError::PinMissing),
            Self::Text(text) => Pin::new(text).map(Some).map_err(|_| BodyError::BadPin),
            Self::Wrong => Err(BodyError::BadPin),
        }
    }
}

impl<'de> Deserialize<'de> for GivenPin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PinVisitor)
    }
}

struct PinVisitor;

impl<'de> Visitor<'de> for PinVisitor {
    type Value = GivenPin;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a PIN")
    }

    fn visit_str<E>(self, text: &str) -> Result<GivenPin, E> {
        Ok(GivenPin::Text(SecretString::from(text)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<GivenPin, E> {
        Ok(GivenPin::Text(SecretString::from(number.to_string())))
    }

    fn visit_i64<E>(self, _: i64) -> Result<GivenPin, E> {
        Ok(GivenPin::Wrong)
    }

    fn visit_f64<E>(self, _: f64) -> Result<GivenPin, E> {
        Ok(GivenPin::Wrong)
    }

    fn visit_bool<E>(self, _: bool) -> Result<GivenPin, E> {
        Ok(GivenPin::Wrong)
    }

    fn visit_unit<E>(self) -> Result<GivenPin, E> {
        Ok(GivenPin::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<GivenPin, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(GivenPin::Wrong)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<GivenPin, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(GivenPin::Wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Deserialize)]
    struct Dto {
        #[serde(default)]
        pin: GivenPin,
    }

    fn pin(json: &str) -> Result<Option<String>, BodyError> {
        let dto: Dto = Body(Zeroizing::new(json.as_bytes().to_vec())).object_or_nothing()?;
        dto.pin.into_pin().map(|pin| pin.map(|pin| pin.reveal().to_owned()))
    }

    #[test]
    fn a_pin_is_a_string_or_the_digits_of_a_number() {
        assert_eq!(pin(r#"{"pin":"12 34"}"#), Ok(Some("12 34".to_owned())));
        assert_eq!(pin(r#"{"pin":123}"#), Ok(Some("123".to_owned())));
        assert_eq!(pin(r#"{"pin":0}"#), Ok(Some("0".to_owned())));
        assert_eq!(pin(r#"{"pin":""}"#), Err(BodyError::PinMissing));
        for absent in ["{}", r#"{"pin":null}"#, "", " \n", "[]", "[ ]", "null", r#"{"other":[1]}"#] {
            assert_eq!(pin(absent), Ok(None), "{absent}");
        }
        for wrong in ["1.5", "-1", "1e3", "18446744073709551616", "true", "[\"1\"]", "{\"a\":{}}", "\"a\\u0000\""] {
            assert_eq!(pin(&format!("{{\"pin\":{wrong}}}")), Err(BodyError::BadPin), "{wrong}");
        }
        for broken in ["{", "[1]", "12", "\"x\"", "{\"pin\":\"1\"} x", "pin=1"] {
            assert_eq!(pin(broken), Err(BodyError::NotJson), "{broken}");
        }
    }
}
