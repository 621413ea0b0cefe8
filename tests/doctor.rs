//! `sealgate doctor`, the real program with real SoftHSM, against planted faults: each is named, and where the fix is a command, it is run as
//! it was printed and everything is well afterwards. PIN tries are counted by OpenSC's spy around the module.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

use common::{
    certificate,
    program::{Gateway, dev_json, run, sealgate, stderr},
    softhsm::{SoftHsm, installed, spy_count, spy_module},
};
use sealgate::pki::Certificate;
use serde_json::Value;
use tempfile::TempDir;

/// A gateway that development mode has made and that does not run.
struct Patient {
    _folder: TempDir,
    dir: PathBuf,
    config: PathBuf,
    pin: String,
}

/// What doctor found.
struct Report {
    code: i32,
    json: Value,
}

impl Patient {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("dev");
        let gateway = Gateway::dev(&dir);
        let dev = dev_json(&dir);
        gateway.stop();
        let text = |name: &str| dev[name].as_str().unwrap().to_owned();
        Self { config: dir.join("sealgate.toml"), pin: text("user_pin"), dir, _folder: folder }
    }

    /// The same with OpenSC's spy around the module.
    fn spied() -> Self {
        let patient = Self::new();
        let (module, log) = (SoftHsm::module(), patient.spy_log());
        patient.rewrite(&format!("path = \"{}\"", module.display()), &format!("path = \"{}\"", spy_module().display()));
        let variables = format!("env = {{ PKCS11SPY = \"{}\", PKCS11SPY_OUTPUT = \"{}\", ", module.display(), log.display());
        patient.rewrite("env = { ", &variables);
        patient
    }

    fn spy_log(&self) -> PathBuf {
        self.dir.join("spy.log")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn write_pin(&self, pin: &str) {
        fs::write(self.file("pin"), format!("{pin}\n")).unwrap();
    }

    /// Changes the configuration.
    fn rewrite(&self, old: &str, new: &str) {
        rewrite(&self.config, old, new);
    }

    fn doctor(&self) -> Report {
        let output = run(["doctor", "--json", "--config", self.config.to_str().unwrap()]);
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
        Report { code: output.status.code().unwrap(), json }
    }

    /// Doctor names the fault; its fix, run as it was printed, mends it.
    fn cure(&self, check: &str, says: &str) {
        self.cure_typing(check, says, "");
    }

    /// The same with a person who types.
    fn cure_typing(&self, check: &str, says: &str, typed: &str) {
        let report = self.doctor();
        let finding = report.named(check, says);
        let command = finding["fix"]["command"].as_str().unwrap_or_else(|| panic!("no command: {finding:#}"));
        let mut shell =
            Command::new("sh").args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = shell.wait_with_output().unwrap();
        assert!(output.status.success(), "{command}: {}", stderr(&output));
        self.doctor().assert_well();
    }
}

impl Report {
    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.json["findings"].as_array().unwrap().iter()
    }

    fn not_well(&self) -> Vec<&Value> {
        self.findings().filter(|finding| finding["severity"] != "ok").collect()
    }

    /// The finding about `check` that is not well and says this.
    fn named(&self, check: &str, says: &str) -> &Value {
        let found =
            self.not_well().into_iter().find(|finding| finding["check"] == check && finding["what"].as_str().unwrap().contains(says));
        let finding = found.unwrap_or_else(|| panic!("no finding {check:?} that says {says:?}: {:#}", self.json));
        assert_eq!(self.code, i32::from(self.json["faults"] != 0), "{:#}", self.json);
        assert!(!finding["why"].as_str().unwrap().is_empty() && finding["fix"].is_object(), "{finding:#}");
        finding
    }

    fn assert_well(&self) {
        assert!(self.code == 0 && self.not_well().is_empty(), "{:#}", self.json);
    }
}

fn rewrite(file: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(old), "{old} does not stand in {text}");
    fs::write(file, text.replacen(old, new, 1)).unwrap();
}

