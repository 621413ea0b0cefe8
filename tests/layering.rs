//! The house rules that the compiler does not know: who may use whom, where `cryptoki` and unsafe code may stand, how long a file may be.
//!
//! The table below is section "Who may use whom" of docs/architecture.md. Code under `#[cfg(test)]` is free: tests put parts together.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// For each module of the crate, the others that it may use. `cli` puts the parts together and may use all of them.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("config", &["domain"]),
    ("cms", &["domain"]),
    ("pki", &["domain"]),
    ("token", &["telemetry", "domain"]),
    ("store", &["telemetry", "domain"]),
    ("audit", &["store", "domain"]),
    ("auth", &["store", "domain"]),
    ("permit", &["store", "audit", "telemetry", "domain"]),
    ("signing", &["token", "store", "permit", "audit", "telemetry", "domain"]),
    ("stamping", &["signing", "verification", "cms", "pki", "store", "domain"]),
    ("verification", &["cms", "pki", "domain"]),
    ("ticket", &["signing", "stamping", "verification", "cms", "pki", "store", "permit", "domain"]),
    ("csc", &["signing", "cms", "pki", "store", "permit", "domain"]),
    ("enrolment", &["signing", "verification", "token", "cms", "pki", "store", "permit", "domain"]),
    ("notify", &["telemetry", "domain"]),
    ("http", &["signing", "stamping", "ticket", "csc", "enrolment", "permit", "auth", "audit", "telemetry", "domain"]),
    ("telemetry", &["domain"]),
    ("shutdown", &[]),
    ("cli", &["*"]),
];

/// The only place that may know PKCS#11.
const CRYPTOKI_HOME: &str = "token/pkcs11";

/// Every file that may hold unsafe code, each with SAFETY comments.
const UNSAFE_FILES: &[&str] = &["token/host/fence.rs", "token/pkcs11/raw.rs"];

const LINES_MAX: usize = 800;
const LINES_WANTED: usize = 500;
const HEADER_MAX: usize = 12;

/// A source file of the crate.
struct Source {
    /// Its path below `src/`.
    path: String,
    text: String,
}

impl Source {
    /// The lines that are built into the program, without comments.
    fn code(&self) -> impl Iterator<Item = &str> {
        let built = if self.is_test() { "" } else { self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default() };
        built.lines().map(|line| line.split("//").next().unwrap_or_default())
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// The path of the file as a module: `["token", "pkcs11"]` for both `token/pkcs11.rs` and `token/pkcs11/mod.rs`.
    fn module(&self) -> Vec<&str> {
        let stem = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        stem.split('/').collect()
    }

    /// The top-level modules of the crate that the code names.
    fn uses(&self) -> BTreeSet<String> {
        let code: String = self.code().collect::<Vec<_>>().join("\n");
        let mut found = roots_after(&code, "crate::");
        let up = "super::".repeat(self.module().len());
        found.extend(roots_after(&code, &up));
        found
    }
}

/// The first path segment of everything that follows `prefix`, through one level of braces.
fn roots_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut roots = BTreeSet::new();
    for (start, _) in code.match_indices(prefix) {
        let is_whole_word = !code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        if !is_whole_word {
            continue;
        }
        let rest = &code[start + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => roots.extend(group_members(group)),
            None => roots.extend(first_word(rest)),
        }
    }
    roots
}

