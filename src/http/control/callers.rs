//! Operators' calls about callers.
//!
//! | call, with the JSON it takes | does | answers |
//! |---|---|---|
//! | `GET /callers` | lists all callers, those of the configuration first | [`CallersDto`] |
//! | `GET /callers/{name}` | shows one | [`CallerDto`] |
//! | `POST /callers`, [`AddCallerDto`] | adds one | [`IssuedDto`] |
//! | `POST /callers/{name}/rotate`, [`RotateDto`] | gives it a new API key | [`IssuedDto`] |
//! | `POST /callers/{name}/revoke` | ends it at once and for good | [`DoneDto`] |
//! | `POST /callers/{name}/remove` | removes it | [`DoneDto`] |

use std::{collections::BTreeMap, fmt, time::Duration};

use actix_web::{
    HttpResponse,
    web::{Data, Path, Payload},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{dto::wiped, error::ControlError, json, local_user::LocalUser, read};
use crate::{
    auth::{ApiKey, CallerBook, ListedCaller},
    domain::{
        caller::{Account, ConsentPolicy, KeyAccess, Rate, Scopes},
        certificate::ClientCertificateId,
        ids::{CallerId, KeyName},
        stored_caller::{CallerState, NewCaller},
        timestamp::Timestamp,
    },
};

/// A caller. No API key stands in it, nor a hash of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerDto {
    /// Its name.
    pub name: CallerId,
    /// Whether it is one of the configuration's, which is changed there.
    pub configured: bool,
    /// Whether it can come in.
    pub state: CallerState,
    /// Why this gateway does not know it although it could.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<String>,
    /// The keys that it may use.
    pub keys: KeyAccess,
    /// The key that it signs with when it names none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub default_key: Option<KeyName>,
    /// Who decides about its signatures.
    pub consent: ConsentPolicy,
    /// Who decides about those with these keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub consent_for: BTreeMap<KeyName, ConsentPolicy>,
    /// The APIs that it may use.
    pub scopes: Scopes,
    /// For whom it acts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub account: Option<Account>,
    /// How much it may ask for, where that is not what all callers may.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<Rate>,
    /// Its API keys, oldest first.
    pub api_keys: Vec<KeyDto>,
    /// The TLS client certificate that it is known by.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client_certificate: Option<ClientCertificateId>,
    /// Where its web pages may come from.
    pub origins: Vec<String>,
    /// When it was added, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub added: Option<Timestamp>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revoked: Option<Timestamp>,
}

/// What is known of an API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDto {
    /// When it was made, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub made: Option<Timestamp>,
    /// From when on it is good no more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<Timestamp>,
}

/// All callers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallersDto {
    /// Those of the configuration first.
    pub callers: Vec<CallerDto>,
}

/// A caller to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddCallerDto {
    /// The caller.
    pub caller: NewCaller,
}

/// A new API key, please.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateDto {
    /// How long the old ones stay good, in milliseconds.
    pub grace: u64,
    /// When the new one ends.
    pub expires: Option<Timestamp>,
}

/// It was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneDto {}

/// An API key that was made, which nobody can find out later.
#[derive(Debug, Serialize, Deserialize)]
pub struct IssuedDto {
    /// The key; absent where the caller has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub api_key: Option<ApiKeyText>,
}

/// An API key in clear, on its way to whoever is to use it. `Debug` shows nothing; the memory is wiped when it is dropped.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApiKeyText(#[serde(with = "wiped")] Zeroizing<String>);

impl ApiKeyText {
    /// The key in clear.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<ApiKey> for ApiKeyText {
    fn from(key: ApiKey) -> Self {
        Self(Zeroizing::new(key.reveal().to_owned()))
    }
}

impl fmt::Debug for ApiKeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyText(…)")
    }
}

impl CallerDto {
    /// The caller as it is at `now`.
    #[must_use]
    pub fn of(listed: ListedCaller, now: Timestamp) -> Self {
        let ListedCaller { caller, configured, problem } = listed;
        let stored = |time: Timestamp| (!configured).then_some(time);
        Self {
            configured,
            problem,
            state: caller.state(now),
            api_keys: caller.api_keys.iter().map(|key| KeyDto { made: stored(key.made), expires: key.expires }).collect(),
            added: stored(caller.added),
            revoked: caller.revoked,
            name: caller.id,
            keys: caller.keys,
            default_key: caller.default_key,
            consent: caller.consent,
            consent_for: caller.consent_for,
            scopes: caller.scopes,
            account: caller.account,
            rate: caller.rate,
            client_certificate: caller.client_certificate,
            origins: caller.origins,
        }
    }
}

pub(super) async fn list(book: Data<CallerBook>) -> Result<HttpResponse, ControlError> {
    let listed = book.list().await?;
    let now = Timestamp::from(std::time::SystemTime::now());
    Ok(json(&CallersDto { callers: listed.into_iter().map(|caller| CallerDto::of(caller, now)).collect() }))
}

pub(super) async fn show(book: Data<CallerBook>, name: Path<String>) -> Result<HttpResponse, ControlError> {
    let listed = book.find(&id_of(&name)?).await?;
    Ok(json(&CallerDto::of(listed, Timestamp::from(std::time::SystemTime::now()))))
}

pub(super) async fn add(book: Data<CallerBook>, user: LocalUser, body: Payload) -> Result<HttpResponse, ControlError> {
    let AddCallerDto { caller } = read(body).await?;
    let api_key = book.add(caller, &user.who()).await?.map(ApiKeyText::from);
    Ok(json(&IssuedDto { api_key }))
}

pub(super) async fn rotate(
    book: Data<CallerBook>,
    user: LocalUser,
    name: Path<String>,
    body: Payload,
) -> Result<HttpResponse, ControlError> {
    let RotateDto { grace, expires } = read(body).await?;
    let api_key = book.rotate(&id_of(&name)?, Duration::from_millis(grace), expires, &user.who()).await?;
    Ok(json(&IssuedDto { api_key: Some(api_key.into()) }))
}

pub(super) async fn revoke(book: Data<CallerBook>, user: LocalUser, name: Path<String>) -> Result<HttpResponse, ControlError> {
    book.revoke(&id_of(&name)?, &user.who()).await?;
    Ok(json(&DoneDto {}))
}

pub(super) async fn remove(book: Data<CallerBook>, user: LocalUser, name: Path<String>) -> Result<HttpResponse, ControlError> {
    book.remove(&id_of(&name)?, &user.who()).await?;
    Ok(json(&DoneDto {}))
}

fn id_of(text: &str) -> Result<CallerId, ControlError> {
    text.parse().map_err(|_| ControlError::UnknownCaller)
}
