//! The text of the configurations that `init` writes.

use std::{fmt::Write as _, path::Path};

use toml::Value;

use super::{answers::Answers, files::Tls, token::Found};

/// A configuration to look at the tokens of a module with.
pub(super) fn look(answers: &Answers, dir: &Path) -> String {
    format!("data_dir = {}\n{}\n[tokens]\nunlisted = \"operator\"\n", path(&dir.join("data")), module(answers))
}

/// The configuration of the gateway.
pub(super) fn configuration(answers: &Answers, found: &Found, tls: Option<&Tls>, data_dir: &Path) -> String {
    let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let mut text = format!(
        "# Written by `sealgate init`; docs/configuration.md has every setting. Check what you change: sealgate config check --config FILE\n\
         data_dir = {}\n\n[[listener]]\naddress = \"{}\"\n",
        path(&absolute),
        answers.listen
    );
    // Writing to a string cannot fail, here and below.
    if let Some(Tls { certificate, key, .. }) = tls {
        let _ = writeln!(text, "tls = {{ certificate = {}, key = {} }}", path(certificate), path(key));
    }
    if !answers.hosts.is_empty() {
        let hosts: Vec<_> = answers.hosts.iter().map(|host| quoted(host)).collect();
        let _ = write!(text, "\n[http]\nallowed_hosts = [{}]\n", hosts.join(", "));
    }
    let _ = write!(text, "\n{}", module(answers));
    let _ = write!(text, "\n[[token]]\nuri = {}\n", quoted(&found.token.to_string()));
    match &answers.pin_file {
        Some(file) => {
            let _ = writeln!(text, "login = \"configured\"\npin = {{ file = {} }}", path(file));
        }
        None => text.push_str("login = \"operator\"\n"),
    }
    text.push_str("\n[tokens]\nunlisted = \"ignore\"\n");
    for key in &found.keys {
        let _ = write!(text, "\n[[key]]\nname = \"{}\"\nuri = {}\n", key.name, quoted(&key.uri.to_string()));
    }
    if found.keys.is_empty() {
        text.push_str("\n# [[key]]\n# name = \"seal\"\n# uri = \"…\"            # as `sealgate keys` prints it\n");
    }
    text.push_str("\n# Callers are added with `sealgate callers add`; docs/callers.md says how.\n");
    text
}

fn module(answers: &Answers) -> String {
    let mut text = format!("[[module]]\nname = \"token\"\npath = {}\n", path(&answers.module));
    if !answers.module_env.is_empty() {
        let variables: Vec<_> = answers.module_env.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(value))).collect();
        let _ = writeln!(text, "env = {{ {} }}", variables.join(", "));
    }
    text
}

fn path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

/// `text` as a TOML string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
