//! How the module is set up: scripts, files, and what it refuses.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, process::Output};

use common::{Lab, digest, own_process::Environment, softhsm::USER_PIN};
use pkcs11_faults::{bench::Bench, control::Control, fault::Fault, function::Function, log::Outcome, module_path, rv::Rv, variables};

fn lab() -> (tempfile::TempDir, Lab) {
    let directory = tempfile::tempdir().unwrap();
    let lab = Lab::in_directory(directory.path());
    (directory, lab)
}

fn with_script(lab: &Lab, script: &str) -> Environment {
    fs::write(lab.path("script"), script).unwrap();
    let mut environment = lab.environment();
    environment.push((variables::SCRIPT, lab.path("script").into()));
    environment
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_script_arms_faults_before_the_first_call() {
    let (_directory, lab) = lab();
    let script = "# The token has signed, and says otherwise.\n{\"do\":\"arm\",\"fault\":{\"on\":\"C_Sign\",\"moment\":\"after\",\"do\":[{\"return\":\"CKR_DEVICE_ERROR\"}]}}\n";
    let environment = with_script(&lab, script);
    lab.sign_with_tool(environment, USER_PIN, 1);
    let call = lab.log().signings().remove(0);
    assert_eq!((call.outcome, call.rv), (Outcome::Signed, Some(Rv::DEVICE_ERROR)));
    assert_eq!(lab.log().signatures_on(&digest(1)), 1);
}

#[test]
fn a_script_can_pull_the_token_before_anybody_sees_it() {
    let (_directory, lab) = lab();
    let environment = with_script(&lab, "{\"do\":\"remove\",\"token\":\"contract\"}\n");
    let slots = lab.tool(environment, &["--list-slots"]);
    assert!(String::from_utf8_lossy(&slots.stdout).contains("(empty)"), "{slots:?}");
}

#[test]
fn a_state_file_keeps_pin_tries_from_process_to_process() {
    let (_directory, lab) = lab();
    let mut environment = with_script(&lab, "{\"do\":\"pin\",\"policy\":{\"tries\":3}}\n");
    environment.push((variables::STATE, lab.path("tries").into()));
    for _ in 0..3 {
        assert!(stderr(&lab.sign_with_tool(environment.clone(), "000000", 1)).contains("CKR_PIN_INCORRECT"));
    }
    assert!(stderr(&lab.sign_with_tool(environment.clone(), USER_PIN, 1)).contains("CKR_PIN_LOCKED"));
    assert_eq!(lab.log().wrong_pins(), 3);
    fs::remove_file(lab.path("tries")).unwrap();
    assert!(lab.sign_with_tool(environment, USER_PIN, 1).status.success());
}

#[test]
fn what_cannot_work_is_refused_with_the_reason() {
    let (_directory, lab) = lab();
    let refused = |environment: Environment, reason: &str| {
        let output = lab.tool(environment, &["--list-slots"]);
        assert!(!output.status.success() && stderr(&output).contains(reason), "{reason}: {output:?}");
    };
    let with = |name, value: std::ffi::OsString| {
        let mut environment = lab.environment();
        environment.push((name, value));
        environment
    };
    refused(with(variables::MODULE, "".into()), "PKCS11_FAULTS_MODULE is not set");
    refused(with(variables::MODULE, "/nowhere.so".into()), "cannot be loaded");
    refused(with(variables::MODULE, module_path().unwrap().into()), "this module's own");
    refused(with(variables::CONTROL, lab.path("no.sock").into()), "cannot be reached");
    refused(with(variables::SCRIPT, lab.path("no-script").into()), "cannot be read");
    refused(with_script(&lab, "\n{\"do\":\"explode\"}\n"), "line 2 of the script");
    fs::write(lab.path("not-a-log"), "precious\n").unwrap();
    refused(with(variables::LOG, lab.path("not-a-log").into()), "token-side log");
}

#[test]
fn two_benches_do_not_share_a_socket_and_a_dead_ones_socket_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let bench = Bench::start(directory.path()).unwrap();
    assert!(Bench::start(directory.path()).is_err());
    drop(bench);
    assert!(!socket.exists() && Control::connect(&socket).is_err());
    // What a killed bench leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let bench = Bench::start(directory.path()).unwrap();
    assert!(bench.control().arm(Fault::on(Function::C_Sign)).unwrap_err().to_string().contains("does nothing"));
    assert!(bench.control().disarm(1).unwrap_err().to_string().contains("no fault 1"));
    Control::connect(&socket).unwrap();
}

#[test]
fn the_module_exports_all_functions_of_the_standard_by_name() {
    use std::ffi::CString;
    // The symbols of a cdylib are not those of the test binary; some loaders look each of them up.
    let names = fs::read(module_path().unwrap()).unwrap();
    for function in Function::ALL {
        let name = CString::new(function.name()).unwrap();
        let found = names.windows(name.as_bytes_with_nul().len()).any(|window| window == name.as_bytes_with_nul());
        assert!(found, "{function}");
    }
}
