//! The configuration of development mode: an ordinary one, written at each start, that `sealgate serve` would take as well.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use aws_lc_rs::{
    digest::{self, SHA256},
    rand::{SecureRandom as _, SystemRandom},
};
use toml::Value;
use zeroize::Zeroizing;

use super::{
    layout::{Layout, write_private},
    record::TokenRecord,
};
use crate::{auth::ApiKey, domain::pin::Pin};

/// The key that the caller of development mode signs with when it names none.
pub(in crate::cli) const DEFAULT_KEY: &str = "ec-p256";

/// The key that signs the checkpoints of development mode's audit log: not the one that most signatures are made with.
const CHECKPOINT_KEY: &str = "rsa-2048";

/// The key of development mode's time-stamping authority. Nobody signs documents with it, so it is not among those of `dev.json`.
pub(super) const TSA_KEY: &str = "tsa-p256";

/// The policy under which it makes time stamps: the one that examples of OpenSSL have.
const TSA_POLICY: &str = "1.2.3.4.1";
/// What the client of the certificate-request API may do, and for whom.
const BANK_SCOPES: &str = r#"["CRYPTO_CERT_REQUEST_EIO", "CERTIFICATE_REQUEST", "GET_CRYPTO_INFO_EIO", "GET_CRYPTO_INFO"]"#;
const BANK_ACCOUNT: &str = r#"{ login = "dev", full_name = "Иванов Иван Иванович", organisation = "Sealgate development", eio = true }"#;

/// Digits of a PIN.
const PIN_DIGITS: usize = 8;

/// What the configuration is written from.
pub(super) struct DevSettings<'a> {
    pub(super) layout: &'a Layout,
    pub(super) listen: SocketAddr,
    pub(super) module: &'a Path,
    pub(super) token: &'a TokenRecord,
    pub(super) api_key: &'a ApiKey,
    pub(super) bank_token: &'a ApiKey,
    pub(super) consent_api_key: &'a ApiKey,
}

impl DevSettings<'_> {
    /// Writes the configuration.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        write_private(&self.layout.config(), self.render().as_bytes())
    }

    fn render(&self) -> String {
        let Self { layout, listen, module, token, .. } = self;
        let quoted_path = |path: &Path| quoted(&path.display().to_string());
        let sha256 = |key: &ApiKey| hex::encode(digest::digest(&SHA256, key.reveal().as_bytes()));
        let (api_key_sha256, bank_sha256) = (sha256(self.api_key), sha256(self.bank_token));
        let consent_sha256 = sha256(self.consent_api_key);
        let mut text = format!(
            "# Written by `sealgate dev` at each start; what is changed here is lost. Copy it to begin a configuration of your own.\n\
             development = true\n\
             data_dir = {data_dir}\n\n\
             [[listener]]\naddress = \"{listen}\"\n\n\
             [[module]]\nname = \"softhsm\"\npath = {path}\nenv = {{ SOFTHSM2_CONF = {conf} }}\n\n\
             [[token]]\nuri = {uri}\nlogin = \"configured\"\npin = {{ file = {pin} }}\n\n\
             [[caller]]\nname = \"dev\"\napi_key_sha256 = \"{api_key_sha256}\"\ndefault_key = \"{DEFAULT_KEY}\"\nconsent = \"auto\"\n\n\
             [[caller]]\nname = \"bank\"\napi_key_sha256 = \"{bank_sha256}\"\nscopes = {BANK_SCOPES}\naccount = {BANK_ACCOUNT}\n\n\
             [[caller]]\nname = \"consent\"\napi_key_sha256 = \"{consent_sha256}\"\ndefault_key = \"{DEFAULT_KEY}\"\nconsent = \"operator\"\n",
            data_dir = quoted_path(layout.dir()),
            path = quoted_path(module),
            conf = quoted_path(&layout.softhsm2_conf()),
            uri = quoted(&token.uri.to_string()),
            pin = quoted_path(&layout.pin()),
        );
        // Writing to a string cannot fail, here and below.
        if token.keys.iter().any(|key| key.name.as_str() == CHECKPOINT_KEY) {
            let _ = write!(text, "\n[audit]\ncheckpoint_key = \"{CHECKPOINT_KEY}\"\n");
        }
        if token.keys.iter().any(|key| key.name.as_str() == TSA_KEY) {
            let _ = write!(text, "\n[tsa.serve]\nkey = \"{TSA_KEY}\"\npolicy = \"{TSA_POLICY}\"\n");
        }
        let (issuer, crl) = (quoted_path(&layout.certificate("ca")), quoted_path(&layout.crl()));
        let _ = write!(text, "\n[[revocation.source]]\nissuer = {issuer}\ncrl_file = {crl}\n");
        let chain = quoted_path(&layout.certificate("ca"));
        let _ = write!(text, "\n[trust]\nanchors = [{chain}]\n");
        for key in &token.keys {
            let uri = quoted(&key.uri.to_string());
            let _ = write!(text, "\n[[key]]\nname = \"{}\"\nuri = {uri}\nchain = [{chain}]\n", key.name);
        }
        // Keys with certificates that are asked for stand on the same token, and the CA that certified the others certifies them at once.
        let _ = write!(
            text,
            "\n[enrolment]\ndev_ca = {{ key = {ca_key}, certificate = {chain} }}\n\n\
             [[enrolment.profile]]\nname = \"dev\"\ntoken = {uri}\nca = \"dev\"\napproval = \"auto\"\nemail = true\nanchors = [{chain}]\n\
             subject = [\"CN={{full_name}}\", \"T={{position}}\", \"O={{organisation}}\"]\n",
            ca_key = quoted_path(&layout.ca_key()),
            uri = quoted(&token.uri.to_string()),
        );
        text
    }
}

