//! The machine under the modules: the smart-card daemon, its socket and its permission, and the readers that the kernel sees.
//!
//! Paths start from a root, so that tests can bring a machine of their own.

use std::{
    fs, io,
    io::Read as _,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use rustix::process::{Uid, geteuid};

use super::{
    finding::{Findings, Fix},
    shell::{as_root, install, word},
    site::{Site, variable},
};
use crate::config::ModuleSettings;

const PCSCD: &str = "pcscd";
/// Where the daemon listens, unless `PCSCLITE_CSOCK_NAME` says otherwise.
const SOCKET: &str = "run/pcscd/pcscd.comm";
/// What of a module is looked through for the library that needs the daemon, in bytes.
const MODULE_MAX: u64 = 64 << 20;
/// The USB class of smart-card readers (CCID).
const SMART_CARD: &str = "0b";

/// A reader on the USB that the kernel sees.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reader {
    product: String,
    node: PathBuf,
}

/// Looks at what modules for cards need; `tokens` is how many tokens are seen.
pub(super) fn examine(site: &Site, tokens: usize, findings: &mut Findings) {
    let root = Path::new("/");
    let needing: Vec<&ModuleSettings> = site.config.modules.iter().filter(|module| needs_pcscd(module)).collect();
    let Some(module) = needing.first() else { return };
    let socket = variable(module, "PCSCLITE_CSOCK_NAME").map_or_else(|| root.join(SOCKET), PathBuf::from);
    examine_socket(root, &socket, module, findings);
    let readers = readers(root);
    if readers.is_empty() && tokens == 0 {
        let fix = Fix::by_hand("plug the reader in; `lsusb` shows what the kernel sees");
        findings.warning(
            "reader",
            "the kernel sees no smart-card reader on the USB",
            "cards need a reader (one on the network is not seen here)",
            fix,
        );
    }
    for reader in readers {
        examine_reader(&reader, tokens, findings);
    }
    if tokens == 0 && !findings.has_fault(PCSCD) {
        examine_polkit(root, geteuid(), findings);
    }
}

/// OpenSC's modules load the daemon's library at run time; others link it.
fn needs_pcscd(module: &ModuleSettings) -> bool {
    let spied = variable(module, "PKCS11SPY").map(PathBuf::from);
    let paths = spied.iter().chain([&module.path]);
    paths.into_iter().any(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains("opensc") || name.contains("onepin") || mentions_pcsclite(path)
    })
}

fn mentions_pcsclite(library: &Path) -> bool {
    let mut content = Vec::new();
    let read = fs::File::open(library).and_then(|file| file.take(MODULE_MAX).read_to_end(&mut content));
    read.is_ok() && content.windows(PCSCLITE.len()).any(|window| window == PCSCLITE)
}

const PCSCLITE: &[u8] = b"libpcsclite";

fn examine_socket(root: &Path, socket: &Path, module: &ModuleSettings, findings: &mut Findings) {
    let shown = socket.display();
    let why = "without the smart-card daemon the module sees no reader";
    match UnixStream::connect(socket) {
        Ok(_) => findings.ok(PCSCD, format!("module {}: the smart-card daemon answers at {shown}", module.name)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let fix = Fix::command(as_root(&format!("chmod a+rw {}", word(socket))));
            findings.fault(PCSCD, format!("user {} may not use {shown}", geteuid().as_raw()), why, fix);
        }
        Err(error) => {
            let what = format!("module {} needs pcscd, which does not answer at {shown}: {error}", module.name);
            findings.fault(PCSCD, what, why, start_pcscd(root));
        }
    }
}

fn start_pcscd(root: &Path) -> Fix {
    let installed = ["usr/sbin/pcscd", "usr/bin/pcscd"].iter().any(|path| root.join(path).exists());
    let systemd = root.join("run/systemd/system").is_dir();
    let start = if systemd { as_root("systemctl enable --now pcscd.socket pcscd.service") } else { as_root("pcscd") };
    Fix::command(if installed {
        start
    } else {
        format!("{} && {start}", install("pcscd", "pcsc-lite pcsc-lite-ccid", "pcsclite ccid", false))
    })
}

