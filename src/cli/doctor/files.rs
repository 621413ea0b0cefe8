//! The gateway's own files: the data folder, the record of PIN tries, the spool, PIN files; whose they are, who can reach them, and whether
//! there is room.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use rustix::{fs::statvfs, process::geteuid};

use super::{
    finding::{Findings, Fix},
    shell::{self, as_root, word},
    site::Site,
};
use crate::{
    cli::data_folder::control_socket,
    domain::token::PinSource,
    store::pin_ledger::{self, LEDGER_FILE, SECRET_FILE},
    token::pin_source::{self, PinSourceError},
};

const DATA: &str = "data-folder";
const PINS: &str = "pin-file";
const RECORD: &str = "pin-record";
const SPOOL: &str = "spool";

/// Less room than this, in bytes, is worth a warning: some uploads of the largest size fit.
const ROOM_LOW: u64 = 512 << 20;
/// With less room than this, in bytes, not even the record of PIN tries is safe.
const ROOM_NONE: u64 = 16 << 20;
/// The longest path of a Unix socket, in bytes (`sun_path` with its final zero has 108).
const SOCKET_PATH_MAX: usize = 100;

/// Looks at all of them.
pub(super) fn examine(site: &Site, findings: &mut Findings) {
    data_folder(site, findings);
    pin_record(site, findings);
    spool(site, findings);
    room(&site.config.data_dir, findings);
    for policy in &site.config.token_policies {
        if let Some(source) = &policy.pin {
            pin(site, source, findings);
        }
    }
}

/// The user to whom the data folder belongs, if it is another than the one that runs this.
pub(super) fn other_owner(dir: &Path) -> Option<u32> {
    fs::metadata(dir).ok().map(|folder| folder.uid()).filter(|uid| *uid != geteuid().as_raw())
}

fn data_folder(site: &Site, findings: &mut Findings) {
    let dir = &site.config.data_dir;
    let shown = dir.display();
    let folder = match fs::metadata(dir) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return findings.ok(DATA, format!("{shown} will be made")),
        Err(error) => {
            let fix = Fix::by_hand("run doctor as the user that runs the gateway");
            return findings.fault(DATA, format!("{shown} cannot be looked at: {error}"), "the gateway cannot start without it", fix);
        }
    };
    if !folder.is_dir() {
        let fix = put_aside_and_make(dir);
        return findings.fault(DATA, format!("{shown} is not a folder"), "the gateway cannot start without it", fix);
    }
    if let Some(owner) = other_owner(dir) {
        let fix = Fix::command(shell::as_user(owner, &site.sealgate("doctor")));
        let why =
            "tokens are not logged in here and what is found is about this user; run as another, the gateway could not use its own files";
        findings.warning("user", format!("{shown} belongs to user {owner}, this runs as user {}", geteuid().as_raw()), why, fix);
    }
    if exposed(&folder, 0o022) {
        let why = "others could replace the gateway's files, the record of PIN tries among them";
        return findings.fault(DATA, format!("others can write {shown} ({})", mode(&folder)), why, chmod("700", dir));
    }
    if exposed(&folder, 0o055) {
        let why = "what stands there is for the gateway alone";
        findings.warning(DATA, format!("{shown} is open to others ({})", mode(&folder)), why, chmod("700", dir));
    }
    if folder.mode() & 0o700 != 0o700 {
        return findings.fault(
            DATA,
            format!("{shown} is closed to its owner ({})", mode(&folder)),
            "the gateway cannot write there",
            chmod("700", dir),
        );
    }
    if other_owner(dir).is_none()
        && let Err(error) = tempfile::tempfile_in(dir)
    {
        let fix = Fix::by_hand(format!("make {shown} writable; the file system may be read-only or full"));
        return findings.fault(DATA, format!("{shown} cannot be written: {error}"), "no PIN is tried that cannot be recorded", fix);
    }
    let socket = control_socket(dir);
    if socket.as_os_str().len() > SOCKET_PATH_MAX {
        let fix = Fix::by_hand("choose a shorter `data_dir`");
        return findings.fault(
            DATA,
            format!("the path of {} is too long", socket.display()),
            "the control socket cannot be made there",
            fix,
        );
    }
    findings.ok(DATA, shown.to_string());
}

fn pin_record(site: &Site, findings: &mut Findings) {
    let dir = &site.config.data_dir;
    for file in [LEDGER_FILE, SECRET_FILE].map(|name| dir.join(name)) {
        let Ok(metadata) = fs::metadata(&file) else { continue };
        if exposed(&metadata, 0o077) {
            let why = "with both files of the record, PINs that were rejected can be guessed";
            findings.fault(RECORD, format!("{} is open to others ({})", file.display(), mode(&metadata)), why, chmod("600", &file));
        }
        let owner = fs::metadata(dir).map_or_else(|_| metadata.uid(), |folder| folder.uid());
        if metadata.uid() != owner {
            let fix = Fix::command(as_root(&format!("chown {owner} {}", word(&file))));
            findings.fault(RECORD, format!("{} belongs to user {}", file.display(), metadata.uid()), "the gateway cannot use it", fix);
        }
    }
    let damaged = pin_ledger::rejections(dir).err().map(|error| error.to_string()).or_else(|| secret_is_missing(dir));
    match damaged {
        Some(error) => {
            let aside = |name| format!("mv -f {} {}", word(dir.join(name)), word(dir.join(format!("{name}.damaged"))));
            let fix = Fix::command(format!("{}; {}", aside(LEDGER_FILE), aside(SECRET_FILE)));
            let why = "without its record the gateway tries no PIN; with a new one, a PIN that a token has rejected may be tried once more";
            findings.fault(RECORD, error, why, fix);
        }
        None if findings.has_fault(RECORD) => {}
        None => findings.ok(RECORD, "the record of PIN tries is readable"),
    }
}

