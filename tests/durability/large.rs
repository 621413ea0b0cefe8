//! Long documents: signed inside their signature, handed out, given another signer, changed and verified, in memory that does not grow with them.
//!
//! `SEALGATE_LARGE_MIB` says how long the document is; `docs/performance.md` has the figures of 1 GiB.

use std::{
    cell::RefCell,
    env, fs,
    io::{Read, Write},
    path::Path,
    process::Command,
};

use serde_json::Value;

use super::common::{program::Gateway, site::Site};

/// The default length of the document, in MiB.
const DOCUMENT_MIB: u64 = 96;
/// By how much all processes of the gateway together may grow for one step, in MiB: buffers, and what an allocator keeps of them.
const GROWTH_MAX_MIB: u64 = 24;
/// The longest document for which OpenSSL, which reads all of it into memory, is asked for its opinion, in MiB.
const OPENSSL_MAX_MIB: u64 = 256;

struct Scene {
    site: Site,
    gateway: Gateway,
    document_mib: u64,
    /// The most that each process had at any step, in KiB.
    peaks: RefCell<Vec<u64>>,
}

/// A field of `/proc/PID/status`, in KiB.
fn status(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

impl Scene {
    fn open() -> Self {
        let document_mib = env::var("SEALGATE_LARGE_MIB").map_or(DOCUMENT_MIB, |mib| mib.parse().unwrap());
        let mut site = Site::new();
        site.set("ticket_api", "upload_max_bytes", i64::try_from((document_mib + 1) << 20).unwrap());
        let gateway = site.serve();
        Self { site, gateway, document_mib, peaks: RefCell::default() }
    }

    fn file(&self, name: &str) -> String {
        self.site.folder().join(name).to_str().unwrap().to_owned()
    }

    fn curl(&self, method: &str, path: &str, more: &[&str]) -> Vec<u8> {
        let (url, key) = (format!("{}/api/v1{path}", self.site.url), format!("authorization: Bearer {}", self.site.api_key));
        let common = ["--silent", "--show-error", "--fail-with-body", "--request", method, "--header", &key, "--header", "expect:"];
        let output = Command::new("curl").args(common).args(more).arg(&url).output().unwrap();
        assert!(
            output.status.success(),
            "{method} {path}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    fn ticket(&self) -> String {
        let made: Value = serde_json::from_slice(&self.curl("POST", "/ticket", &[])).unwrap();
        format!("/ticket/{}", made["ticketUuid"].as_str().unwrap())
    }

    /// A file's bytes, as curl sends them without having all of them.
    fn upload(&self, path: &str, file: &str) {
        self.curl("POST", path, &["--header", "content-type: application/octet-stream", "--upload-file", &self.file(file)]);
    }

    fn options(&self, ticket: &str, options: &str) {
        self.curl("PUT", &format!("{ticket}/option"), &["--header", "content-type: application/json", "--data", options]);
    }

    fn download(&self, path: &str, file: &str) {
        // A GET that waits may be over before its time for a document that is hashed for minutes; then it is asked again.
        loop {
            let code = self.curl("GET", path, &["--output", &self.file(file), "--write-out", "%{http_code}"]);
            if code == b"200" {
                return;
            }
        }
    }

    /// By how much the gateway's processes have grown at most while `step` was done, in KiB.
    fn growth(&self, step: impl FnOnce()) -> u64 {
        let processes: Vec<u32> = [self.gateway.pid()].into_iter().chain(self.gateway.children()).collect();
        // The kernel forgets the peak so far (proc_pid_clear_refs(5)).
        let forget = |pid: &u32| fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        processes.iter().for_each(forget);
        let total = |field| processes.iter().map(|pid| status(*pid, field)).sum::<u64>();
        let before = total("VmRSS");
        step();
        let mut peaks = self.peaks.borrow_mut();
        peaks.resize(processes.len(), 0);
        peaks.iter_mut().zip(&processes).for_each(|(peak, pid)| *peak = status(*pid, "VmHWM").max(*peak));
        total("VmHWM").saturating_sub(before)
    }
}

/// Bytes that no file system and no transport makes shorter.
fn write_document(path: &Path, mib: u64) {
    let mut file = fs::File::create(path).unwrap();
    let mut piece = vec![0_u8; 1 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut piece).unwrap();
    for number in 0..mib {
        piece[..8].copy_from_slice(&number.to_be_bytes());
        file.write_all(&piece).unwrap();
    }
}

fn is_same(one: &str, other: &str) -> bool {
    Command::new("cmp").args([one, other]).status().unwrap().success()
}

#[test]
fn memory_does_not_grow_with_the_document() {
    let scene = Scene::open();
    write_document(Path::new(&scene.file("document")), scene.document_mib);
    let mut steps: Vec<(&str, u64)> = Vec::new();
    let signed = scene.ticket();
    let path = |ticket: &str, call: &str| format!("{ticket}/{call}");
    steps.push(("upload", scene.growth(|| scene.upload(&path(&signed, "data"), "document"))));
    scene.options(&signed, r#"{"signatureType":"attached","cadesType":"CAdEST"}"#);
    let sign = || {
        scene.curl("POST", &path(&signed, "ds/creator"), &[]);
        scene.download(&path(&signed, "ds/data"), "one.p7s");
    };
    steps.push(("attached signature", scene.growth(sign)));
    steps.push(("in Base64", scene.growth(|| scene.download(&path(&signed, "ds/base64Data"), "base64"))));
    fs::remove_file(scene.file("base64")).unwrap();
    scene.curl("DELETE", &signed, &[]);
    let verified = scene.ticket();
    steps.push(("upload of the signature", scene.growth(|| scene.upload(&path(&verified, "ds/data"), "one.p7s"))));
    let verify = || {
        scene.curl("POST", &path(&verified, "ds/verifier"), &[]);
        scene.download(&path(&verified, "ds/verifier"), "verdict");
    };
    steps.push(("verification", scene.growth(verify)));
    steps.push(("signed data", scene.growth(|| scene.download(&path(&verified, "ds/signedData"), "content"))));
    assert!(is_same(&scene.file("content"), &scene.file("document")));
    fs::remove_file(scene.file("content")).unwrap();
    let modify = || {
        scene.options(&verified, r#"{"cadesType":"CAdESXLong"}"#);
        scene.curl("POST", &path(&verified, "ds/modifier"), &[]);
        scene.download(&path(&verified, "ds/modifiedData"), "raised.p7s");
    };
    steps.push(("form raised", scene.growth(modify)));
    fs::remove_file(scene.file("raised.p7s")).unwrap();
    let beside = || {
        let other = r#"{"keyStorePath":"rsa-2048"}"#;
        scene.curl("PUT", &path(&verified, "keyStore"), &["--header", "content-type: application/json", "--data", other]);
        scene.options(&verified, r#"{"dataToSignQualifier":"alreadySigned"}"#);
        scene.curl("POST", &path(&verified, "ds/creator"), &[]);
        scene.download(&path(&verified, "ds/data"), "both.p7s");
    };
    steps.push(("another signer", scene.growth(beside)));
    let contained = scene.ticket();
    scene.upload(&path(&contained, "data"), "document");
    scene.options(&contained, r#"{"asicForm":"ASIC_E"}"#);
    let contain = || {
        scene.curl("POST", &path(&contained, "ds/creator"), &[]);
        scene.download(&path(&contained, "ds/data"), "container");
    };
    steps.push(("container", scene.growth(contain)));
    fs::remove_file(scene.file("container")).unwrap();
    let line = |(step, kib): &(&str, u64)| format!("{step}: {kib} KiB, {:.4}", *kib as f64 / (scene.document_mib << 10) as f64);
    let figures = steps.iter().map(line).collect::<Vec<_>>().join("\n");
    println!("growth for {} MiB, and its ratio to the document:\n{figures}", scene.document_mib);
    println!("the most that the gateway and its module had: {:?} KiB", scene.peaks.borrow());
    assert!(steps.iter().all(|(_, kib)| *kib <= GROWTH_MAX_MIB << 10), "{figures}");
    if scene.document_mib <= OPENSSL_MAX_MIB {
        let (both, ca, out) = (scene.file("both.p7s"), ca_file(&scene), scene.file("out"));
        super::common::openssl::openssl_ok([
            "cms", "-verify", "-binary", "-cades", "-inform", "DER", "-in", &both, "-CAfile", &ca, "-out", &out,
        ]);
        assert!(is_same(&out, &scene.file("document")));
    }
}

fn ca_file(scene: &Scene) -> String {
    let config: toml::Table = fs::read_to_string(scene.site.config_file()).unwrap().parse().unwrap();
    config["trust"]["anchors"][0].as_str().unwrap().to_owned()
}
