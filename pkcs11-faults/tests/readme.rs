//! The README's examples, run as they are printed.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use pkcs11_faults::module_path;

/// What follows a command in the README.
const PRINTS: &str = "# prints: ";

/// The README's shell blocks as one script that stops at the first command that fails or prints something else.
fn script(readme: &str) -> String {
    // Where a test ends, its bench and its held programs end too.
    let mut script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    let blocks = readme.split("\n```sh\n").skip(1).map(|block| block.split_once("\n```").unwrap().0);
    for lines in blocks.map(|block| block.lines().collect::<Vec<_>>()) {
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| !line.starts_with(PRINTS)) {
            match lines.get(at + 1).and_then(|next| next.strip_prefix(PRINTS)) {
                Some(printed) => script += &format!("check {} {}\n", quoted(line), quoted(printed)),
                None => script += &format!("{line}\n"),
            }
        }
    }
    script
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Runs a command in the script's own shell and looks for what it is to print.
const CHECK: &str = r#"
check() {
    eval "$1" > printed.txt 2>&1 || true
    grep -qF -- "$2" printed.txt && return
    echo "README: this command does not print what it says: $1"
    echo "expected: $2"
    cat printed.txt
    exit 1
}
"#;

#[test]
fn the_readmes_examples_run_as_printed() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let built = directory.path().join("target/debug");
    fs::create_dir_all(&built).unwrap();
    symlink(module_path().unwrap(), built.join("libpkcs11_faults.so")).unwrap();
    symlink(env!("CARGO_BIN_EXE_pkcs11-faults-ctl"), built.join("pkcs11-faults-ctl")).unwrap();
    let script = format!("{CHECK}{}", script(&readme));
    assert!(script.matches("check ").count() > 30, "the examples are found");
    let run = Command::new("bash").args(["-c", &script]).current_dir(directory.path()).env("TMPDIR", directory.path()).output().unwrap();
    let texts = [run.stdout, run.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(run.status.success(), "{}\n{}\n{}", run.status, texts[0], texts[1]);
}
