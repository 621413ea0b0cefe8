//! `sealgate init`, the real program on a real SoftHSM token: what it makes is sound, serves, and is never made twice.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use common::{
    openssl::openssl_ok,
    program::{Gateway, dev_json, path_in, run, sealgate, stderr, stdout},
    softhsm::SoftHsm,
};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A token that is plugged in, and folders that are not there yet.
struct Bench {
    _parent: TempDir,
    dev: Value,
    pin: PathBuf,
    dir: PathBuf,
    data: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let dev_dir = parent.path().join("dev");
        let gateway = Gateway::dev(&dev_dir);
        let dev = dev_json(&dev_dir);
        gateway.stop();
        let pin = parent.path().join("token.pin");
        fs::write(&pin, format!("{}\n", dev["user_pin"].as_str().unwrap())).unwrap();
        fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
        let (dir, data) = (parent.path().join("etc"), parent.path().join("var"));
        Self { _parent: parent, dev, pin, dir, data }
    }

    fn config(&self) -> PathBuf {
        self.dir.join("sealgate.toml")
    }

    /// `sealgate init --yes` on the token, with what else is said.
    fn init(&self, arguments: &[&str]) -> Output {
        let conf = format!("SOFTHSM2_CONF={}", self.dev["softhsm2_conf"].as_str().unwrap());
        let mut command = sealgate();
        command.args(["init", "--yes", "--module-env", &conf, "--module"]).arg(SoftHsm::module());
        command.arg("--dir").arg(&self.dir).arg("--data-dir").arg(&self.data).args(arguments);
        command.output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.init(arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    }

    fn on_config(&self, verb: &[&str]) -> Output {
        run(verb.iter().copied().chain(["--config", self.config().to_str().unwrap()]))
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_it_makes_is_sound_passes_the_doctor_signs_and_is_not_made_again() {
    let bench = Bench::new();
    let pin = bench.pin.to_str().unwrap();
    let said = bench.done(&["--pin-file", pin, "--listen", "127.0.0.1:0", "--operator", "ann"]);
    assert!(said.contains("sealgate doctor --config") && said.contains("the operator ann, password (shown once): "), "{said}");
    let checked = bench.on_config(&["config", "check"]);
    assert!(checked.status.success(), "{}", stdout(&checked));
    let doctor = bench.on_config(&["doctor"]);
    assert!(doctor.status.success(), "{}{}", stdout(&doctor), stderr(&doctor));
    assert_eq!(mode(&bench.data), 0o700);

    let key = bench.on_config(&["callers", "add", "back-office", "--key", "ec-p256", "--consent", "auto"]);
    assert!(key.status.success(), "{}", stderr(&key));
    let gateway = Gateway::serve(&bench.config());
    let document = bench.dir.join("document");
    fs::write(&document, "document").unwrap();
    let mut sign = sealgate();
    sign.args(["sign", "--url", &gateway.url, "--key", "ec-p256"]).arg(&document).env("SEALGATE_API_KEY", stdout(&key).trim());
    let signed = sign.output().unwrap();
    assert!(signed.status.success(), "{}", stderr(&signed));
    let operators = bench.on_config(&["operators", "list"]);
    assert!(stdout(&operators).contains("ann") && stdout(&operators).contains("administrator"), "{}", stdout(&operators));
    gateway.stop();

    let before = fs::read(bench.config()).unwrap();
    let again = bench.init(&["--pin-file", pin, "--listen", "127.0.0.1:0"]);
    assert!(again.status.code() == Some(1) && stderr(&again).contains("not overwritten"), "{}", stderr(&again));
    assert_eq!(fs::read(bench.config()).unwrap(), before);
    fs::remove_file(bench.config()).unwrap();
    let beside_a_state = bench.init(&["--pin-file", pin, "--listen", "127.0.0.1:0"]);
    assert!(stderr(&beside_a_state).contains("--data-dir"), "{}", stderr(&beside_a_state));
}

#[test]
fn a_gateway_for_other_machines_gets_a_certificate_that_its_clients_can_check() {
    let bench = Bench::new();
    bench.done(&["--listen", "0.0.0.0:0", "--host", "sign.example.org", "--pin-file", bench.pin.to_str().unwrap()]);
    let file = |name: &str| bench.dir.join("tls").join(name);
    assert_eq!([mode(&file("ca.key")), mode(&file("gateway.key"))], [0o600; 2]);
    let (ca, certificate) = (file("ca.pem"), file("gateway.pem"));
    let verify = ["verify", "-purpose", "sslserver", "-verify_hostname", "sign.example.org", "-x509_strict", "-CAfile"].map(Path::new);
    openssl_ok(verify.into_iter().chain([ca.as_path(), certificate.as_path()]));
    let gateway = Gateway::serve(&bench.config());
    let port = gateway.url.rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    let url = format!("https://localhost:{port}/healthz");
    let curl = Command::new("curl").args(["--silent", "--show-error", "--fail", "--cacert"]).arg(&ca).arg(&url).output().unwrap();
    assert!(curl.status.success(), "{}", stderr(&curl));
}

#[test]
fn what_cannot_be_made_leaves_nothing_behind() {
    let bench = Bench::new();
    let wrong = [
        (&["--token", "pkcs11:serial=none"][..], "no such token is plugged in"),
        (&["--pin-file", "/no-such-file"][..], "no-such-file"),
        (&["--listen", "0.0.0.0:0"][..], "--host NAME"),
        (&["--listen", "0.0.0.0:0", "--host", "not a name"][..], "--host"),
        (&["--operator-password-file", "/no-such-file"][..], "no-such-file"),
    ];
    for (arguments, said) in wrong {
        let output = bench.init(arguments);
        assert!(output.status.code() == Some(1) && stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
        assert!(!bench.dir.exists() && !bench.data.exists(), "{arguments:?}");
    }
    // Without a terminal it asks nothing, and says what to do.
    let asked = run(["init", "--dir", bench.dir.to_str().unwrap()]);
    assert!(asked.status.code() == Some(2) && stderr(&asked).contains("--yes"), "{}", stderr(&asked));
}

#[test]
fn a_token_that_shows_no_key_before_a_login_is_said_to_and_what_to_do() {
    let bench = Bench::new();
    let said = bench.done(&["--listen", "127.0.0.1:0"]);
    assert!(said.contains("no key can be seen before the token is logged in") && said.contains("sealgate unlock"), "{said}");
    assert!(bench.on_config(&["config", "check"]).status.success());
    assert!(path_in(&bench.dev["config"]).is_file());
}

/// A program at a terminal of its own: util-linux's `script` gives it one and passes on what is typed.
struct AtTerminal {
    program: Child,
    shown: Receiver<u8>,
    seen: String,
}

impl AtTerminal {
    fn start(arguments: &[&str]) -> Self {
        let quoted = |word: &&str| format!("'{}'", word.replace('\'', "'\\''"));
        let words: Vec<_> = [env!("CARGO_BIN_EXE_sealgate")].iter().chain(arguments).map(quoted).collect();
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
        let mut program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script, of util-linux");
        let mut output = program.stdout.take().unwrap();
        let (sender, shown) = mpsc::channel();
        thread::spawn(move || {
            let mut byte = [0];
            while output.read_exact(&mut byte).is_ok() && sender.send(byte[0]).is_ok() {}
        });
        Self { program, shown, seen: String::new() }
    }

    /// Waits until this is on the screen, and types an answer.
    fn answer(&mut self, question: &str, answer: &str) {
        while !self.seen.ends_with(question) {
            let byte = self.shown.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{question:?} is not asked: {}", self.seen));
            self.seen.push(char::from(byte));
        }
        self.program.stdin.as_ref().unwrap().write_all(answer.as_bytes()).unwrap();
    }

    /// Everything that was shown, and whether it ended well.
    fn end(mut self) -> (bool, String) {
        while let Ok(byte) = self.shown.recv_timeout(PATIENCE) {
            self.seen.push(char::from(byte));
        }
        (self.program.wait().unwrap().success(), self.seen)
    }
}

#[test]
fn at_a_terminal_it_asks_for_what_was_not_said_and_takes_defaults() {
    let bench = Bench::new();
    let conf = format!("SOFTHSM2_CONF={}", bench.dev["softhsm2_conf"].as_str().unwrap());
    let (dir, data) = (bench.dir.to_str().unwrap(), bench.data.to_str().unwrap());
    let arguments = ["init", "--module-env", &conf, "--dir", dir, "--data-dir", data, "--pin-file", bench.pin.to_str().unwrap()];

    // Who says no word makes nothing: end of input at the second question.
    let mut terminal = AtTerminal::start(&arguments);
    terminal.answer("PKCS#11 library of the token", &format!("{}\n", SoftHsm::module().display()));
    terminal.answer("address to listen on [127.0.0.1:9091]: ", "\x04");
    let (ended_well, shown) = terminal.end();
    assert!(!ended_well && shown.contains("nothing was made: there was no answer"), "{shown}");
    assert!(!bench.dir.exists() && !bench.data.exists());

    let mut terminal = AtTerminal::start(&arguments);
    terminal.answer("PKCS#11 library of the token", &format!("{}\n", SoftHsm::module().display()));
    terminal.answer("address to listen on [127.0.0.1:9091]: ", "everywhere\n");
    terminal.answer("that is not understood\r\naddress to listen on [127.0.0.1:9091]: ", "0.0.0.0:0\n");
    terminal.answer("name of the first operator [admin]: ", "\n");
    terminal.answer("name under which other machines reach the gateway: ", "sign.example.org\n");
    let (ended_well, shown) = terminal.end();
    assert!(ended_well && shown.contains("made the operator admin, password (shown once): "), "{shown}");
    let checked = bench.on_config(&["config", "check"]);
    assert!(checked.status.success(), "{}", stdout(&checked));
    let certificate = bench.dir.join("tls/gateway.pem");
    openssl_ok(["x509", "-noout", "-checkhost", "sign.example.org", "-in", certificate.to_str().unwrap()]);
}

#[test]
fn every_mistake_of_a_configuration_is_listed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sealgate.toml");
    fs::write(&file, "colour = 1\n[[module]]\nname = \"a b\"\npath = \"/no-such-module\"\n").unwrap();
    let output = run(["config", "check", "--json", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["mistakes"].as_array().unwrap().len() >= 4, "{report}");
    let missing = run(["config", "check", "--config", "/no-such-file"]);
    assert_eq!((missing.status.code(), missing.stdout.len()), (Some(1), 0));
}
