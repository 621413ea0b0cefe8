//! The two files in which development mode says what it has made.
//!
//! `token.json` stays: what the token and its keys are, for the next start. `dev.json` stands only while the gateway serves: everything that
//! a script or a test needs, the PIN and the API key among it. Its fields are a contract; later ones are added, none is renamed.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use super::layout::{Layout, write_private, write_public};
use crate::{
    auth::{ApiKey, Password},
    domain::{
        ids::{KeyName, OperatorName},
        key_uri::Pkcs11Uri,
        pin::Pin,
    },
};

/// What the token is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TokenRecord {
    /// Its URI.
    pub(super) uri: Pkcs11Uri,
    /// Its keys, in the order in which they were made.
    pub(super) keys: Vec<KeyRecord>,
}

/// A key on the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    /// Its name in the configuration.
    pub(super) name: KeyName,
    /// Its URI.
    pub(super) uri: Pkcs11Uri,
}

impl TokenRecord {
    /// Writes the record; from then on the token counts as made.
    pub(super) fn write(&self, layout: &Layout) -> anyhow::Result<()> {
        let json = serde_json::to_vec_pretty(self).context("the record of the token has no JSON form; report this as a bug")?;
        write_public(&layout.token_json(), &json)
    }

    /// Reads the record; `None` if no token was made whole yet.
    pub(super) fn read(layout: &Layout) -> anyhow::Result<Option<Self>> {
        let file = layout.token_json();
        if !file.exists() {
            return Ok(None);
        }
        let broken = || format!("{} cannot be read; remove {} to start afresh", file.display(), layout.dir().display());
        let json = std::fs::read(&file).with_context(broken)?;
        serde_json::from_slice(&json).map(Some).with_context(broken)
    }
}

/// `dev.json`.
#[derive(Serialize)]
pub(super) struct DevJson<'a> {
    pub(super) url: &'a str,
    #[serde(serialize_with = "exposed")]
    pub(super) api_key: &'a ApiKey,
    #[serde(serialize_with = "exposed")]
    pub(super) consent_api_key: &'a ApiKey,
    #[serde(serialize_with = "exposed")]
    pub(super) bank_token: &'a ApiKey,
    pub(super) operator_user: &'a OperatorName,
    #[serde(serialize_with = "told")]
    pub(super) operator_password: &'a Password,
    pub(super) ca_certificate: PathBuf,
    pub(super) module: &'a Path,
    pub(super) softhsm2_conf: PathBuf,
    pub(super) token_uri: &'a Pkcs11Uri,
    #[serde(serialize_with = "revealed")]
    pub(super) user_pin: &'a Pin,
    pub(super) keys: Vec<DevKey<'a>>,
    pub(super) config: PathBuf,
}

/// A key in `dev.json`.
#[derive(Serialize)]
pub(super) struct DevKey<'a> {
    pub(super) name: &'a KeyName,
    pub(super) uri: &'a Pkcs11Uri,
    pub(super) certificate: &'a Path,
}

impl DevJson<'_> {
    /// Writes the file, private and whole.
    pub(super) fn write(&self, layout: &Layout) -> anyhow::Result<()> {
        let json = serde_json::to_vec_pretty(self).context("dev.json has no JSON form; report this as a bug")?;
        write_private(&layout.dev_json(), &Zeroizing::new(json))
    }
}

fn exposed<S: Serializer>(secret: &ApiKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.reveal())
}

fn told<S: Serializer>(password: &Password, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(password.reveal())
}

fn revealed<S: Serializer>(pin: &Pin, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(pin.reveal())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_record_is_read_as_it_was_written_and_a_broken_one_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        assert_eq!(TokenRecord::read(&layout).unwrap(), None);
        let uri: Pkcs11Uri = "pkcs11:serial=0123;token=sealgate-dev".parse().unwrap();
        let record = TokenRecord { uri: uri.clone(), keys: vec![KeyRecord { name: "ec-p256".parse().unwrap(), uri }] };
        record.write(&layout).unwrap();
        assert_eq!(TokenRecord::read(&layout).unwrap(), Some(record));
        std::fs::write(layout.token_json(), "{").unwrap();
        assert!(TokenRecord::read(&layout).unwrap_err().to_string().contains("start afresh"));
    }

    #[test]
    fn dev_json_has_the_fields_of_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        let uri: Pkcs11Uri = "pkcs11:token=sealgate-dev".parse().unwrap();
        let name: KeyName = "ec-p256".parse().unwrap();
        let api_key = crate::auth::generate_api_key().unwrap();
        let certificate = layout.certificate("ec-p256");
        let json = DevJson {
            url: "http://127.0.0.1:9091",
            api_key: &api_key,
            consent_api_key: &api_key,
            bank_token: &api_key,
            operator_user: &"dev".parse().unwrap(),
            operator_password: &Password::generate().unwrap(),
            ca_certificate: layout.certificate("ca"),
            module: Path::new("/usr/lib/softhsm/libsofthsm2.so"),
            softhsm2_conf: layout.softhsm2_conf(),
            token_uri: &uri,
            user_pin: &Pin::new("1234".to_owned()).unwrap(),
            keys: vec![DevKey { name: &name, uri: &uri, certificate: &certificate }],
            config: layout.config(),
        };
        json.write(&layout).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(layout.dev_json()).unwrap()).unwrap();
        let mut fields: Vec<&str> = read.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        let wanted = "api_key bank_token ca_certificate config consent_api_key keys module operator_password operator_user softhsm2_conf token_uri url user_pin";
        assert_eq!(fields.join(" "), wanted);
        assert_eq!(read["api_key"], api_key.reveal());
        assert_eq!(read["user_pin"], "1234");
        assert_eq!(read["keys"][0]["certificate"], layout.certificate("ec-p256").to_str().unwrap());
    }
}