fn group_members(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut members = Vec::new();
    let mut member_start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.extend(first_word(&group[member_start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.extend(first_word(&group[member_start..at]));
                member_start = at + 1;
            }
            _ => {}
        }
    }
    members
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!word.is_empty()).then_some(word)
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 10, "the sources were not found");
    files.sort();
    let relative = |file: &PathBuf| file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    files.iter().map(|file| Source { path: relative(file), text: fs::read_to_string(file).unwrap() }).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn complain(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

/// What is wrong with the modules that `source` uses.
fn forbidden_uses(source: &Source) -> Vec<String> {
    let module = source.module()[0].to_owned();
    if module == "lib" || module == "main" {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{}: `{module}` is not in the table; say there what it may use", source.path)];
    };
    let known: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    let is_forbidden =
        |used: &String| known.contains(used.as_str()) && *used != module && !allowed.contains(&used.as_str()) && *allowed != ["*"];
    source.uses().into_iter().filter(is_forbidden).map(|used| format!("{} uses `{used}`", source.path)).collect()
}

#[test]
fn modules_use_only_those_below_them() {
    let offences: Vec<String> = sources().iter().flat_map(forbidden_uses).collect();
    complain("design rule \"who may use whom\"", &offences);
}

#[test]
fn the_check_of_uses_sees_every_way_to_write_one() {
    let uses = |path: &str, text: &str| forbidden_uses(&Source { path: path.to_owned(), text: text.to_owned() });
    assert_eq!(
        uses("ticket/mod.rs", "use crate::{\n    domain::{ids::TicketId, pin::Pin},\n    http::app,\n};"),
        ["ticket/mod.rs uses `http`"]
    );
    assert_eq!(uses("store/memory.rs", "let x = crate::token::slot();"), ["store/memory.rs uses `token`"]);
    assert_eq!(uses("store/memory.rs", "use super::super::token::slot;"), ["store/memory.rs uses `token`"]);
    assert_eq!(uses("store/mod.rs", "pub use super::cli;"), ["store/mod.rs uses `cli`"]);
    assert_eq!(uses("attic/mod.rs", "").len(), 1);
    for fine in
        ["use crate::domain::ids;", "use super::ticket::x;", "// crate::http", "#[cfg(test)]\nmod tests {\n    use crate::http::x;\n}"]
    {
        assert_eq!(uses("ticket/service.rs", fine), [""; 0], "{fine}");
    }
}

#[test]
fn only_the_pkcs11_driver_knows_cryptoki() {
    let outside = sources().into_iter().filter(|source| !source.path.starts_with(CRYPTOKI_HOME));
    let offences: Vec<String> =
        outside.filter(|source| source.code().any(|line| names_crate(line, "cryptoki"))).map(|source| source.path).collect();
    complain("cryptoki outside src/token/pkcs11", &offences);
}

/// Whether a line of code names the crate `name`, or its `_sys` crate, in a path or an import.
fn names_crate(line: &str, name: &str) -> bool {
    [name.to_owned(), format!("{name}_sys")].iter().any(|name| {
        let in_path = line.contains(&format!("{name}::"));
        in_path || line.trim_start().starts_with(&format!("use {name}"))
    })
}

#[test]
fn unsafe_code_stands_only_where_this_test_says() {
    let has_some = |source: &Source| source.text.contains("allow(unsafe_code)") || source.text.contains("expect(unsafe_code)");
    let found: Vec<String> = sources().into_iter().filter(has_some).map(|source| source.path).collect();
    assert_eq!(found, UNSAFE_FILES, "files with unsafe code");
}

#[test]
fn only_the_command_line_prints() {
    let prints = |line: &str| ["println!", "print!(", "dbg!"].iter().any(|call| line.contains(call));
    let outside = sources().into_iter().filter(|source| !source.path.starts_with("cli/"));
    let offences: Vec<String> = outside.filter(|source| source.code().any(prints)).map(|source| source.path).collect();
    complain("printing outside src/cli", &offences);
}

#[test]
fn every_file_says_briefly_what_it_is_for() {
    let header = |source: &Source| source.text.lines().take_while(|line| line.starts_with("//!")).count();
    let silent = |source: &Source| !source.is_test() && !(1..=HEADER_MAX).contains(&header(source));
    let offences: Vec<String> = sources().into_iter().filter(silent).map(|source| source.path).collect();
    complain("no `//!` at the top, or more than 12 lines of it", &offences);
}

#[test]
fn no_file_has_grown_out_of_hand() {
    let mut offences = Vec::new();
    for source in sources() {
        let lines = source.code().count();
        if lines > LINES_MAX {
            offences.push(format!("{} has {lines} lines", source.path));
        } else if lines > LINES_WANTED {
            eprintln!("{} has {lines} lines; divide it when you next work on it", source.path);
        }
    }
    complain("files of more than 800 lines without their tests", &offences);
}
