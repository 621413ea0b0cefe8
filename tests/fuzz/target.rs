//! The fuzz target of the parser that is called as this program is.

#![no_main]

mod entries;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static PARSER: LazyLock<fn(&[u8]) -> bool> = LazyLock::new(|| {
    let own = entries::ENTRIES.iter().find(|(name, _)| *name == env!("CARGO_BIN_NAME"));
    own.expect("a parser of this name").1
});

fuzz_target!(|bytes: &[u8]| {
    PARSER(bytes);
});