/// `text` as a TOML string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A new PIN.
pub(super) fn new_pin() -> anyhow::Result<Pin> {
    let mut bytes = Zeroizing::new([0; PIN_DIGITS]);
    let filled = SystemRandom::new().fill(bytes.as_mut_slice());
    filled.map_err(|_| anyhow::anyhow!("the system has no random numbers; try again later"))?;
    // 256 is no multiple of 10, so the digits 0 to 5 are a little more frequent: of no account for a PIN that stands in a file beside the token.
    Ok(Pin::new(bytes.iter().map(|byte| char::from(b'0' + byte % 10)).collect::<String>())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::generate_api_key, cli::dev::record::KeyRecord, config::Config};

    #[test]
    fn the_configuration_of_development_mode_is_a_sound_one_and_does_not_hold_the_api_key() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(&dir.path().join("a \"quoted\" folder")).unwrap();
        let _lock = layout.claim().unwrap();
        layout.make_folders().unwrap();
        write_private(&layout.pin(), b"1234\n").unwrap();
        std::fs::write(layout.certificate("ca"), include_str!("testdata/ca.pem")).unwrap();
        let module = dir.path().join("libsofthsm2.so");
        std::fs::write(&module, "").unwrap();
        let uri = |text: &str| text.parse().unwrap();
        let keys = vec![KeyRecord { name: "ec-p256".parse().unwrap(), uri: uri("pkcs11:token=a%20b;id=%02;type=private") }];
        let token = TokenRecord { uri: uri("pkcs11:token=a%20b"), keys };
        let [api_key, bank_token, consent_api_key] = [(); 3].map(|()| generate_api_key().unwrap());
        let settings = DevSettings {
            layout: &layout,
            listen: "127.0.0.1:0".parse().unwrap(),
            module: &module,
            token: &token,
            api_key: &api_key,
            bank_token: &bank_token,
            consent_api_key: &consent_api_key,
        };
        settings.write().unwrap();
        let config = Config::load(&layout.config()).unwrap();
        assert_eq!(config.data_dir, layout.dir());
        assert_eq!(config.keys[0].uri, token.keys[0].uri);
        assert_eq!(config.callers[0].caller.default_key.as_ref().unwrap().as_str(), DEFAULT_KEY);
        let text = std::fs::read_to_string(layout.config()).unwrap();
        assert!([&api_key, &bank_token, &consent_api_key].iter().all(|key| !text.contains(key.reveal())));
        assert!(config.callers[1].caller.account.as_ref().is_some_and(|account| account.eio));
    }

    #[test]
    fn pins_differ_each_time() {
        assert_ne!(new_pin().unwrap().reveal(), new_pin().unwrap().reveal());
        assert_eq!(new_pin().unwrap().reveal().len(), PIN_DIGITS);
    }
}
