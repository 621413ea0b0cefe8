//! A virtual card in [`Pcscd`](super::pcscd::Pcscd)'s reader: `tests/vcard`, with keys put on it as a card's owner would.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    certificate,
    daemon::{Daemon, REMEDY, built},
};

/// User PIN of a new card.
pub const CARD_PIN: &str = "123456";

/// With the administrator's PIN of a new card, `12345678`.
const VERIFY_ADMIN: &str = "00:20:00:83:08:31:32:33:34:35:36:37:38";
const SELECT_OPENPGP: &str = "00:A4:04:00:06:D2:76:00:01:24:01";
const SELECT_PIV: &str = "00:A4:04:00:0B:A0:00:00:03:08:00:00:10:00:01:00";
/// The management key that every PIV card starts with: 3DES, this eight bytes three times.
const PIV_MANAGEMENT_KEY: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
/// Length of an uncompressed point on P-256 in bytes.
const P256_POINT: usize = 65;
/// What stands before the point in a `SubjectPublicKeyInfo` of P-256.
const P256_SPKI_START: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07, 0x03, 0x42, 0x00,
];
/// Room for data in a short APDU, in bytes.
const APDU_DATA_MAX: usize = 255;

/// Which card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    OpenPgp,
    Piv,
}

/// A card that can be pulled and put back.
#[derive(Debug)]
pub struct VCard {
    kind: Kind,
    state: PathBuf,
    inserted: Option<Daemon>,
}

impl VCard {
    /// A new card in the reader, with its state in `directory`.
    pub fn insert_new(kind: Kind, directory: &Path) -> Self {
        let mut card = Self { kind, state: directory.join("card"), inserted: None };
        card.insert();
        card
    }

    /// Puts the card into the reader, and waits until the reader has powered it up.
    pub fn insert(&mut self) {
        let kind = match self.kind {
            Kind::OpenPgp => "openpgp",
            Kind::Piv => "piv",
        };
        let program = built("vcard/debug/vcard");
        self.inserted = Some(Daemon::start(Command::new(program).arg(kind).arg(&self.state), "inserted"));
    }

    /// Pulls the card. Put back before `pcscd` has noticed, it would be taken for one that was never gone.
    pub fn pull(&mut self) {
        self.inserted = None;
    }

    /// Wrong user PINs that the card still takes before it locks itself, as the card itself tells.
    pub fn tries_left(&self) -> u8 {
        let ask = |apdus: [&str; 2]| exchange(&mut opensc_tool(), &apdus).remove(1);
        match self.kind {
            // The PW status bytes of the OpenPGP card specification; the fifth is the counter.
            Kind::OpenPgp => ask([SELECT_OPENPGP, "00:CA:00:C4:00"]).data[4],
            // VERIFY without a PIN is answered 63Cx, or 6983 by a card that has locked itself.
            Kind::Piv => match ask([SELECT_PIV, "00:20:00:80"]).status {
                [0x63, left] => left & 0x0f,
                [0x69, 0x83] => 0,
                other => panic!("the card answers {other:02x?}"),
            },
        }
    }

    /// Makes the OpenPGP card's signature key (`01`, RSA 2048) and authentication key (`03`, P-256).
    pub fn make_openpgp_keys(&self) {
        let fingerprint = "A1:".repeat(19) + "A1";
        let make = |attributes: &str, key: &str, fingerprint_at: &str, date_at: &str, algorithm: &str| {
            let length = algorithm.split(':').count();
            vec![
                format!("00:DA:00:{attributes}:{length:02X}:{algorithm}"),
                format!("00:47:80:00:02:{key}:00:00"),
                // OpenSC does not list a key without a fingerprint.
                format!("00:DA:00:{fingerprint_at}:14:{fingerprint}"),
                format!("00:DA:00:{date_at}:04:65:00:00:00"),
            ]
        };
        let mut apdus = vec![SELECT_OPENPGP.to_owned(), VERIFY_ADMIN.to_owned()];
        apdus.extend(make("C1", "B6", "C7", "CE", "01:08:00:00:20:00"));
        apdus.extend(make("C3", "A4", "C9", "D0", "13:2A:86:48:CE:3D:03:01:07"));
        send(&mut opensc_tool(), &apdus);
    }