fn examine_reader(reader: &Reader, tokens: usize, findings: &mut Findings) {
    let Reader { product, node } = reader;
    if !node.exists() {
        let fix = Fix::command(as_root("udevadm trigger --subsystem-match=usb --action=add"));
        let why = "the smart-card daemon reaches readers through it";
        return findings.fault("udev", format!("{product}: there is no device {}", node.display()), why, fix);
    }
    if tokens == 0 {
        let restart = if Path::new("/run/systemd/system").is_dir() { "systemctl restart pcscd" } else { "pcscd" };
        let fix = Fix::command(format!("{} && {}", as_root("udevadm trigger --subsystem-match=usb --action=add"), as_root(restart)));
        let what = format!("{product} is plugged in ({}), but no token is seen", node.display());
        return findings.warning("reader", what, "there may be no card in it, or the daemon may not reach it", fix);
    }
    findings.ok("reader", product.clone());
}

/// The smart-card readers on the USB.
fn readers(root: &Path) -> Vec<Reader> {
    let devices = root.join("sys/bus/usb/devices");
    let Ok(entries) = fs::read_dir(&devices) else { return Vec::new() };
    let text = |path: PathBuf| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let reader = |interface: fs::DirEntry| {
        text(interface.path().join("bInterfaceClass")).filter(|class| class == SMART_CARD)?;
        // An interface is called after its device: `1-2:1.0` is one of `1-2`.
        let name = interface.file_name().into_string().ok()?;
        let device = devices.join(name.split(':').next()?);
        let number = |file: &str| text(device.join(file))?.parse::<u32>().ok();
        let node = root.join(format!("dev/bus/usb/{:03}/{:03}", number("busnum")?, number("devnum")?));
        Some(Reader { product: text(device.join("product")).unwrap_or_else(|| "a smart-card reader".to_owned()), node })
    };
    let mut found: Vec<Reader> = entries.flatten().filter_map(reader).collect();
    found.dedup();
    found
}

