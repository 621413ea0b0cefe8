//! Shell commands that can be run as they are printed: quoting, and the commands that several checks print.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// A word of a command, in quotes where it needs them.
pub(super) fn word(text: impl AsRef<OsStr>) -> String {
    let text = text.as_ref().to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// This program, as a command can call it.
pub(super) fn program() -> String {
    let called = env::args_os().next().map(PathBuf::from);
    match called {
        // It was found by its name; so will it be again.
        Some(name) if name.components().count() == 1 => word(name),
        Some(_) => program_file(),
        None => "sealgate".to_owned(),
    }
}

/// The file of this program.
pub(super) fn program_file() -> String {
    env::current_exe().map_or_else(|_| "sealgate".to_owned(), word)
}

/// `command` with the rights of root, which this process may have already.
pub(super) fn as_root(command: &str) -> String {
    if rustix::process::geteuid().is_root() { command.to_owned() } else { format!("sudo {command}") }
}

/// `command` as the user with this number.
pub(super) fn as_user(uid: u32, command: &str) -> String {
    format!("sudo -u '#{uid}' {command}")
}

/// Asks for a PIN at the terminal, without showing it, and writes it to `file`, which only `owner` can read.
pub(super) fn write_pin(file: &Path, owner: Option<u32>) -> String {
    let file = word(file);
    // The file is made private before anything stands in it.
    let write = format!(
        "printf 'PIN: ' >&2; stty -echo 2>/dev/null; read -r pin; stty echo 2>/dev/null; \
         install -m 600 /dev/null {file} && printf '%s\\n' \"$pin\" >{file}"
    );
    match owner {
        Some(owner) if owner != rustix::process::geteuid().as_raw() => format!("{write} && {}", as_root(&format!("chown {owner} {file}"))),
        _ => write,
    }
}

/// Installs a package by whichever package manager this machine has; the names are those of Debian, Fedora and Arch.
pub(super) fn install(debian: &str, fedora: &str, arch: &str, again: bool) -> String {
    let has = |program: &str| Path::new("/usr/bin").join(program).exists();
    if has("dnf") {
        as_root(&format!("dnf {} -y {fedora}", if again { "reinstall" } else { "install" }))
    } else if has("pacman") {
        as_root(&format!("pacman -S --noconfirm {arch}"))
    } else {
        as_root(&format!("apt-get install -y {}{debian}", if again { "--reinstall " } else { "" }))
    }
}

/// Replaces `old` by `new` on line `number` of `file`.
pub(super) fn replace_on_line(file: &Path, number: usize, old: &str, new: &str) -> String {
    let script = format!("{number}s|{}|{}|", escaped(old, r".*[]^$|\"), escaped(new, r"&|\"));
    format!("sed -i {} {}", word(script), word(file))
}

/// Removes line `number` of `file`.
pub(super) fn remove_line(file: &Path, number: usize) -> String {
    format!("sed -i {number}d {}", word(file))
}

fn escaped(text: &str, special: &str) -> String {
    text.chars().flat_map(|c| special.contains(c).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn what_the_shell_would_take_apart_is_quoted() {
        assert_eq!(word("/etc/sealgate.toml"), "/etc/sealgate.toml");
        for odd in ["", "a b", "it's", "$HOME", "pkcs11:token=a;id=%01", "`x`"] {
            let output = Command::new("sh").args(["-c", &format!("printf %s {}", word(odd))]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), odd);
        }
    }

    #[test]
    fn text_is_replaced_to_the_letter() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (old, new) = ("a.b*[c]^$|\\d", "x&y|\\z 'q'");
        fs::write(file.path(), format!("{old}\n= {old}\n")).unwrap();
        assert!(Command::new("sh").args(["-c", &replace_on_line(file.path(), 2, old, new)]).status().unwrap().success());
        assert_eq!(fs::read_to_string(file.path()).unwrap(), format!("{old}\n= {new}\n"));
    }
}
