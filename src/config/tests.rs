//! What configuration files are taken, what is said about those that are not, and what is never said.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::domain::{
    algorithm::KeyKind,
    caller::{ConsentPolicy, KeyAccess, Rate, Scope, Scopes},
    certificate::ClientCertificateId,
    enrolment::profile::{CaChoice, Centre},
    fence::FileFence,
    notice::NoticeKind,
    revocation::RevocationCheck,
    token::{LoginMode, PinSource},
};

/// A folder with the files that a configuration may name.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("module.so"), b"not really").unwrap();
        fs::write(dir.path().join("ca.pem"), include_str!("../cli/dev/testdata/ca.pem")).unwrap();
        let folder = Self(dir);
        folder.write_pin(0o600);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write_pin(&self, mode: u32) {
        fs::write(self.path("pin"), "1234\n").unwrap();
        fs::set_permissions(self.path("pin"), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self, text: &str) -> Result<Config, String> {
        let file = self.path("sealgate.toml");
        fs::write(&file, text).unwrap();
        Config::load(&file).map_err(|error| error.to_string())
    }

    fn errors(&self, text: &str) -> String {
        self.load(text).unwrap_err()
    }
}

const SMALLEST: &str = r#"
data_dir = "data"
[[module]]
name = "soft"
path = "module.so"
[[caller]]
name = "erp"
api_key_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
"#;

#[test]
fn the_smallest_file_gets_every_default() {
    let folder = Folder::new();
    let config = folder.load(SMALLEST).unwrap();
    assert_eq!(config.data_dir, folder.path("data"));
    assert_eq!(config.modules[0].path, folder.path("module.so"));
    assert_eq!(config.modules[0].isolation, Isolation::Process);
    assert!(config.modules[0].os_locking);
    assert_eq!(config.listeners, [Listener { address: "127.0.0.1:9091".parse().unwrap(), caller: None, tls: None }]);
    let unlisted = config.unlisted.unwrap();
    assert_eq!((unlisted.login, unlisted.queue_bound), (LoginMode::PerRequest, 1024));
    assert!(unlisted.uri == "pkcs11:".parse().unwrap());
    assert_eq!(config.callers[0].caller.keys, KeyAccess::All);
    assert_eq!((config.callers[0].caller.scopes, &config.callers[0].caller.account), (Scopes::default(), &None));
    assert_eq!(config.ticket_api.job_deadline.as_secs(), 300);
    assert_eq!(config.ticket_api.absent_grace.as_secs(), 60);
    assert_eq!(config.permit.lifetime.as_secs(), 15 * 60);
    assert_eq!(config.permit.decision_time.as_secs(), 120);
    assert_eq!(config.callers[0].caller.consent, ConsentPolicy::Operator.into());
}

