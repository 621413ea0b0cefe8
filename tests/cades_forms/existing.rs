//! Signatures that are there already: signers added beside others, content put in and taken out, forms raised. OpenSSL, pyHanko, a script of
//! asn1crypto and the gateway's own verifier judge what comes out.

use std::{fs, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use sealgate::{
    cms::verify::SignedMessage,
    domain::algorithm::{Curve, KeyKind},
    pki::Certificate,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    common::{
        gateway::{Answer, Gateway, Plan, send},
        openssl::openssl_ok,
    },
    matrix::run,
};

const CONTENT: &[u8] = b"the first line\nthe second\r\n\0\xff";
const RSA: &str = "rsa-2048";
const P256: &str = "ec-p256";
const P384: &str = "ec-p384";
const PLAIN: &str = "undefined";

struct Scene {
    gateway: Gateway,
    dir: TempDir,
    cases: Vec<Value>,
    for_pyhanko: Vec<Value>,
}

/// What a signer of a signature is to look like.
#[derive(Clone, Copy)]
struct Signer {
    key: &'static str,
    form: &'static str,
}

impl Scene {
    async fn open() -> Self {
        let keys = [
            (RSA, KeyKind::Rsa { modulus_bits: 2048 }),
            (P256, KeyKind::Ec(Curve::P256)),
            (P384, KeyKind::Ec(Curve::P384)),
            ("tsa-p256", KeyKind::Ec(Curve::P256)),
        ];
        let mut plan = Plan::softhsm(&keys, 64).await;
        plan.crl_from_file();
        let gateway = plan.start().await;
        let dir = tempfile::tempdir().unwrap();
        let scene = Self { gateway, dir, cases: Vec::new(), for_pyhanko: Vec::new() };
        fs::write(scene.path("content"), CONTENT).unwrap();
        fs::write(scene.path("root.der"), scene.gateway.ca.certificate().as_der()).unwrap();
        fs::write(scene.path("root.pem"), scene.gateway.ca.certificate().to_pem()).unwrap();
        for (key, _) in &keys[..3] {
            let ticket = scene.gateway.ticket().await;
            scene.choose(&ticket, key).await;
            let path = format!("{ticket}/keyStore/certificate/base64/signature");
            let answer = scene.gateway.put_json(&path, json!({})).await.json();
            let (_, text) = answer.as_object().unwrap().iter().find(|(name, _)| *name != "message").unwrap();
            let certificate = Certificate::from_der(&STANDARD.decode(text.as_str().unwrap()).unwrap()).unwrap();
            fs::write(scene.path(&format!("{key}.der")), certificate.as_der()).unwrap();
            fs::write(scene.path(&format!("{key}.pem")), certificate.to_pem()).unwrap();
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    async fn choose(&self, ticket: &str, key: &str) {
        let chosen = self.gateway.put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": format!("pkcs11:object={key}") })).await;
        assert_eq!(chosen.status, 200, "{}", chosen.text());
    }

    async fn options(&self, ticket: &str, options: Value) {
        let set = self.gateway.put_json(&format!("{ticket}/option"), options).await;
        assert_eq!(set.status, 200, "{}", set.text());
    }

    async fn upload_signature(&self, ticket: &str, signature: &[u8]) -> Answer {
        let request = self.gateway.request(Method::POST, &format!("{ticket}/ds/data"));
        send(request.header("content-type", "application/octet-stream").body(signature.to_vec())).await
    }

    /// A ticket with a document, if there is one, and a signature.
    async fn ticket(&self, document: Option<&[u8]>, signature: &[u8]) -> String {
        let ticket = match document {
            Some(document) => self.gateway.ticket_with(document).await,
            None => self.gateway.ticket().await,
        };
        let uploaded = self.upload_signature(&ticket, signature).await;
        assert_eq!(uploaded.status, 200, "{}", uploaded.text());
        ticket
    }

    async fn first(&self, signer: Signer, options: Value) -> Vec<u8> {
        let ticket = self.gateway.ticket_with(CONTENT).await;
        self.choose(&ticket, signer.key).await;
        self.options(&ticket, options).await;
        self.options(&ticket, json!({ "cadesType": signer.form })).await;
        self.gateway.sign(&ticket).await
    }

    /// A signer beside those of a ticket.
    async fn beside(&self, ticket: &str, signer: Signer, options: Value) -> Vec<u8> {
        self.choose(ticket, signer.key).await;
        self.options(ticket, options).await;
        self.options(ticket, json!({ "dataToSignQualifier": "alreadySigned", "cadesType": signer.form })).await;
        self.gateway.sign(ticket).await
    }

    async fn refused(&self, ticket: &str, key: &str) -> String {
        self.choose(ticket, key).await;
        self.options(ticket, json!({ "dataToSignQualifier": "alreadySigned" })).await;
        let request = self.gateway.request(Method::POST, &format!("{ticket}/ds/creator")).header("accept-language", "en");
        let answer = send(request).await;
        assert_eq!(answer.status, 500, "{}", answer.text());
        answer.cause()
    }

    async fn modified(&self, ticket: &str, options: Value) -> Answer {
        self.options(ticket, options).await;
        let started = self.gateway.post(&format!("{ticket}/ds/modifier")).await;
        if started.status != 200 {
            return started;
        }
        assert_eq!(started.message(), "Ініційована операція модифікації електронного підпису.");
        self.gateway.get(&format!("{ticket}/ds/modifiedData")).await
    }

    /// Has OpenSSL and the gateway look at a signature now, and notes it for the judges in Python.
    async fn judge(&mut self, name: &str, der: &[u8], attached: bool, signers: &[Signer], embedded: &[&str]) {
        let number = self.for_pyhanko.len();
        let file = self.path(&format!("{number}.p7s"));
        fs::write(&file, der).unwrap();
        let (input, output) = (file.to_str().unwrap().to_owned(), self.text("out"));
        let (content, ca) = (self.text("content"), self.text("root.pem"));
        let mut command = vec!["cms", "-verify", "-binary", "-inform", "DER", "-in", &input, "-CAfile", &ca, "-out", &output];
        if !attached {
            command.extend(["-content", &content]);
        }
        if signers.iter().all(|signer| signer.form != PLAIN) {
            command.push("-cades");
        }
        openssl_ok(command);
        assert_eq!(fs::read(&output).unwrap(), CONTENT, "{name}");
        let ticket = self.ticket((!attached).then_some(CONTENT), der).await;
        assert_eq!(self.gateway.post(&format!("{ticket}/ds/verifier")).await.status, 200);
        let verified = self.gateway.get(&format!("{ticket}/ds/verifier")).await;
        assert_eq!(verified.status, 200, "{name}: {}", verified.text());
        assert_eq!(verified.json()["verifyResults"].as_array().unwrap().len(), signers.len(), "{name}");
        let (dir, root) = (self.dir.path().to_owned(), self.path("root.der"));
        let certificate = |key: &str| dir.join(format!("{key}.der"));
        let embedded: Vec<_> = embedded.iter().map(|key| certificate(key)).collect();
        for signer in signers {
            self.cases.push(json!({
                "name": format!("{name}, {}", signer.key), "signature": file, "content": self.path("content"), "form": signer.form,
                "embedded": embedded, "path": [certificate(signer.key), &root], "attached": attached, "signatureTs": false,
                "contentTs": false, "caInfo": false, "signers": signers.len(),
            }));
        }
        self.for_pyhanko.push(json!({
            "name": name, "signature": file, "content": (!attached).then(|| self.path("content")), "certificates": [], "accept": true,
            "signers": signers.len(),
        }));
    }

    /// Has the judges in Python look at everything.
    async fn close(self) {
        let Self { gateway, dir, cases, for_pyhanko } = self;
        gateway.stop().await;
        let root = dir.path().join("root.der");
        run("check_forms.py", dir.path(), &json!({ "root": root, "years": 5, "cases": cases }));
        run("verify_cms.py", dir.path(), &json!({ "roots": [root], "cases": for_pyhanko }));
    }
}

/// Each `SignerInfo` up to its unsigned attributes, which is what nothing may change.
fn signed_parts(der: &[u8]) -> Vec<Vec<u8>> {
    use ::der::{Decode, Encode};
    let info = cms::content_info::ContentInfo::from_der(der).unwrap();
    let data: cms::signed_data::SignedData = info.content.decode_as().unwrap();
    let signers = data.signer_infos.0.into_vec();
    signers.into_iter().map(|signer| cms::signed_data::SignerInfo { unsigned_attrs: None, ..signer }.to_der().unwrap()).collect()
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

/// The whole `SignerInfo`s as they stand in a signature.
fn signer_infos(der: &[u8]) -> Vec<Vec<u8>> {
    use ::der::{Decode, Encode};
    let info = cms::content_info::ContentInfo::from_der(der).unwrap();
    let data: cms::signed_data::SignedData = info.content.decode_as().unwrap();
    data.signer_infos.0.iter().map(|signer| signer.to_der().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn signers_are_added_beside_others_in_every_form_and_the_others_stay_as_they_are() {
    let mut scene = Scene::open().await;
    let pairs = [(PLAIN, "CAdESBES"), ("CAdESBES", "CAdEST"), ("CAdEST", "CAdESC"), ("CAdESC", "CAdESXLong"), ("CAdESXLong", PLAIN)];
    for (index, (before, after)) in pairs.into_iter().enumerate() {
        let attached = index % 2 == 0;
        let name = format!("{after} beside {before}, {}", if attached { "attached" } else { "detached" });
        let kind = if attached { "attached" } else { "detached" };
        let (one, two, three) = (Signer { key: RSA, form: before }, Signer { key: P256, form: after }, Signer { key: P384, form: after });
        let first = scene.first(one, json!({ "signatureType": kind })).await;
        // The signature as such, with its document beside it where that is not inside.
        let ticket = scene.ticket((!attached).then_some(CONTENT), &first).await;
        let second = scene.beside(&ticket, two, json!({ "embedCertificateType": "signerAndCaCert" })).await;
        assert_eq!(scene.gateway.get(&format!("{ticket}/ds/data")).await.body, second, "what is fetched again is the same");
        scene.judge(&name, &second, attached, &[one, two], &[RSA, P256, "root"]).await;
        // An attached signature may also be the session's data.
        let ticket = if attached { scene.gateway.ticket_with(&second).await } else { scene.ticket(Some(CONTENT), &second).await };
        let third = scene.beside(&ticket, three, json!({ "embedCertificateType": "signerAndCaCert" })).await;
        scene.judge(&format!("{name}, and a third"), &third, attached, &[one, two, three], &[RSA, P256, P384, "root"]).await;
        for earlier in signer_infos(&first).iter().chain(&signer_infos(&second)) {
            assert!(contains(&third, earlier), "{name}: a signer was changed");
        }
    }
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_signer_is_added_where_the_others_do_not_hold_or_the_same_one_has_signed() {
    let scene = Scene::open().await;
    let one = Signer { key: RSA, form: PLAIN };
    let detached = scene.first(one, json!({})).await;
    let attached = scene.first(one, json!({ "signatureType": "attached" })).await;
    let cause = scene.refused(&scene.ticket(Some(b"another document"), &detached).await, P256).await;
    assert!(cause.contains("Signer 1") && cause.contains("the content is not the one that was signed"), "{cause}");
    let mut broken = attached.clone();
    let place = attached.windows(CONTENT.len()).position(|window| window == CONTENT).unwrap();
    broken[place] ^= 1;
    let cause = scene.refused(&scene.gateway.ticket_with(&broken).await, P256).await;
    assert!(cause.contains("Signer 1") && cause.contains("the content is not the one that was signed"), "{cause}");
    for ticket in [scene.ticket(None, &detached).await, scene.gateway.ticket_with(&detached).await] {
        assert!(scene.refused(&ticket, P256).await.contains("not in the uploaded signature"));
    }
    let cause = scene.refused(&scene.gateway.ticket_with(b"no signature").await, P256).await;
    assert!(cause.contains("is no signature"), "{cause}");
    assert!(scene.refused(&scene.gateway.ticket().await, P256).await.contains("data was not uploaded"));
    // The same signer, once more only where that is wanted. One with RSA would sign the same within a second, and a set has each member once.
    let one = Signer { key: P256, form: PLAIN };
    let attached = scene.first(one, json!({ "signatureType": "attached" })).await;
    let ticket = scene.gateway.ticket_with(&attached).await;
    assert!(scene.refused(&ticket, P256).await.contains("duplicateSign"));
    let twice = scene.beside(&ticket, one, json!({ "duplicateSign": true })).await;
    assert_eq!(signer_infos(&twice).len(), 2);
    // What a signer was added to does not change any more.
    let ticket = scene.ticket(Some(CONTENT), &detached).await;
    let signed = scene.beside(&ticket, Signer { key: P256, form: PLAIN }, json!({})).await;
    assert_eq!(scene.upload_signature(&ticket, &detached).await.status, 500);
    assert_eq!(scene.gateway.get(&format!("{ticket}/ds/data")).await.body, signed);
    let option = format!("{}/option", scene.gateway.ticket().await);
    let refused = scene.gateway.put_json(&option, json!({ "asicForm": "ASIC_E", "dataToSignQualifier": "alreadySigned" })).await;
    assert_eq!(refused.status, 400);
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_is_added_to_what_openssl_streamed() {
    let scene = Scene::open().await;
    // Spooled, and in pieces of indefinite length.
    let content: Vec<u8> = (0..700_000_u32).map(|number| (number % 251) as u8).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("content"), &content).unwrap();
    let subject = ["-subj", "/CN=other", "-days", "30", "-nodes"];
    openssl_ok([&["req", "-x509", "-newkey", "rsa:2048", "-keyout", &path("key"), "-out", &path("pem")][..], &subject].concat());
    let sign = ["cms", "-sign", "-binary", "-stream", "-nodetach", "-outform", "DER"];
    openssl_ok([&sign[..], &["-in", &path("content"), "-signer", &path("pem"), "-inkey", &path("key"), "-out", &path("one")]].concat());
    let ticket = scene.gateway.ticket_with(&fs::read(path("one")).unwrap()).await;
    let both = scene.beside(&ticket, Signer { key: P256, form: "CAdESBES" }, json!({})).await;
    fs::write(path("both"), &both).unwrap();
    let authorities = [fs::read(path("pem")).unwrap(), fs::read(scene.path("root.pem")).unwrap()].concat();
    fs::write(path("cas"), authorities).unwrap();
    openssl_ok([
        "cms",
        "-verify",
        "-binary",
        "-inform",
        "DER",
        "-in",
        &path("both"),
        "-CAfile",
        &path("cas"),
        "-purpose",
        "any",
        "-out",
        &path("out"),
    ]);
    assert_eq!(fs::read(path("out")).unwrap(), content);
    let message = SignedMessage::read(std::io::Cursor::new(&both)).unwrap();
    assert_eq!((message.signer_count(), message.content_len()), (2, Some(700_000)));
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_attached_detached_and_raised_and_what_was_signed_stays() {
    let mut scene = Scene::open().await;
    let keys = [RSA, P256];
    let signers = |form: &'static str| keys.map(|key| Signer { key, form });
    let [one, two] = signers("CAdESBES");
    let first = scene.first(one, json!({})).await;
    let detached = scene.beside(&scene.ticket(Some(CONTENT), &first).await, two, json!({})).await;
    let ticket = scene.ticket(Some(CONTENT), &detached).await;
    let attached = scene.modified(&ticket, json!({ "signatureType": "attached" })).await.body;
    scene.judge("attached", &attached, true, &[one, two], &keys).await;
    let in_base64 = scene.gateway.get(&format!("{ticket}/ds/base64ModifiedData")).await;
    assert_eq!(STANDARD.decode(in_base64.json()["base64Data"].as_str().unwrap()).unwrap(), attached);
    let status = scene.gateway.get(&format!("{ticket}/ds/modifier")).await;
    assert_eq!((status.status, status.message().as_str()), (200, "Електронний підпис успішно модифікований."));
    let ticket = scene.ticket(None, &attached).await;
    let again = scene.modified(&ticket, json!({ "signatureType": "detached" })).await.body;
    assert_eq!(again, detached, "out again is what it was");
    // From one form to the next, and from the first to the last at once; where the content is does not change unbidden.
    let mut raised = attached.clone();
    for form in ["CAdEST", "CAdESC", "CAdESXLong"] {
        raised = scene.modified(&scene.ticket(None, &raised).await, json!({ "cadesType": form })).await.body;
        scene.judge(&format!("raised to {form}"), &raised, true, &signers(form), &keys).await;
        assert_eq!(signed_parts(&raised), signed_parts(&attached), "{form}");
    }
    let last = json!({ "cadesType": "CAdESXLong", "signatureType": "detached" });
    let ticket = scene.ticket(None, &attached).await;
    let at_once = scene.modified(&ticket, last.clone()).await.body;
    scene.judge("raised at once", &at_once, false, &signers("CAdESXLong"), &keys).await;
    assert_eq!(scene.modified(&ticket, json!({})).await.status, 200, "it may be asked for again");
    // What has it all already stays as it is.
    let same = scene.modified(&scene.ticket(None, &raised).await, json!({ "cadesType": "CAdEST" })).await.body;
    assert_eq!(same, raised);
    // Signers of several forms each get what they lack.
    let three = Signer { key: P384, form: "CAdESBES" };
    let mixed = scene.beside(&scene.gateway.ticket_with(&raised).await, three, json!({})).await;
    let mixed = scene.modified(&scene.ticket(None, &mixed).await, json!({ "cadesType": "CAdESC" })).await.body;
    let [one, two] = signers("CAdESXLong");
    scene.judge("mixed", &mixed, true, &[one, two, Signer { form: "CAdESC", ..three }], &[RSA, P256, P384]).await;
    for before in signer_infos(&raised) {
        assert!(contains(&mixed, &before), "a signer that had it all was changed");
    }
    let log = scene.gateway.store.audit_head().await.unwrap();
    let records = scene.gateway.store.audit_records(log.gateway, 1, 1000).await.unwrap();
    assert!(records.iter().any(|record| record.text.contains("\"signature-modified\"")), "{:?}", records.last());
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_be_made_says_why() {
    let scene = Scene::open().await;
    let plain = scene.first(Signer { key: RSA, form: PLAIN }, json!({})).await;
    let refused = async |ticket: &str, options: Value| {
        let answer = scene.modified(ticket, options).await;
        assert_eq!(answer.status, 500, "{}", answer.text());
        answer.cause()
    };
    let nothing = scene.gateway.ticket_with(CONTENT).await;
    assert_eq!(refused(&nothing, json!({})).await, "Дані ЕП не були завантажені.");
    let unasked = scene.gateway.get(&format!("{nothing}/ds/modifiedData")).await;
    assert_eq!((unasked.status, unasked.cause().as_str()), (500, "Модифікація електронного підпису не запитувалась."));
    let ticket = scene.ticket(Some(CONTENT), &plain).await;
    for form in ["CAdESBES", "CAdEST", "CAdESC", "CAdESXLong"] {
        assert!(refused(&ticket, json!({ "cadesType": form })).await.contains("CAdES"), "{form}");
    }
    // A time stamp may stand beside any signature.
    let stamped = scene.modified(&ticket, json!({ "cadesType": PLAIN, "embedSignatureTs": true })).await;
    assert_eq!(stamped.status, 200, "{}", stamped.text());
    assert_eq!(signed_parts(&stamped.body), signed_parts(&plain));
    assert!(stamped.body.len() > plain.len());
    assert!(refused(&ticket, json!({ "embedDataTs": true })).await.contains("embedDataTs"));
    let ticket = scene.ticket(Some(b"another document"), &plain).await;
    assert!(refused(&ticket, json!({ "signatureType": "attached" })).await.contains("недійсний"));
    let ticket = scene.ticket(None, &plain).await;
    assert!(refused(&ticket, json!({ "signatureType": "attached" })).await.contains("відсутні у завантаженому підписі"));
    let ticket = scene.ticket(Some(CONTENT), &plain).await;
    assert!(refused(&ticket, json!({ "asicForm": "ASIC_S" })).await.contains("контейнер"));
    let ticket = scene.ticket(None, &plain[..plain.len() - 1]).await;
    assert!(refused(&ticket, json!({ "signatureType": "detached" })).await.contains("не є електронним підписом"));
    // A new upload makes what was asked for void.
    scene.upload_signature(&ticket, &plain).await;
    assert_eq!(scene.gateway.get(&format!("{ticket}/ds/modifier")).await.status, 500);
    scene.gateway.stop().await;
}
