//! The command line, the real program with real SoftHSM: exit codes, what is printed where, and what errors tell people to do.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use common::{
    openssl::openssl,
    program::{self, Gateway, dev_json, path_in, run, sealgate, stderr, stdout},
};
use serde_json::Value;
use tempfile::TempDir;

/// A gateway in development mode and a folder for files.
struct Rig {
    folder: TempDir,
    dir: PathBuf,
    dev: Value,
    gateway: Gateway,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("dev");
        let gateway = Gateway::dev(&dir);
        let dev = dev_json(&dir);
        Self { folder, dir, dev, gateway }
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn sign(&self, arguments: &[&str], file: &Path) -> Output {
        let mut command = sealgate();
        command.args(["sign", "--url", &self.gateway.url]).args(arguments).arg(file);
        command.env("SEALGATE_API_KEY", self.dev["api_key"].as_str().unwrap()).output().unwrap()
    }

    /// A command about this gateway, through its control socket.
    fn control(&self, verb: &str, arguments: &[&str]) -> Output {
        run([verb, "--dir", self.dir.to_str().unwrap()].iter().chain(arguments))
    }

    fn json(&self, verb: &str) -> Value {
        let output = self.control(verb, &["--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Whether OpenSSL accepts a signature, with these further arguments.
    fn verifies(&self, signature: &Path, arguments: &[&str]) -> bool {
        let ca = path_in(&self.dev["ca_certificate"]);
        let fixed = ["cms", "-verify", "-binary", "-inform", "DER", "-out", "/dev/null", "-in", signature.to_str().unwrap()];
        openssl(fixed.iter().chain(&["-CAfile", ca.to_str().unwrap()]).chain(arguments)).status.success()
    }
}

#[test]
fn help_and_version_are_results_and_wrong_usage_is_not() {
    for arguments in [&["--help"][..], &["--version"], &["help", "sign"], &["sign", "--version"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
    for arguments in [&[][..], &["no-such-verb"], &["serve"], &["sign", "--url", "ftp://x", "Cargo.toml"], &["bench", "--concurrency", "0"]]
    {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_verbs_of_machines_are_not_offered_to_people() {
    let help = stdout(&run(["--help"]));
    assert!(help.contains("unlock") && !help.contains("module-host") && !help.contains("bench-token"), "{help}");
}

#[test]
fn an_api_key_in_the_environment_is_not_shown_by_the_help() {
    let output = sealgate().args(["sign", "--help"]).env("SEALGATE_API_KEY", "s3cret").output().unwrap();
    assert!(!stdout(&output).contains("s3cret"));
}

#[test]
fn a_log_filter_that_is_none_is_wrong_usage() {
    let output = sealgate().args(["slots"]).env("SEALGATE_LOG", "sealgate=loud").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("SEALGATE_LOG"), "{}", stderr(&output));
}

#[test]
fn a_configuration_with_mistakes_starts_nothing_and_says_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sealgate.toml");
    fs::write(&config, "data_dir = \"data\"\n[[module]]\nname = \"m\"\npath = \"no.so\"\nisolation = \"jail\"\n").unwrap();
    let output = run(["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("2 mistakes") && said.contains("no.so") && said.contains("isolation"), "{said}");
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_signature_of_each_key_is_accepted_by_openssl() {
    let rig = Rig::new();
    let file = rig.file("letter.txt", b"signed by the command line\r\n");
    for key in ["rsa-2048", "ec-p256", "ec-p384"] {
        let output = rig.sign(&["--key", key], &file);
        assert!(output.status.success(), "{key}: {}", stderr(&output));
        let signature = rig.folder.path().join("letter.txt.p7s");
        assert!(stdout(&output).contains("letter.txt.p7s"));
        assert!(rig.verifies(&signature, &["-content", file.to_str().unwrap()]), "{key}");
        fs::remove_file(signature).unwrap();
    }
}

#[test]
fn a_key_may_be_named_by_its_uri_and_the_default_key_needs_no_name() {
    let rig = Rig::new();
    let file = rig.file("letter.txt", b"x");
    let rsa = rig.dev["keys"][0]["uri"].as_str().unwrap();
    for arguments in [&["--key", rsa][..], &[]] {
        let output = rig.sign(arguments, &file);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(rig.verifies(&rig.folder.path().join("letter.txt.p7s"), &["-content", file.to_str().unwrap()]));
    }
}

#[test]
fn an_attached_cades_signature_goes_where_it_is_told_with_a_report_in_json() {
    let rig = Rig::new();
    let file = rig.file("letter.txt", b"attached");
    let out = rig.folder.path().join("out.p7m");
    let output = rig.sign(&["--attached", "--cades", "--json", "-o", out.to_str().unwrap()], &file);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(rig.verifies(&out, &["-cades"]));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["file_bytes"], 8);
    assert_eq!(report["signature_bytes"], fs::metadata(&out).unwrap().len());
    assert_eq!((&report["attached"], &report["cades"]), (&Value::Bool(true), &Value::Bool(true)));
}

#[test]
fn a_dash_writes_the_signature_and_nothing_else_to_standard_output() {
    let rig = Rig::new();
    let file = rig.file("letter.txt", b"piped");
    let output = rig.sign(&["--attached", "-o", "-"], &file);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(rig.verifies(&rig.file("piped.p7m", &output.stdout), &[]));
    assert_eq!(rig.sign(&["--json", "-o", "-"], &file).status.code(), Some(2));
}

#[test]
fn a_long_file_is_streamed_and_an_empty_one_is_signed_as_well() {
    let rig = Rig::new();
    for (name, len) in [("long", 9 * 1024 * 1024), ("empty", 0)] {
        let file = rig.file(name, &vec![b'x'; len]);
        let output = rig.sign(&[], &file);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let signature = rig.folder.path().join(format!("{name}.p7s"));
        assert!(rig.verifies(&signature, &["-content", file.to_str().unwrap()]), "{name}");
    }
}

#[test]
fn what_goes_wrong_with_a_signature_is_said_with_what_to_do() {
    let rig = Rig::new();
    let file = rig.file("letter.txt", b"x");
    let key = "SEALGATE_API_KEY";
    let url = rig.gateway.url.clone();
    let no_key = sealgate().args(["sign", "--url", &url]).arg(&file).output().unwrap();
    let wrong_key = sealgate().args(["sign", "--url", &url]).arg(&file).env(key, "wrong").output().unwrap();
    for output in [no_key, wrong_key] {
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(key) && !stderr(&output).contains("wrong"), "{}", stderr(&output));
    }
    let unknown = rig.sign(&["--key", "no-such-key"], &file);
    assert!(stderr(&unknown).contains("(500)"), "{}", stderr(&unknown));
    let missing = rig.sign(&[], Path::new("/no/such/file"));
    assert!(stderr(&missing).contains("/no/such/file"), "{}", stderr(&missing));
    let nobody = sealgate().args(["sign", "--url", "http://127.0.0.1:1"]).arg(&file).output().unwrap();
    assert!(stderr(&nobody).contains("is it running"), "{}", stderr(&nobody));
    for output in [unknown, missing, nobody] {
        assert_eq!(output.status.code(), Some(1));
    }
    assert!(!rig.folder.path().join("letter.txt.p7s").exists());
}

#[test]
fn slots_and_keys_are_shown_by_the_gateway_that_runs_and_without_one() {
    let mut rig = Rig::new();
    let with = (rig.json("slots"), rig.json("keys"));
    assert_eq!(with.0["slots"][0]["state"], "ready");
    assert_eq!(with.0["slots"][0]["uri"], rig.dev["token_uri"]);
    let named = |keys: &Value| {
        let mut names: Vec<String> = keys["keys"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(named(&with.1), ["ec-p256", "ec-p384", "ed25519", "rsa-2048", "tsa-p256"]);
    for key in with.1["keys"].as_array().unwrap() {
        assert_eq!(key["protection"], serde_json::json!({"sensitive": true, "extractable": false, "local": true}), "{key}");
        assert_eq!(key["has_certificate"], true, "{key}");
    }
    assert!(stdout(&rig.control("keys", &[])).contains("made on the token"));
    rig.gateway.signal("TERM");
    rig.gateway.wait();
    let without = (rig.json("slots"), rig.json("keys"));
    assert_eq!(without.0["slots"][0]["state"], "present", "nobody has logged in");
    assert_eq!(without.0["slots"][0]["login"], "configured");
    assert_eq!(named(&without.1), named(&with.1));
}

#[test]
fn slots_are_watched_through_the_gateway_until_an_interrupt() {
    let rig = Rig::new();
    let mut command = sealgate();
    command.args(["slots", "--watch", "--json", "--dir"]).arg(&rig.dir).stdout(std::process::Stdio::piped());
    let mut watch = command.spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["state"], "ready");
    assert!(rig.control("lock", &[]).status.success());
    assert_eq!(next()["state"], "needs-pin");
    assert!(Command::new("kill").args(["-s", "INT", &watch.id().to_string()]).status().unwrap().success());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn a_locked_token_signs_again_after_an_unlock_with_the_right_pin() {
    let rig = Rig::new();
    let uri = rig.dev["token_uri"].as_str().unwrap();
    let locked = rig.control("lock", &[uri]);
    assert!(locked.status.success(), "{}", stderr(&locked));
    assert_eq!(rig.json("slots")["slots"][0]["state"], "needs-pin");
    assert!(stderr(&rig.control("slots", &[])).contains("sealgate unlock"), "it says how to unlock");

    let pin = rig.file("wrong-pin", b"00000000\n");
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
    let wrong = rig.control("unlock", &["--pin-file", pin.to_str().unwrap()]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(stderr(&wrong).contains("rejected") && !stderr(&wrong).contains("00000000"), "{}", stderr(&wrong));

    let right = rig.dir.join("pin");
    let unlocked = rig.control("unlock", &["--pin-file", right.to_str().unwrap(), uri]);
    assert!(unlocked.status.success(), "{}", stderr(&unlocked));
    let file = rig.file("letter.txt", b"x");
    assert!(rig.sign(&[], &file).status.success());
}

#[test]
fn a_pin_is_taken_neither_from_an_exposed_file_nor_from_nobody() {
    let rig = Rig::new();
    let exposed = rig.file("exposed", b"1234\n");
    fs::set_permissions(&exposed, fs::Permissions::from_mode(0o644)).unwrap();
    let output = rig.control("unlock", &["--pin-file", exposed.to_str().unwrap()]);
    assert!(stderr(&output).contains("chmod 600"), "{}", stderr(&output));
    // A session of its own has no terminal to ask at.
    let mut command = Command::new("setsid");
    command.args(["--wait", env!("CARGO_BIN_EXE_sealgate"), "unlock", "--dir"]).arg(&rig.dir);
    let output = command.stdin(std::process::Stdio::null()).output().expect("setsid");
    assert!(stderr(&output).contains("--pin-file"), "{}", stderr(&output));
}

#[test]
fn commands_for_a_gateway_say_that_none_runs() {
    let mut rig = Rig::new();
    rig.gateway.signal("TERM");
    rig.gateway.wait();
    for verb in ["unlock", "lock"] {
        let output = rig.control(verb, &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("no gateway runs"), "{}", stderr(&output));
    }
    let bench = run(["bench", "--dir", rig.dir.to_str().unwrap()]);
    assert!(stderr(&bench).contains("sealgate dev"), "{}", stderr(&bench));
}

#[test]
fn the_configuration_of_development_mode_can_be_served() {
    let mut rig = Rig::new();
    rig.gateway.signal("TERM");
    rig.gateway.wait();
    let served = Gateway::serve(&rig.dir.join("sealgate.toml"));
    assert_ne!(served.url, "");
    let second = run(["serve", "--config", rig.dir.join("sealgate.toml").to_str().unwrap()]);
    assert!(stderr(&second).contains("another gateway"), "{}", stderr(&second));
    let (status, log) = served.stop();
    assert!(status.success(), "{log}");
    assert!(!rig.dir.join("control.sock").exists());
}

#[test]
fn ctrl_c_at_a_terminal_stops_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("dev");
    let mut command = sealgate();
    command.args(["dev", "--listen", "127.0.0.1:0", "--dir"]).arg(&dir).process_group(0);
    let mut gateway = Gateway::start(&mut command);
    // A terminal sends the signal to the whole group.
    let group = format!("-{}", gateway.pid());
    assert!(Command::new("kill").args(["-s", "INT", "--", &group]).status().unwrap().success());
    let (status, log) = gateway.wait();
    assert!(status.success(), "{log}");
    assert!(!log.contains("does not run"), "the modules heard nothing of it: {log}");
}

#[test]
fn bench_measures_token_and_gateway_in_one_run() {
    let rig = Rig::new();
    let output =
        run(["bench", "--dir", rig.dir.to_str().unwrap(), "--seconds", "1", "--concurrency", "1,4", "--key", "rsa-2048", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["key"], "rsa-2048");
    let measured = [&report["bare"], &report["gateway"][0], &report["gateway"][1]];
    for figures in measured {
        assert!(figures["per_second"].as_f64().unwrap() > 0.0, "{report}");
        assert!(figures["p99_ms"].as_f64().unwrap() >= figures["p50_ms"].as_f64().unwrap(), "{report}");
    }
    let ratio = report["gateway"][1]["ratio"].as_f64().unwrap();
    let expected = report["gateway"][1]["per_second"].as_f64().unwrap() / report["bare"]["per_second"].as_f64().unwrap();
    assert!((ratio - expected).abs() < 1e-9, "{report}");
}

#[test]
fn nothing_is_printed_to_a_reader_that_has_gone() {
    let rig = Rig::new();
    let command = format!("{} slots --dir {} | true", env!("CARGO_BIN_EXE_sealgate"), rig.dir.display());
    let output = Command::new("bash").args(["-o", "pipefail", "-c", &command]).output().unwrap();
    assert!(output.status.success() && program::stderr(&output).is_empty(), "{}", program::stderr(&output));
}