#[test]
fn a_full_file_is_read_as_written() {
    let folder = Folder::new();
    let config = folder.load(&format!("development = true\n{SMALLEST}{}", include_str!("tests_full.toml"))).unwrap();
    assert_eq!(config.listeners.len(), 2);
    assert_eq!(config.listeners[0].caller.as_ref().unwrap().as_str(), "kiosk");
    assert_eq!(config.modules[1].isolation, Isolation::Thread);
    assert_eq!(config.modules[2].env["SOFTHSM2_CONF"], EnvValue("/etc/softhsm2.conf".to_owned()));
    assert_eq!(config.token_policies[0].pin, Some(PinSource::File(folder.path("pin"))));
    assert_eq!(config.token_policies[1].pin, Some(PinSource::Credential("hsm-pin".to_owned())));
    assert_eq!(config.unlisted, None);
    assert_eq!(config.keys[0].algorithm.unwrap().to_string(), "rsa-pss-sha256");
    assert_eq!(config.callers[1].caller.default_key.as_ref().unwrap().as_str(), "seal");
    assert_eq!(config.callers[1].origins, ["https://example.org:8443"]);
    let consent = &config.callers[1].caller.consent;
    assert_eq!((consent.policy, consent.with_key(Some(&config.keys[0].name))), (ConsentPolicy::TwoOperators, ConsentPolicy::Operator));
    let permit = &config.permit;
    assert_eq!((permit.decision_time.as_secs(), permit.waiting_per_caller, permit.live_per_caller), (30, 7, 70));
    let bank = &config.callers[2].caller;
    assert_eq!(bank.scopes.iter().collect::<Vec<_>>(), [Scope::CscApi, Scope::CryptoCertRequestEio, Scope::GetCryptoInfoEio]);
    assert_eq!(bank.rate, Some(Rate { per_second: 10, burst: 20 }));
    assert!(bank.account.as_ref().is_some_and(|account| account.eio && account.login.as_str() == "ivanov"));
    assert_eq!(config.ticket_api.language, Language::English);
    assert_eq!(config.http.workers, Some(2));
    assert_eq!(config.http.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "127.0.0.1/32"]);
    let limits = &config.limits;
    assert_eq!((limits.caller, limits.address, limits.this_machine), ((200, 1000), (0, 10_000), true));
    assert_eq!((limits.held_open_per_caller, limits.body.as_secs(), limits.upload.as_secs()), (64, 60, 120));
    assert_eq!(config.audit.checkpoint_key.unwrap().as_str(), "seal");
    assert_eq!(config.audit.checkpoint_interval.as_secs(), 60);
    assert_eq!((config.console.idle_max.as_secs(), config.console.session_max.as_secs()), (600, 8 * 3600));
    assert!(config.console.enabled && config.console.insecure_http);
    assert_eq!(config.metrics.listen, Some("192.0.2.1:9464".parse().unwrap()));
    assert_eq!(config.metrics.allow.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.7/32", "2001:db8::/32"]);
    assert_eq!(config.trust.anchors, [folder.path("trust/anchors"), "/etc/sealgate/ca.pem".into()]);
    assert_eq!(config.trust.intermediates, [folder.path("trust/intermediates")]);
    assert!(config.open_browser);
    assert_eq!(config.webhooks[0].events, [NoticeKind::PinNeeded, NoticeKind::TokenGone]);
    assert_eq!(config.log_format, LogFormat::Json);
    check_enrolment(&config.enrolment);
    assert_eq!((config.tsa.urls.len(), config.tsa.timeout.as_secs(), config.tsa.total.as_secs(), config.tsa.queue), (2, 5, 20, 16));
    assert_eq!((config.revocation.timeout.as_secs(), config.revocation.crl_max), (3, 1_000_000));
    assert_eq!((config.revocation.check, config.revocation.fetch), (RevocationCheck::Required, false));
    let serve = config.tsa.serve.unwrap();
    assert_eq!((serve.key.as_str(), serve.policy.to_string().as_str(), serve.accuracy_seconds), ("seal", "1.2.3.4.1", 2));
}

fn check_enrolment(enrolment: &EnrolmentSettings) {
    assert_eq!((enrolment.profiles.len(), enrolment.renew_days), (1, Some(20)));
    let profile = &enrolment.profiles[0];
    assert_eq!((profile.name.as_str(), &profile.key_kind), ("bank", &KeyKind::Rsa { modulus_bits: 3072 }));
    assert_eq!((profile.ca, profile.approval, profile.confirm, profile.email), (CaChoice::Est, false, true, true));
    assert_eq!((profile.subject.len(), profile.extensions.len(), profile.anchors.len()), (3, 1, 1));
    assert_eq!(profile.centre, Centre::new("A00B".to_owned(), "0001".to_owned()));
    let est = enrolment.est.as_ref().unwrap();
    assert!(matches!(&est.credentials, EstCredentials::Password(user, _) if user == "gateway"));
    assert_eq!((est.url.as_str(), est.anchors.len()), ("https://ca.example.org/.well-known/est", 1));
}

#[test]
fn every_mistake_of_a_profile_is_told_with_its_field() {
    let profile = "[[enrolment.profile]]\nname = \"a b\"\ntoken = \"pkcs11:id=%01\"\nkey_type = \"GOST\"\nkey_name = \"{name}\"\n\
                   subject = [\"XX=1\"]\nkey_usage = [\"signing\"]\ncentre_code = \"x\"\nca = \"est\"\napproval = \"no\"\n\
                   extensions = [{ oid = \"x\", der = \"zz\" }]\n[enrolment.est]\nurl = \"http://ca\"\n";
    let errors = Folder::new().errors(&format!("{SMALLEST}{profile}"));
    for field in ["name", "token", "key_type", "key_name", "subject", "key_usage", "ca", "approval", "extensions", "anchors"] {
        assert!(errors.contains(&format!("profile[1].{field}")), "{field} is not in {errors}");
    }
    assert!(errors.contains("centre_code"), "{errors}");
    assert!(errors.contains("est.url") && errors.contains("est.ca") && errors.contains("`user` and `password`"), "{errors}");
}