    /// Makes P-256 keys 9A, 9C (which wants the PIN for each signature) and 9E on the PIV card, each with a certificate, without which OpenSC
    /// does not list it. Their `CKA_ID`s are 1, 2 and 4.
    pub fn make_piv_keys(&self) {
        for (slot, object) in [(0x9a, 0x05), (0x9c, 0x0a), (0x9e, 0x01)] {
            let answers = self.send_as_piv_manager(&[format!("00:47:00:{slot:02X}:05:AC:03:80:01:11:00")]);
            let point = answers[0].last_chunk::<P256_POINT>().expect("a public key");
            let spki = [&P256_SPKI_START[..], point].concat();
            let certificate = certificate::issue(&spki, &format!("CN=PIV {slot:02X},O=Sealgate,C=UA"), certificate::yesterday());
            self.send_as_piv_manager(&put_certificate(object, &certificate));
        }
    }

    fn send_as_piv_manager(&self, apdus: &[String]) -> Vec<Vec<u8>> {
        let key = self.state.with_extension("management-key");
        fs::write(&key, PIV_MANAGEMENT_KEY.repeat(3)).expect("a file for the management key");
        let mut command = Command::new("piv-tool");
        command.args(["--reader", "0", "--admin", "M:9B:03"]).env("PIV_EXT_AUTH_KEY", key);
        send(&mut command, apdus)
    }
}

/// PUT DATA of a certificate object `5FC1xx` (SP 800-73-4 part 1 appendix A), in chained APDUs.
fn put_certificate(object: u8, certificate: &[u8]) -> Vec<String> {
    let certificate = [&long_tlv(0x70, certificate), &[0x71, 1, 0, 0xfe, 0][..]].concat();
    let data = [&[0x5c, 3, 0x5f, 0xc1, object], &long_tlv(0x53, &certificate)[..]].concat();
    let parts: Vec<&[u8]> = data.chunks(APDU_DATA_MAX).collect();
    let apdu = |(number, part): (usize, &&[u8])| {
        let class = if number + 1 == parts.len() { 0x00 } else { 0x10 };
        let length = u8::try_from(part.len()).expect("a short APDU");
        colons(&[&[class, 0xdb, 0x3f, 0xff, length], *part].concat())
    };
    parts.iter().enumerate().map(apdu).collect()
}

fn long_tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).expect("a short content").to_be_bytes();
    [&[tag, 0x82, high, low], content].concat()
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn opensc_tool() -> Command {
    let mut command = Command::new("opensc-tool");
    command.args(["--reader", "0"]);
    command
}

/// What a card answers to an APDU.
struct Answer {
    status: [u8; 2],
    data: Vec<u8>,
}

/// Has a tool of OpenSC's send these APDUs, each of which must succeed; returns the data of the answers.
fn send(command: &mut Command, apdus: &[impl AsRef<OsStr>]) -> Vec<Vec<u8>> {
    let answers = exchange(command, apdus);
    assert!(answers.iter().all(|answer| answer.status == [0x90, 0]), "{command:?}");
    answers.into_iter().map(|answer| answer.data).collect()
}

fn exchange(command: &mut Command, apdus: &[impl AsRef<OsStr>]) -> Vec<Answer> {
    for apdu in apdus {
        command.arg("--send-apdu").arg(apdu);
    }
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start ({error}); {REMEDY}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let answers: Vec<Answer> = said.split("Received (SW1=0x").skip(1).map(answer).collect();
    assert_eq!(answers.len(), apdus.len(), "{command:?}: {}\n{said}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    answers
}

/// `90, SW2=0x00):` and the data.
fn answer(text: &str) -> Answer {
    let byte = |at: usize| text.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).expect("a status byte");
    Answer { status: [byte(0), byte(10)], data: data_of(text) }
}

/// The bytes of an answer as OpenSC prints it: lines of sixteen, each followed by the same as text.
fn data_of(answer: &str) -> Vec<u8> {
    let lines = answer.lines().skip(1).take_while(|line| !line.starts_with("Sending"));
    let bytes = lines.flat_map(|line| line.get(..48).unwrap_or(line).split_whitespace().take(16));
    bytes.map_while(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}
