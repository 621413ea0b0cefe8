//! The parsers of what others send, fed with the corpora of the fuzz targets and with what is near to them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "fuzz/entries.rs"]
mod entries;

use std::{collections::BTreeSet, fs, path::PathBuf};

use entries::ENTRIES;

/// How many changes are made to each input.
const CHANGES: usize = 48;

fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// The inputs of a corpus with their names.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(home().join("corpus").join(name)).unwrap_or_else(|error| panic!("the corpus of {name}: {error}"));
    let paths: BTreeSet<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.into_iter().map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

/// Inputs near to this one: a byte changed, the end cut off, a part left out, doubled or moved behind.
fn near(input: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..CHANGES.min(input.len())).map(|change| {
        let at = change * input.len() / CHANGES.min(input.len());
        let (before, behind) = input.split_at(at);
        match change % 5 {
            0 => [before, &[behind[0] ^ (1 << (change % 8))], &behind[1..]].concat(),
            1 => before.to_vec(),
            2 => [before, behind.get(3..).unwrap_or_default()].concat(),
            3 => [before, behind, behind].concat(),
            _ => [behind, before].concat(),
        }
    })
}

#[test]
fn each_parser_takes_something_of_its_corpus_and_survives_what_is_near_to_it() {
    for (name, parser) in ENTRIES {
        let inputs = corpus(name);
        let taken = inputs.iter().filter(|(_, input)| parser(input)).count();
        assert!(taken > 0, "{name} takes nothing of its corpus: it tests no more than the refusal");
        let refused = inputs.iter().flat_map(|(_, input)| near(input)).filter(|input| !parser(input)).count();
        assert!(refused > 0, "{name} takes whatever comes");
    }
}

#[test]
fn every_signature_of_the_corpus_is_good_so_that_what_comes_of_a_change_is_seen() {
    let (_, signature) = ENTRIES.iter().find(|(name, _)| *name == "signature").unwrap();
    for (name, input) in corpus("signature").iter().filter(|(name, _)| !name.contains("found-")) {
        assert!(signature(input), "{name}");
    }
}

#[test]
fn each_parser_has_its_fuzz_target() {
    let manifest = fs::read_to_string(home().join("Cargo.toml")).unwrap();
    let targets: BTreeSet<&str> = manifest.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    let wanted: BTreeSet<&str> = ENTRIES.iter().map(|(name, _)| *name).chain(["sealgate-fuzz"]).collect();
    assert_eq!(targets, wanted);
}