/// A daemon that asks polkit lets only users at the machine's own screen see readers.
fn examine_polkit(root: &Path, uid: Uid, findings: &mut Findings) {
    let asks = root.join("usr/share/polkit-1/actions/org.debian.pcsc-lite.policy").exists();
    let rule = root.join("etc/polkit-1/rules.d/50-sealgate-pcsc.rules");
    if !asks || uid.is_root() || rule.exists() {
        return;
    }
    let text = "polkit.addRule(function(action, subject) { if (action.id.indexOf(\"org.debian.pcsc-lite.\") == 0 && \
                subject.user == \"%s\") return polkit.Result.YES; });";
    let fix = Fix::command(format!("printf '{text}\\n' \"$(id -un {})\" | {}", uid.as_raw(), as_root(&format!("tee {}", word(&rule)))));
    let what = format!("polkit may keep user {} from smart cards", uid.as_raw());
    findings.warning("polkit", what, "a service is no session at the screen, and the daemon asks polkit", fix);
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::{super::finding::Severity, *};
    use crate::{
        config::{CallLimits, Isolation},
        domain::fence::Fence,
    };

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn module(path: &Path) -> ModuleSettings {
        let second = std::time::Duration::from_secs(1);
        ModuleSettings {
            name: "card".parse().unwrap(),
            path: path.to_owned(),
            env: std::collections::BTreeMap::new(),
            isolation: Isolation::Process,
            fence: Fence::default(),
            init_args: None,
            os_locking: true,
            sees_new_tokens: None,
            idle_limit: None,
            settle: None,
            waits_for_touch: None,
            one_thread: None,
            limits: CallLimits { sign: second, key_generation: second, person: second, other: second },
        }
    }

    #[test]
    fn a_reader_is_known_by_the_class_of_its_interface() {
        let root = tempfile::tempdir().unwrap();
        for (name, class) in [("1-2:1.0", "0b\n"), ("1-3:1.0", "03\n")] {
            write(root.path(), &format!("sys/bus/usb/devices/{name}/bInterfaceClass"), class);
        }
        write(root.path(), "sys/bus/usb/devices/1-2/product", "Reader 3000\n");
        write(root.path(), "sys/bus/usb/devices/1-2/busnum", "1\n");
        write(root.path(), "sys/bus/usb/devices/1-2/devnum", "17\n");
        let node = root.path().join("dev/bus/usb/001/017");
        let found = readers(root.path());
        assert_eq!(found, [Reader { product: "Reader 3000".to_owned(), node: node.clone() }]);

        let checks = |tokens| {
            let mut findings = Findings::default();
            examine_reader(&found[0], tokens, &mut findings);
            findings.all().iter().map(|finding| (finding.check, finding.severity)).collect::<Vec<_>>()
        };
        assert_eq!(checks(0), [("udev", Severity::Fault)]);
        write(root.path(), "dev/bus/usb/001/017", "");
        assert_eq!(checks(0), [("reader", Severity::Warning)]);
        assert_eq!(checks(1), [("reader", Severity::Ok)]);
    }

    #[test]
    fn a_module_needs_the_daemon_by_its_name_or_by_its_libraries() {
        let root = tempfile::tempdir().unwrap();
        for (name, content, needs) in
            [("opensc-pkcs11.so", "", true), ("libvendor.so", "\0libpcsclite.so.1\0", true), ("libsoft.so", "libc.so.6", false)]
        {
            write(root.path(), name, content);
            assert_eq!(needs_pcscd(&module(&root.path().join(name))), needs, "{name}");
        }
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_started_and_a_missing_one_installed() {
        let root = tempfile::tempdir().unwrap();
        let (socket, module) = (root.path().join("s"), module(Path::new("/m.so")));
        let found = || {
            let mut findings = Findings::default();
            examine_socket(root.path(), &socket, &module, &mut findings);
            findings.all()[0].clone()
        };
        let command = |fix: Option<Fix>| match fix {
            Some(Fix::Command(command)) => command,
            other => panic!("{other:?}"),
        };
        let missing = found();
        assert_eq!((missing.check, missing.severity), (PCSCD, Severity::Fault));
        assert!(command(missing.fix).contains("&& "), "it is installed first");
        write(root.path(), "usr/sbin/pcscd", "");
        assert!(command(found().fix).ends_with("pcscd"));
        fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        assert!(command(found().fix).contains("systemctl"));
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(found().severity, Severity::Ok);
    }

    #[test]
    fn polkit_is_told_to_let_a_service_use_cards() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "usr/share/polkit-1/actions/org.debian.pcsc-lite.policy", "");
        fs::create_dir_all(root.path().join("etc/polkit-1/rules.d")).unwrap();
        let found = |uid| {
            let mut findings = Findings::default();
            examine_polkit(root.path(), Uid::from_raw(uid), &mut findings);
            findings.all().to_vec()
        };
        assert_eq!(found(0), [], "root is always let");
        // Whose name `id` knows.
        let nobody = 65534;
        let Some(Fix::Command(command)) = found(nobody).remove(0).fix else { panic!("no command") };
        let status = std::process::Command::new("sh").args(["-c", &command.replace("sudo ", "")]).status().unwrap();
        assert!(status.success(), "{command}");
        let rule = fs::read_to_string(root.path().join("etc/polkit-1/rules.d/50-sealgate-pcsc.rules")).unwrap();
        assert!(rule.contains("subject.user == \"nobody\") return polkit.Result.YES; });\n"), "{rule}");
        assert_eq!(found(nobody), []);
    }
}
