//! The gateway that is examined: its configuration, as meant and as written.

use std::path::{Path, PathBuf};

use super::{finding::Fix, shell};
use crate::{
    config::{Config, EnvValue, ModuleSettings},
    domain::{
        key_uri::Pkcs11Uri,
        token::{PinSource, TokenIdentity, TokenPolicy},
    },
};

/// The gateway that is examined.
pub(super) struct Site {
    /// Its configuration.
    pub(super) config: Config,
    /// Where that stands.
    pub(super) file: PathBuf,
    /// Its text, for fixes that change a line of it.
    pub(super) text: String,
}

impl Site {
    /// A command of this program about this gateway.
    pub(super) fn sealgate(&self, verb_and_options: &str) -> String {
        format!("{} {verb_and_options} --config {}", shell::program(), shell::word(&self.file))
    }

    /// Has the gateway that runs log `uri` in. With a PIN file there is nothing to type.
    pub(super) fn unlock(&self, options: &str, uri: &Pkcs11Uri, pin: Option<&PinSource>) -> String {
        let pin_file = match pin {
            Some(PinSource::File(file)) => format!(" --pin-file {}", shell::word(file)),
            _ => String::new(),
        };
        format!("{}{pin_file} {}", self.sealgate(&format!("unlock{options}")), shell::word(uri.to_string()))
    }

    /// How the configuration wants a token treated.
    pub(super) fn policy(&self, token: &TokenIdentity) -> Option<&TokenPolicy> {
        self.config.token_policies.iter().find(|policy| policy.uri.matches_token(token)).or(self.config.unlisted.as_ref())
    }

    /// A command that puts `new` in the place of `old` where it stands in the configuration; `None` if it does not, or more than once.
    pub(super) fn replace(&self, old: &str, new: &str) -> Option<Fix> {
        replace(&self.file, &self.text, old, new)
    }

    /// A command that removes `field` from the `[[section]]` with this name; `None` if it does not stand there in the usual way.
    pub(super) fn remove_field(&self, section: &str, name: &str, field: &str) -> Option<Fix> {
        let number = line_of_field(&self.text, section, name, field)?;
        Some(Fix::command(shell::remove_line(&self.file, number)))
    }
}

/// See [`Site::replace`].
pub(super) fn replace(file: &Path, text: &str, old: &str, new: &str) -> Option<Fix> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#') && line.contains(old));
    let (index, _) = lines.next()?;
    lines.next().is_none().then(|| Fix::command(shell::replace_on_line(file, index + 1, old, new)))
}

/// A variable of a module's environment.
pub(super) fn variable<'a>(module: &'a ModuleSettings, name: &str) -> Option<&'a str> {
    module.env.get(name).map(|EnvValue(value)| value.as_str())
}

/// The number of the line `field = …` in the section `[[section]]` that has `name = "…"`.
fn line_of_field(text: &str, section: &str, name: &str, field: &str) -> Option<usize> {
    let header = format!("[[{section}]]");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let starts = lines.iter().enumerate().filter(|(_, line)| **line == header).map(|(index, _)| index);
    starts.into_iter().find_map(|start| {
        let end = lines.iter().skip(start + 1).position(|line| line.starts_with('[')).map_or(lines.len(), |length| start + 1 + length);
        let body = lines.get(start..end)?;
        let value_of =
            |line: &str, field: &str| line.strip_prefix(field)?.trim_start().strip_prefix('=').map(|value| value.trim().to_owned());
        body.iter().find(|line| value_of(line, "name").is_some_and(|value| value.trim_matches(['"', '\'']) == name))?;
        body.iter().position(|line| value_of(line, field).is_some()).map(|offset| start + offset + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "data_dir = \"d\"\n[[key]]\nname = \"a\"\nalgorithm = \"x\"\n\n[[key]]\nname = \"b\"\nalgorithm_x = 1\nalgorithm = \"y\"\n[http]\n";

    #[test]
    fn a_field_is_found_in_the_section_with_the_name() {
        assert_eq!(line_of_field(TEXT, "key", "a", "algorithm"), Some(4));
        assert_eq!(line_of_field(TEXT, "key", "b", "algorithm"), Some(9));
        assert_eq!(line_of_field(TEXT, "key", "b", "certificate"), None);
        assert_eq!(line_of_field(TEXT, "key", "c", "algorithm"), None);
    }

    #[test]
    fn text_that_stands_twice_is_not_replaced() {
        let file = Path::new("f");
        assert_eq!(replace(file, TEXT, "\"d\"", "\"e\""), Some(Fix::command("sed -i '1s|\"d\"|\"e\"|' f")));
        assert_eq!(replace(file, TEXT, "[[key]]", "x"), None);
        assert_eq!(replace(file, TEXT, "nowhere", "x"), None);
    }
}