#[test]
fn a_ca_that_certifies_whoever_asks_is_for_development_only() {
    let folder = Folder::new();
    let section = "[enrolment]\ndev_ca = { key = \"ca.key\", certificate = \"ca.pem\" }\n";
    let errors = folder.errors(&format!("{SMALLEST}{section}"));
    assert!(errors.contains("`enrolment.dev_ca`") && errors.contains("`development = true`"), "{errors}");
    assert!(folder.errors(&format!("development = false\n{SMALLEST}{section}")).contains("dev_ca"));
    assert!(folder.load(&format!("development = true\n{SMALLEST}{section}")).unwrap().enrolment.dev_ca.is_some());
}

#[test]
fn whoever_shows_no_credentials_of_its_own_is_asked_about_by_an_operator() {
    let folder = Folder::new();
    for (credentials, consent) in [
        ("origins = [\"https://page.example\"]", "consent = \"auto\""),
        ("origins = [\"https://page.example\"]", "consent_for = { seal = \"auto\" }"),
        ("", "consent = \"auto\"\n[[listener]]\naddress = \"127.0.0.1:0\"\ncaller = \"page\""),
    ] {
        let key = "[[key]]\nname = \"seal\"\nuri = \"pkcs11:token=a;object=b\"\n";
        let errors = folder.errors(&format!("{SMALLEST}{key}[[caller]]\nname = \"page\"\n{credentials}\n{consent}\n"));
        assert!(errors.contains("1 mistake") && errors.contains("cannot have policy `auto`"), "{errors}");
    }
    let known = "origins = [\"https://page.example\"]\napi_key_sha256 = \"".to_owned() + &"0".repeat(64) + "\"";
    folder.load(&format!("{SMALLEST}[[caller]]\nname = \"page\"\n{known}\nconsent = \"auto\"\n")).unwrap();
}

#[test]
fn checkpoints_are_signed_with_a_key_of_the_file_or_not_at_all() {
    let folder = Folder::new();
    let config = folder.load(SMALLEST).unwrap();
    assert_eq!((config.audit.checkpoint_key, config.audit.checkpoint_interval.as_secs()), (None, 300));
    assert_eq!(config.sha256, Sha256::of(SMALLEST.as_bytes()));
    let errors = folder.errors(&format!("{SMALLEST}[audit]\ncheckpoint_key = \"seal\"\ncheckpoint_interval_seconds = 1\n"));
    assert!(errors.contains("2 mistakes") && errors.contains("checkpoint_key") && errors.contains("no [[key]]"), "{errors}");
}

#[test]
fn a_file_with_many_mistakes_gets_one_report_of_all_of_them() {
    let mut mistakes = Config::parse(include_str!("tests_mistakes.toml"), Path::new("sealgate.toml"), Path::new("/no-such-folder"))
        .unwrap_err()
        .to_string();
    mistakes.push('\n');
    insta::assert_snapshot!(mistakes);
}

#[test]
fn a_file_that_is_not_toml_is_told_the_lines() {
    let errors = Folder::new().errors("data_dir = data\n[[module]\n");
    assert!(errors.contains("line 1: ") && errors.contains("line 2: "), "{errors}");
}

#[test]
fn what_could_not_be_read_is_not_reported_again_as_missing() {
    let errors = Folder::new().errors(&format!("{SMALLEST}default_key = \"seal\"\n[[key]]\nname = \"seal\"\ncolour = 1\n"));
    assert!(errors.contains("1 mistake;") && errors.contains("colour"), "{errors}");
}

#[test]
fn a_pin_file_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let folder = Folder::new();
    let text = format!("{SMALLEST}[[token]]\nuri = \"pkcs11:token=a\"\nlogin = \"configured\"\npin = {{ file = \"pin\" }}\n");
    assert!(folder.load(&text).is_ok());
    for mode in [0o640, 0o604, 0o620] {
        folder.write_pin(mode);
        let errors = folder.errors(&text);
        assert!(errors.contains(&format!("chmod 600 {}", folder.path("pin").display())), "{errors}");
    }
}