fn chmod(mode: u32, file: &Path) {
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_gateway_that_is_well_is_proved_by_signing_after_one_login() {
    let patient = Patient::spied();
    let report = patient.doctor();
    report.assert_well();
    let offered = report.findings().find(|finding| finding["check"] == "offer").unwrap()["what"].as_str().unwrap();
    for part in ["RSA 4096", "EC P-384", "Ed25519", "ecdsa-sha256", "rsa-pss-sha512"] {
        assert!(offered.contains(part), "{part} is not in {offered}");
    }
    let proved = report.findings().filter(|finding| finding["what"].as_str().unwrap().contains("proved by signing")).count();
    // Six RSA algorithms, three ECDSA ones for each of three keys, and Ed25519.
    let log = patient.spy_log();
    assert_eq!((proved, spy_count(&log, "C_Login"), spy_count(&log, "C_Sign")), (5, 1, 16), "{:#}", report.json);
    let text = run(["doctor", "--config", patient.config.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("faults: 0, warnings: 0") && text.stderr.is_empty(), "{}", stderr(&text));
}

#[test]
fn a_pin_file_that_others_can_read_is_closed() {
    let patient = Patient::new();
    chmod(0o644, &patient.file("pin"));
    patient.cure("pin-file", "others can read");
}

#[test]
fn a_missing_pin_file_is_written_by_the_operator() {
    let patient = Patient::new();
    fs::remove_file(patient.file("pin")).unwrap();
    patient.cure_typing("pin-file", "there is no file", &format!("{}\n", patient.pin));
    assert_eq!(fs::metadata(patient.file("pin")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_empty_pin_file_is_filled_by_the_operator() {
    let patient = Patient::new();
    patient.write_pin("");
    patient.cure_typing("pin-file", "holds no PIN", &format!("{}\n", patient.pin));
}

#[test]
fn a_wrong_pin_costs_one_try_however_often_doctor_looks() {
    let patient = Patient::spied();
    patient.write_pin("00000000");
    patient.doctor().named("pin", "rejected");
    patient.doctor().named("pin", "rejected this PIN before");
    assert_eq!(spy_count(&patient.spy_log(), "C_Login"), 1);
    patient.cure_typing("pin", "rejected this PIN before", &format!("{}\n", patient.pin));
    assert_eq!(spy_count(&patient.spy_log(), "C_Login"), 2);
}

#[test]
fn a_pin_that_was_rejected_and_is_right_now_is_tried_again_when_the_operator_says_so() {
    let patient = Patient::new();
    patient.write_pin("87654321");
    patient.doctor().named("pin", "rejected");
    let mut change = Command::new("pkcs11-tool");
    change.arg("--module").arg(SoftHsm::module()).env("SOFTHSM2_CONF", patient.file("softhsm2.conf"));
    let changed = change.args(["--login", "--change-pin", "--pin", &patient.pin, "--new-pin", "87654321"]).output().unwrap();
    assert!(changed.status.success(), "{}", stderr(&changed));
    patient.cure_typing("pin", "rejected this PIN before", "87654321\n");
}

#[test]
fn a_data_folder_that_others_can_write_is_closed() {
    let patient = Patient::new();
    chmod(0o777, &patient.dir);
    patient.cure("data-folder", "others can write");
}

#[test]
fn a_data_folder_that_is_a_file_is_put_aside_for_one() {
    let patient = Patient::new();
    let data = patient.file("data");
    patient.rewrite(&format!("data_dir = \"{}\"", patient.dir.display()), &format!("data_dir = \"{}\"", data.display()));
    fs::write(&data, "mine").unwrap();
    patient.cure("data-folder", "is not a folder");
    assert_eq!(fs::read(patient.file("data.aside")).unwrap(), b"mine");
}

#[test]
fn a_module_that_stands_elsewhere_is_found() {
    let patient = Patient::new();
    patient.rewrite(SoftHsm::module().to_str().unwrap(), "/opt/it's not here/libsofthsm2.so");
    patient.cure("module", "there is no file");
}

#[test]
fn a_module_that_is_no_library_is_replaced_by_the_real_one() {
    let patient = Patient::new();
    let broken = patient.file("libsofthsm2.so");
    fs::write(&broken, "not a library").unwrap();
    patient.rewrite(SoftHsm::module().to_str().unwrap(), broken.to_str().unwrap());
    patient.cure("module", "does not run");
}

#[test]
fn a_missing_configuration_of_softhsm_is_written_for_the_tokens_beside_it() {
    let patient = Patient::new();
    fs::remove_file(patient.file("softhsm2.conf")).unwrap();
    patient.cure("softhsm", "there is no");
}

#[test]
fn a_token_folder_that_was_moved_with_its_configuration_is_found() {
    let patient = Patient::new();
    rewrite(&patient.file("softhsm2.conf"), patient.file("tokens").to_str().unwrap(), "/srv/no-such-folder/tokens");
    patient.cure("softhsm", "there is no token folder");
}

#[test]
fn a_token_folder_that_others_can_enter_is_closed() {
    let patient = Patient::new();
    chmod(0o755, &patient.file("tokens"));
    patient.cure("softhsm", "mode 755");
}

#[test]
fn an_address_that_another_program_has_is_changed_for_a_free_one() {
    let patient = Patient::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    patient.rewrite("\"127.0.0.1:0\"", &format!("\"{}\"", other.local_addr().unwrap()));
    patient.cure("listener", "cannot be listened on");
}

#[test]
fn a_damaged_record_of_pin_tries_is_put_aside() {
    let patient = Patient::new();
    fs::write(patient.file("pin-tries.json"), "{").unwrap();
    patient.cure("pin-record", "damaged");
}

#[test]
fn a_record_of_pin_tries_that_others_can_read_is_closed() {
    let patient = Patient::new();
    patient.doctor().assert_well();
    chmod(0o644, &patient.file("pin-tries.key"));
    patient.cure("pin-record", "open to others");
}

#[test]
fn a_file_in_the_place_of_the_spool_is_put_aside() {
    let patient = Patient::new();
    fs::remove_dir_all(patient.file("spool")).unwrap();
    fs::write(patient.file("spool"), "").unwrap();
    patient.cure("spool", "is not a folder");
}

#[test]
fn a_key_whose_name_leads_nowhere_is_led_to_the_one_key_without_a_name() {
    let patient = Patient::new();
    patient.rewrite("object=ed25519", "object=gone");
    patient.cure("key", "no key matches");
}

#[test]
fn an_algorithm_that_the_token_does_not_offer_is_taken_out_of_the_configuration() {
    let patient = Patient::new();
    patient.rewrite("name = \"rsa-2048\"", "name = \"rsa-2048\"\nalgorithm = \"rsa-pss-sha256\"");
    rewrite(&patient.file("softhsm2.conf"), "slots.mechanisms = ALL", "slots.mechanisms = CKM_RSA_PKCS,CKM_ECDSA,CKM_EDDSA");
    patient.cure("algorithm", "does not offer rsa-pss-sha256");
}

#[test]
fn a_certificate_of_another_key_gives_way_to_the_one_on_the_token() {
    let patient = Patient::new();
    let other = patient.file("certificates/ec-p384.pem");
    patient.rewrite("name = \"ec-p256\"", &format!("name = \"ec-p256\"\ncertificate = \"{}\"", other.display()));
    patient.cure("certificate", "another key's");
}

#[test]
fn a_certificate_that_has_expired_or_soon_will_is_named() {
    let patient = Patient::new();
    let today = u32::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400).unwrap();
    let pem = fs::read_to_string(patient.file("certificates/ec-p256.pem")).unwrap();
    let spki = Certificate::from_pem(&pem).unwrap().spki().to_vec();
    let file = patient.file("other.pem");
    patient.rewrite("name = \"ec-p256\"", &format!("name = \"ec-p256\"\ncertificate = \"{}\"", file.display()));
    // They are valid for a hundred days.
    for (from, says, code) in [(today - 200, "has expired", 1), (today - 90, "expires in", 0), (today + 10, "not valid yet", 1)] {
        let certificate = certificate::issue(&spki, "CN=ec-p256,O=Test,C=UA", from);
        fs::write(&file, Certificate::from_der(&certificate).unwrap().to_pem()).unwrap();
        let report = patient.doctor();
        report.named("certificate", says);
        assert_eq!(report.code, code);
    }
}

#[test]
fn a_token_that_is_away_is_named_and_so_are_its_keys() {
    let patient = Patient::new();
    let token = fs::read_dir(patient.file("tokens")).unwrap().next().unwrap().unwrap().path();
    let away = patient.file("away");
    fs::rename(&token, &away).unwrap();
    let report = patient.doctor();
    report.named("token", "is not there");
    report.named("softhsm", "is empty");
    report.named("key", "its token is not there");
    fs::rename(away, token).unwrap();
    patient.doctor().assert_well();
}

#[test]
fn keys_that_wait_for_an_operator_are_not_proved_and_no_pin_is_tried() {
    let patient = Patient::spied();
    patient.rewrite("login = \"configured\"", "login = \"operator\"");
    let text = fs::read_to_string(&patient.config).unwrap();
    let without_pin: Vec<&str> = text.lines().filter(|line| !line.starts_with("pin =")).collect();
    fs::write(&patient.config, without_pin.join("\n")).unwrap();
    let report = patient.doctor();
    let finding = report.named("key", "not proved");
    assert!(finding["fix"]["by_hand"].as_str().unwrap().contains("unlock"), "{finding:#}");
    assert_eq!((report.code, spy_count(&patient.spy_log(), "C_Login")), (0, 0));
}

#[test]
fn every_mistake_of_the_configuration_is_a_finding() {
    let patient = Patient::new();
    patient.rewrite("[[listener]]", "colour = \"red\"\n[[listener]]");
    patient.rewrite("consent = \"auto\"", "consent = \"never\"");
    chmod(0o604, &patient.file("pin"));
    let report = patient.doctor();
    report.named("configuration", "colour");
    report.named("configuration", "consent");
    report.named("pin-file", "chmod 600");
    assert_eq!(report.json["faults"], 3);
}

#[test]
fn a_card_module_without_the_smart_card_daemon_is_named() {
    let patient = Patient::new();
    let opensc = installed(
        &["/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so", "/usr/lib/aarch64-linux-gnu/opensc-pkcs11.so", "/usr/lib64/opensc-pkcs11.so"],
        "OpenSC's module",
        "apt-get install opensc-pkcs11",
    );
    let socket = patient.file("no-pcscd");
    let module = format!(
        "[[module]]\nname = \"card\"\npath = \"{}\"\nenv = {{ PCSCLITE_CSOCK_NAME = \"{}\" }}\n\n[[token]]",
        opensc.display(),
        socket.display()
    );
    patient.rewrite("[[token]]", &module);
    let report = patient.doctor();
    let command = report.named("pcscd", "does not answer")["fix"]["command"].as_str().unwrap();
    assert!(command.contains("pcscd"), "{command}");
}

#[test]
fn a_token_that_was_locked_is_unlocked_through_the_gateway_that_runs() {
    let patient = Patient::spied();
    let gateway = Gateway::serve(&patient.config);
    wait_until_ready(&patient);
    let logins = spy_count(&patient.spy_log(), "C_Login");
    patient.doctor().assert_well();
    assert_eq!(spy_count(&patient.spy_log(), "C_Login"), logins, "there is no second login from outside");
    assert!(run(["lock", "--config", patient.config.to_str().unwrap()]).status.success());
    patient.cure("token", "needs PIN");
    gateway.stop();
}

#[test]
fn a_wrong_pin_of_a_gateway_that_runs_is_corrected_and_unlocks_it() {
    let patient = Patient::spied();
    patient.write_pin("00000000");
    let mut gateway = Gateway::serve(&patient.config);
    gateway.wait_for(": PIN rejected");
    patient.doctor().named("pin", "PIN rejected");
    assert_eq!(spy_count(&patient.spy_log(), "C_Login"), 1);
    patient.cure_typing("pin", "PIN rejected", &format!("{}\n", patient.pin));
    assert_eq!(spy_count(&patient.spy_log(), "C_Login"), 2);
    gateway.stop();
}

/// Waits for the configured login of a gateway that has just been started.
fn wait_until_ready(patient: &Patient) {
    let mut watch = sealgate();
    watch.args(["slots", "--watch", "--config"]).arg(&patient.config).stdout(Stdio::piped());
    let mut watch = watch.spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    assert!(lines.map_while(Result::ok).any(|line| line.contains("  ready  ")), "the token does not become ready");
    watch.kill().unwrap();
    watch.wait().unwrap();
}