fn secret_is_missing(dir: &Path) -> Option<String> {
    let missing = dir.join(LEDGER_FILE).exists() && !dir.join(SECRET_FILE).exists();
    missing.then(|| format!("{} is there without {SECRET_FILE}", dir.join(LEDGER_FILE).display()))
}

fn spool(site: &Site, findings: &mut Findings) {
    let spool = site.config.data_dir.join("spool");
    let Ok(metadata) = fs::symlink_metadata(&spool) else { return };
    let shown = spool.display();
    if !metadata.is_dir() {
        findings.fault(SPOOL, format!("{shown} is not a folder"), "uploads cannot be kept there", put_aside_and_make(&spool));
    } else if exposed(&metadata, 0o077) || metadata.mode() & 0o700 != 0o700 {
        let what = format!("{shown} has the mode {}", mode(&metadata));
        findings.fault(SPOOL, what, "uploads are for the gateway alone", chmod("700", &spool));
    } else {
        findings.ok(SPOOL, shown.to_string());
    }
}

fn room(dir: &Path, findings: &mut Findings) {
    let existing = dir.ancestors().find(|folder| folder.exists()).unwrap_or(dir);
    if let Ok(volume) = statvfs(existing) {
        judge_room(volume.f_bavail.saturating_mul(volume.f_frsize), existing, findings);
    }
}

fn judge_room(free: u64, dir: &Path, findings: &mut Findings) {
    let what = format!("{} MiB free at {}", free >> 20, dir.display());
    let why = "uploads, and the record of PIN tries, need room";
    let fix = || Fix::by_hand("remove what is not needed there, or move `data_dir`");
    if free < ROOM_NONE {
        findings.fault("disk-space", what, why, fix());
    } else if free < ROOM_LOW {
        findings.warning("disk-space", what, why, fix());
    } else {
        findings.ok("disk-space", what);
    }
}

fn pin(site: &Site, source: &PinSource, findings: &mut Findings) {
    let why = "the token cannot be logged in";
    let owner = fs::metadata(&site.config.data_dir).ok().map(|folder| folder.uid());
    // Only whether it can be read: the PIN is wiped at once.
    match (pin_source::read(source).map(drop), source) {
        (Ok(()), PinSource::File(file)) => {
            let of_file = fs::metadata(file).ok().map(|file| file.uid());
            match (of_file, owner) {
                (Some(has), Some(wanted)) if has != wanted && wanted != 0 => {
                    let fix = Fix::command(as_root(&format!("chown {wanted} {}", word(file))));
                    findings.fault(PINS, format!("{} belongs to user {has}, the gateway is user {wanted}", file.display()), why, fix);
                }
                _ => findings.ok(PINS, file.display().to_string()),
            }
        }
        (Ok(()), _) => findings.ok(PINS, "the configured PIN can be read"),
        (Err(PinSourceError::Exposed(_)), PinSource::File(file)) => findings.fault(
            PINS,
            format!("others can read {}", file.display()),
            "whoever can read the PIN and reach the token can sign",
            chmod("600", file),
        ),
        (Err(PinSourceError::Format(error)), PinSource::File(file)) => {
            let fix = Fix::command(shell::write_pin(file, owner));
            findings.fault(PINS, format!("{} holds no PIN: {error}", file.display()), why, fix);
        }
        (Err(error @ PinSourceError::Unreadable { .. }), PinSource::File(file)) => {
            let fix = Fix::command(as_root(&format!("chown {} {}", owner.unwrap_or_else(|| geteuid().as_raw()), word(file))));
            findings.fault(PINS, error.to_string(), why, fix);
        }
        (Err(error), PinSource::File(_)) => findings.fault(PINS, error.to_string(), why, Fix::by_hand("correct the PIN file")),
        // What the gateway is started with is not known here.
        (Err(error), PinSource::Environment(_) | PinSource::Credential(_)) => {
            let fix = Fix::by_hand("see that the gateway is started with it; to prove the keys, start doctor with it too");
            findings.warning(PINS, format!("{error} here"), "keys on this token are not proved", fix);
        }
    }
}

fn exposed(file: &Metadata, to: u32) -> bool {
    !file.file_type().is_socket() && file.mode() & to != 0
}

fn mode(file: &Metadata) -> String {
    format!("mode {:o}", file.mode() & 0o7777)
}

fn chmod(mode: &str, path: &Path) -> Fix {
    Fix::command(format!("chmod {mode} {}", word(path)))
}

fn put_aside_and_make(path: &Path) -> Fix {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".aside");
    Fix::command(format!("mv -n {0} {1} && install -d -m 700 {0}", word(path), word(aside)))
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Severity, *};

    #[test]
    fn little_room_is_a_warning_and_none_a_fault() {
        let severity = |free| {
            let mut findings = Findings::default();
            judge_room(free, Path::new("/data"), &mut findings);
            findings.all()[0].severity
        };
        assert_eq!(severity(ROOM_LOW), Severity::Ok);
        assert_eq!(severity(ROOM_LOW - 1), Severity::Warning);
        assert_eq!(severity(ROOM_NONE - 1), Severity::Fault);
    }
}