#[test]
fn a_pin_in_the_file_is_refused_by_name_whatever_its_type() {
    for pin in ["\"739201\"", "739201", "{ value = \"739201\" }", "{ pin = 739201 }", "[\"739201\"]", "true", "'''739201'''"] {
        let errors = Folder::new().errors(&format!("{SMALLEST}[[token]]\nuri = \"pkcs11:token=a\"\nlogin = \"configured\"\npin = {pin}\n"));
        assert!(errors.contains("token[1]") && errors.contains("file"), "{errors}");
        assert!(!errors.contains("739201"), "{errors}");
    }
}

#[test]
fn a_loopback_listener_needs_no_tls_and_any_other_needs_a_word() {
    let folder = Folder::new();
    for (listener, taken) in [
        ("address = \"127.0.0.1:0\"", true),
        ("address = \"[::1]:80\"", true),
        ("address = \"0.0.0.0:9091\"", false),
        ("address = \"192.0.2.1:9091\"\ninsecure_http = true", true),
        ("address = \"192.0.2.1:9091\"\ninsecure_http = true\ncaller = \"erp\"", false),
    ] {
        assert_eq!(folder.load(&format!("{SMALLEST}[[listener]]\n{listener}\n")).is_ok(), taken, "{listener}");
    }
}

fn tls_listener(folder: &Folder, tls: &str) -> String {
    for (name, mode) in [("cert.pem", 0o644), ("key.pem", 0o640), ("open.pem", 0o644)] {
        fs::write(folder.path(name), "").unwrap();
        fs::set_permissions(folder.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    format!("{SMALLEST}[[listener]]\naddress = \"192.0.2.1:443\"\ntls = {tls}\n")
}

#[test]
fn a_listener_with_tls_may_be_reached_by_other_machines() {
    let folder = Folder::new();
    let text = tls_listener(&folder, "{ certificate = \"cert.pem\", key = \"key.pem\" }");
    let config = folder.load(&text).unwrap();
    let expected = TlsSettings { certificate: folder.path("cert.pem"), key: folder.path("key.pem"), client_ca: None };
    assert_eq!(config.listeners[0].tls, Some(expected));
    assert!(folder.errors(&format!("{text}insecure_http = true\n")).contains("remove one of the two"));
    let errors = folder.errors(&tls_listener(&folder, "{ certificate = \"no.pem\", key = \"open.pem\", client_ca = \"none.pem\" }"));
    assert!(errors.contains("3 mistakes") && errors.contains("no.pem does not exist") && errors.contains("none.pem"), "{errors}");
    assert!(errors.contains(&format!("chmod o= {}", folder.path("open.pem").display())), "{errors}");
}

#[test]
fn a_caller_is_known_by_a_certificate_where_a_listener_takes_one() {
    let folder = Folder::new();
    let known_by = |id: &str| format!("[[caller]]\nname = \"by-certificate\"\nclient_certificate = {id}\n");
    let with_ca = tls_listener(&folder, "{ certificate = \"cert.pem\", key = \"key.pem\", client_ca = \"cert.pem\" }");
    let subject = known_by("{ subject = \"cn=erp,o=Example\" }");
    let config = folder.load(&format!("{with_ca}{subject}")).unwrap();
    assert_eq!(config.callers[1].client_certificate, Some(ClientCertificateId::Subject("CN=erp,O=Example".parse().unwrap())));
    let fingerprint = known_by(&format!("{{ sha256 = \"{}\" }}", ["AB"; 32].join(":")));
    let config = folder.load(&format!("{with_ca}{fingerprint}")).unwrap();
    assert_eq!(config.callers[1].client_certificate, Some(ClientCertificateId::Sha256([0xab; 32].into())));
    assert!(folder.errors(&format!("{SMALLEST}{subject}")).contains("takes client certificates"));
    let twice = format!("{with_ca}{subject}{}", subject.replace("by-certificate", "second"));
    assert!(folder.errors(&twice).contains("stands twice"));
    for (bad, said) in [("{}", "exactly one"), ("{ subject = \"/CN=x\" }", "subject's name"), ("{ sha256 = \"ab\" }", "fingerprint")] {
        let errors = folder.errors(&format!("{with_ca}{}", known_by(bad)));
        assert!(errors.contains("1 mistake;") && errors.contains(said), "{bad}: {errors}");
    }
}

#[test]
fn one_process_holds_one_copy_of_a_library() {
    let module = |name, isolation| format!("[[module]]\nname = \"{name}\"\npath = \"module.so\"\nisolation = \"{isolation}\"\n");
    let folder = Folder::new();
    assert!(folder.load(&format!("{SMALLEST}{}{}", module("a", "process"), module("b", "thread"))).is_ok());
    let errors = folder.errors(&format!("{SMALLEST}{}{}", module("a", "thread"), module("b", "thread")));
    assert!(errors.contains("`module[3].path`"), "{errors}");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        let _ = Config::parse(&text, Path::new("f"), Path::new("/no-such-folder"));
    }

    #[test]
    fn no_report_or_debug_output_repeats_a_secret(secret in "[a-z]{4}Zq[0-9]{4}[a-z]{4}", place in 0..SECRET_PLACES.len(), tail in 0..TAILS.len()) {
        let text = format!("{}{}", SECRET_PLACES[place].replace("SECRET", &secret), TAILS[tail]);
        let shown = match Config::parse(&text, Path::new("f"), Path::new("/no-such-folder")) {
            Ok(config) => format!("{config:?}"),
            Err(errors) => format!("{errors} {errors:?}"),
        };
        prop_assert!(!shown.contains(&secret), "{}", shown);
    }
}

const SECRET_PLACES: &[&str] = &[
    "[[token]]\nuri = \"pkcs11:\"\nlogin = \"configured\"\npin = \"SECRET\"\n",
    "[[token]]\nuri = \"pkcs11:\"\nlogin = \"configured\"\npin = { value = \"SECRET\" }\n",
    "[[token]]\nuri = \"pkcs11:\"\nlogin = \"configured\"\npin = \"SECRET\n",
    "[[token]]\nuri = \"pkcs11:\"\nlogin = \"SECRET\"\n",
    "[[token]]\nuri = \"pkcs11:?pin-value=SECRET\"\nlogin = \"operator\"\nqueue = \"SECRET\"\n",
    "[[key]]\nname = \"a\"\nuri = \"pkcs11:object=a?pin-value=SECRET\"\n",
    "[[module]]\nname = \"m\"\npath = \"m.so\"\nenv = { PIN = \"SECRET\" }\n",
    "[[module]]\nname = \"m\"\npath = \"/bin/sh\"\nisolation = \"thread\"\nenv = { PIN = \"SECRET\" }\n",
    "[[module]]\nname = \"m\"\npath = \"m.so\"\nenv = \"SECRET\"\nos_locking = \"SECRET\"\n",
    "[[caller]]\nname = \"c\"\napi_key_sha256 = \"SECRET\"\n",
    "[[caller]]\nname = \"c\"\napi_key_sha256 = [\"SECRET\"]\n",
];

const TAILS: &[&str] = &["", "colour = 1\n", "[broken\n", "pin = 1\n"];

#[test]
fn a_fence_is_read_as_written_and_its_paths_start_from_the_files_folder() {
    let folder = Folder::new();
    let with = |fence: &str| SMALLEST.replace("path = \"module.so\"", &format!("path = \"module.so\"\n{fence}"));
    let fence = |text: &str| folder.load(&with(text)).unwrap().modules.remove(0).fence;
    assert!(fence("").is_open());
    let all =
        fence("fence = { no_network = true, restrict_system_calls = true, readable = [\"soft.conf\"], writable = [\"/var/tokens\"] }");
    assert!(all.no_network && all.restrict_system_calls);
    let files = all.files.unwrap();
    assert_eq!((files.readable, files.writable), (vec![folder.path("soft.conf")], vec![PathBuf::from("/var/tokens")]));
    // Only its libraries are left to it: a list that is empty is a fence all the same.
    assert_eq!(fence("fence = { writable = [] }").files, Some(FileFence::default()));
}

#[test]
fn a_fence_in_the_gateways_own_process_or_around_nothing_is_a_mistake() {
    let with = |fence: &str| Folder::new().errors(&SMALLEST.replace("path = \"module.so\"", &format!("path = \"module.so\"\n{fence}")));
    let in_a_thread = with("isolation = \"thread\"\nfence = { no_network = true }");
    assert!(
        in_a_thread.contains("1 mistake;") && in_a_thread.contains("`module[1].fence`: a fence stands around a process"),
        "{in_a_thread}"
    );
    let nothing = with("fence = { no_network = false }");
    assert!(nothing.contains("1 mistake;") && nothing.contains("this fence denies nothing"), "{nothing}");
    let misspelt = with("fence = { no_networks = true }");
    assert!(misspelt.contains("1 mistake;") && misspelt.contains("no_networks"), "{misspelt}");
}
