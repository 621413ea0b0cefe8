//! The ticket API over tokens: documents go in, signatures come out, once each, whatever clients do.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use cms::{content_info::ContentInfo, signed_data::SignedData};
use common::{
    gateway::{Answer, CI_KEY, Gateway, OTHER_KEY, PATIENCE, Plan, send},
    openssl::{openssl, verifies},
};
use der::{Decode, Encode};
use reqwest::Method;
use sealgate::{
    domain::{
        algorithm::{Curve, KeyKind, SignatureAlgorithm},
        token::LoginMode,
    },
    pki::Certificate,
    store::{Store, memory::MemoryStore},
    token::fake::{Call, FAKE_PIN, Script},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

const STARTED: &str = "Ініційована операція створення електронного підпису.";
const CREATED: &str = "Електронний підпис успішно створений.";
const PENDING: &str = "Операція \"Створення електронного підпису\" знаходиться у стадії виконання.";

/// So many jobs a hanging token is given before the others wait in the queue: no more are claimed while over half of a batch of 16 is with it.
const WITH_THE_TOKEN: usize = 9;

const KEYS: [(&str, KeyKind); 4] = [
    ("ec-p256", KeyKind::Ec(Curve::P256)),
    ("ec-p384", KeyKind::Ec(Curve::P384)),
    ("rsa-2048", KeyKind::Rsa { modulus_bits: 2048 }),
    ("ed25519", KeyKind::Ed25519),
];

/// Whether OpenSSL accepts a signature, detached from `content` or with it inside.
fn accepted(gateway: &Gateway, signature: &[u8], content: &[u8], attached: bool, cades: bool) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (signature, ca) = (file("signature", signature), file("ca.pem", gateway.ca.certificate().to_pem().as_bytes()));
    let (content_file, out) = (file("content", content), file("out", b""));
    let mut arguments = vec!["cms", "-verify", "-binary", "-inform", "DER", "-in", &signature, "-CAfile", &ca, "-out", &out];
    if !attached {
        arguments.extend(["-content", &content_file]);
    }
    if cades {
        arguments.push("-cades");
    }
    let output = openssl(&arguments);
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    if fs::read(&out).unwrap() == content { Ok(()) } else { Err("another content".to_owned()) }
}

/// What pyHanko has against these signatures, and against their changed forms that it accepts.
fn refused_by_pyhanko(gateway: &Gateway, content: &[u8], signatures: &[(String, bool, Vec<u8>)]) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: String, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let root = file("root.der".to_owned(), gateway.ca.certificate().as_der());
    let content = file("content".to_owned(), content);
    let mut cases = Vec::new();
    for (nth, (name, attached, signature)) in signatures.iter().enumerate() {
        let mut changed = signature.clone();
        // The last byte is one of the signature value.
        *changed.last_mut().unwrap() ^= 1;
        for (bytes, accept) in [(signature, true), (&changed, false)] {
            let path = file(format!("{nth}-{accept}"), bytes);
            let content = (!attached).then_some(&content);
            cases.push(json!({ "name": name, "signature": path, "content": content, "certificates": [], "accept": accept }));
        }
    }
    let manifest = file("manifest.json".to_owned(), json!({ "roots": [root], "cases": cases }).to_string().as_bytes());
    let output = common::pyhanko::verify(&manifest);
    (!output.status.success()).then(|| format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// The parts of a signature, for what OpenSSL does not verify in CMS.
fn ed25519_holds(signature: &[u8]) -> bool {
    let info = ContentInfo::from_der(signature).unwrap();
    let signed: SignedData = info.content.decode_as().unwrap();
    let signer = signed.signer_infos.0.get(0).unwrap();
    let certificate = signed.certificates.unwrap().0.get(0).unwrap().to_der().unwrap();
    let spki = Certificate::from_der(&certificate).unwrap().spki().to_vec();
    let attributes = signer.signed_attrs.to_der().unwrap();
    verifies(&spki, SignatureAlgorithm::Ed25519, &attributes, signer.signature.as_bytes())
}

async fn until_waiting(store: &MemoryStore, count: usize) {
    let reached = async {
        while store.waiters() != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("others wait than should");
}

fn scripted(keys: &[&str]) -> (Script, Plan) {
    let script = Script::new("scripted");
    let plan = Plan::scripted(&script, LoginMode::Configured, keys);
    (script, plan)
}

/// Lets the test see who waits, which nobody stops doing for want of time.
fn watched(plan: &mut Plan) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::default());
    plan.store = Arc::clone(&store) as Arc<dyn Store>;
    plan.tickets.blocking_get_bound = 10 * PATIENCE;
    store
}

/// A gate that the next signature waits at; released at the end of the test, or nothing would end.
fn hang_next(script: &Script) -> sealgate::token::fake::Gate {
    script.hang(Call::Sign, script.count(Call::Sign) + 1)
}

async fn permission(gateway: &Gateway, uses: u32) -> String {
    let granted = gateway.post_json("/accessToken", json!({ "accessTimesNumber": uses })).await;
    granted.json()["accessTokenUuid"].as_str().unwrap().to_owned()
}

async fn start(gateway: &Gateway, ticket: &str, body: Value) -> Answer {
    gateway.post_json(&format!("{ticket}/ds/creator"), body).await
}

// Over SoftHSM.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signatures_of_every_key_in_every_form_are_accepted_by_openssl_and_pyhanko() {
    let mut plan = Plan::softhsm(&KEYS, 1024).await;
    plan.keys.iter_mut().filter(|key| key.name.as_str() != "rsa-2048").for_each(|key| key.chain.clear());
    let gateway = plan.start().await;
    let content = "Договір № 1".as_bytes();
    let mut signatures = Vec::new();
    for (key, kind) in &KEYS {
        for (attached, cades) in [(false, false), (true, false), (false, true), (true, true)] {
            let ticket = gateway.ticket_with(content).await;
            let chosen = gateway.put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": format!("pkcs11:object={key}") })).await;
            assert_eq!(chosen.status, 200, "{}", chosen.text());
            let (kind_of_type, form) = (if attached { "attached" } else { "detached" }, if cades { "CAdESBES" } else { "undefined" });
            let embed = if *key == "rsa-2048" { "signerAndCaCert" } else { "signerCert" };
            let options = json!({ "signatureType": kind_of_type, "cadesType": form, "embedCertificateType": embed });
            let set = gateway.put_json(&format!("{ticket}/option"), options).await;
            assert_eq!(set.status, 200, "{}", set.text());
            let signature = gateway.sign(&ticket).await;
            if *kind == KeyKind::Ed25519 {
                assert!(ed25519_holds(&signature), "{attached} {cades}");
            } else {
                assert_eq!(accepted(&gateway, &signature, content, attached, cades), Ok(()), "{key} {attached} {cades}");
            }
            let base64 = gateway.get(&format!("{ticket}/ds/base64Data")).await.json();
            assert_eq!(base64["base64Data"], STANDARD.encode(&signature));
            assert_eq!(base64["message"], CREATED);
            assert_eq!(gateway.delete(&ticket).await.status, 200);
            signatures.push((format!("{key} {attached} {cades}"), attached, signature));
        }
    }
    assert_eq!(refused_by_pyhanko(&gateway, content, &signatures), None);
    // No CA is known for this key, which is seen when the option is set.
    let ticket = gateway.ticket_with(content).await;
    let refused = gateway.put_json(&format!("{ticket}/option"), json!({ "embedCertificateType": "signerAndCaCert" })).await;
    assert_eq!((refused.status, refused.message().contains("embedCertificateType")), (400, true));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_document_is_signed_from_its_file_and_comes_back_inside_its_signature() {
    let mut plan = Plan::softhsm(&KEYS[..2], 1024).await;
    plan.tickets.spool_threshold = 100_000;
    let gateway = plan.start().await;
    let content: Vec<u8> = (0..5_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    for (key, _) in &KEYS[..2] {
        let ticket = gateway.ticket_with(&content).await;
        gateway.put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": format!("pkcs11:object={key}") })).await;
        gateway.put_json(&format!("{ticket}/option"), json!({ "signatureType": "attached" })).await;
        let signature = gateway.sign(&ticket).await;
        assert_eq!(accepted(&gateway, &signature, &content, true, false), Ok(()), "{key}");
        let base64 = gateway.get(&format!("{ticket}/ds/base64Data")).await.json();
        assert!(base64["base64Data"] == STANDARD.encode(&signature), "{key}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_that_obey_retry_after_all_get_their_signatures() {
    let gateway = Arc::new(Plan::softhsm(&KEYS[..1], 16).await.start().await);
    // Whoever is served tells one who was put off; it stands for the time that `Retry-After` asks for.
    let room = Arc::new(Notify::new());
    let clients = (0..200).map(|n| {
        let (gateway, room) = (Arc::clone(&gateway), Arc::clone(&room));
        tokio::spawn(async move {
            let content = format!("document {n}").into_bytes();
            let ticket = gateway.ticket_with(&content).await;
            loop {
                let started = gateway.post(&format!("{ticket}/ds/creator")).await;
                let Some(after) = started.header("retry-after") else {
                    assert_eq!((started.status, started.message().as_str()), (200, STARTED));
                    break;
                };
                assert_eq!((started.status, after.parse::<u64>().unwrap() >= 1), (503, true));
                room.notified().await;
            }
            let fetched = gateway.get(&format!("{ticket}/ds/data")).await;
            assert_eq!(fetched.status, 200, "{}", fetched.text());
            room.notify_one();
            (content, fetched.body)
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut results = Vec::new();
    for client in clients {
        results.push(tokio::time::timeout(PATIENCE, client).await.expect("a client is put off for ever").unwrap());
    }
    for (content, signature) in results.iter().step_by(20) {
        assert_eq!(accepted(&gateway, signature, content, false, false), Ok(()));
    }
    Arc::into_inner(gateway).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_describes_its_tokens_and_certificates() {
    let gateway = Plan::softhsm(&KEYS[..1], 16).await.start().await;
    let status = gateway.get("/status").await;
    assert_eq!((status.status, status.message().as_str()), (200, "Сервіси знаходяться у працездатному стані."));
    let connected = gateway.get("/token/connected").await.json();
    let path = connected["activeTokenPath"][0].as_str().unwrap();
    assert!(path.starts_with("pkcs11:token=contract;") && path.contains("serial="), "{path}");
    let info = &connected["tokenInfo"][0];
    assert_eq!((&info["name"], &info["activeModePath"]), (&json!("contract"), &json!(path)));

    let described = gateway.get("/certificateInfo/signature").await.json();
    assert_eq!(described["ownerCertificateInfo"]["value"]["ownerFullName"]["value"], "ec-p256");
    assert_eq!(described["issuerCertificateInfo"]["value"]["ownerFullName"], json!({ "description": "Повне ім'я", "value": "Test CA" }));
    for member in ["publicKeyCertificateInfo", "certificateSerialNumber", "notBefore", "notAfter", "extensionsCertificateInfo"] {
        assert!(described[member]["description"].is_string() && !described[member]["value"].is_null(), "{member}");
    }
    assert_eq!(gateway.get("/certificateInfo/keyAgreement").await.json(), json!({}));
    let base64 = gateway.get("/certificate/base64/signature").await.json();
    let certificate = Certificate::from_der(&STANDARD.decode(base64["base64Data"].as_str().unwrap()).unwrap()).unwrap();
    assert_eq!(certificate.common_name().as_deref(), Some("ec-p256"));
    let other = gateway.anonymous(Method::GET, "/api/v1/certificateInfo/signature").bearer_auth(OTHER_KEY);
    assert_eq!(send(other).await.json(), json!({}));

    let ticket = gateway.ticket().await;
    let checked = gateway.put_json(&format!("{ticket}/keyStore/verifier"), json!({})).await.json();
    assert_eq!((&checked["signature"]["canBeUsed"], &checked["keyAgreement"]["canBeUsed"]), (&json!(true), &json!(false)));
    assert_eq!(checked["signature"]["certificateInfo"]["ownerCertificateInfo"]["value"]["ownerFullName"]["value"], "ec-p256");
    let of_ticket = gateway.put_json(&format!("{ticket}/keyStore/certificate/base64/signature"), json!({})).await.json();
    assert_eq!(of_ticket["base64Data"], base64["base64Data"]);
    let of_ticket = gateway.put_json(&format!("{ticket}/keyStore/certificate/info/signature"), json!({})).await.json();
    assert_eq!(of_ticket, described);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashes_are_signed_in_bulk_in_their_order() {
    let gateway = Plan::softhsm(&KEYS, 1024).await.start().await;
    let bulk = |ticket: String, key: &'static str, hashes: Vec<Vec<u8>>| {
        let gateway = &gateway;
        async move {
            gateway.put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": format!("pkcs11:object={key}") })).await;
            let hashes: Vec<_> = hashes.iter().map(|hash| STANDARD.encode(hash)).collect();
            gateway.post_json(&format!("{ticket}/ds/creator/data.bulk"), json!({ "dataToSign": hashes })).await
        }
    };
    let contents: Vec<Vec<u8>> = (0..20).map(|n| format!("document {n}").into_bytes()).collect();
    let sha = |algorithm, content: &[u8]| sealgate::cms::digest(algorithm, content).as_bytes().to_vec();
    use sealgate::domain::algorithm::HashAlgorithm::{Sha256, Sha384, Sha512};
    for (key, algorithm) in [("rsa-2048", Sha256), ("rsa-2048", Sha512), ("ec-p256", Sha384)] {
        let hashes = contents.iter().map(|content| sha(algorithm, content)).collect();
        let answer = bulk(gateway.ticket().await, key, hashes).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let signatures = answer.json().as_array().unwrap().clone();
        assert_eq!(signatures.len(), contents.len());
        for (signature, content) in signatures.iter().zip(&contents) {
            let signature = STANDARD.decode(signature.as_str().unwrap()).unwrap();
            assert_eq!(accepted(&gateway, &signature, content, false, false), Ok(()), "{key} {algorithm}");
        }
    }
    let ed25519 = bulk(gateway.ticket().await, "ed25519", vec![sha(Sha512, b"x")]).await.json();
    assert!(ed25519_holds(&STANDARD.decode(ed25519[0].as_str().unwrap()).unwrap()));

    let refused = [
        ("ed25519", vec![sha(Sha256, b"x")], "32"),
        ("ec-p256", vec![vec![1; 20]], "20"),
        ("ec-p256", vec![], "1"),
        ("ec-p256", vec![vec![1; 32]; 501], "500"),
    ];
    for (key, hashes, cause) in refused {
        let answer = bulk(gateway.ticket().await, key, hashes).await;
        assert_eq!((answer.status, answer.cause().contains(cause)), (500, true), "{}", answer.text());
    }
    let attached = gateway.ticket().await;
    gateway.put_json(&format!("{attached}/option"), json!({ "signatureType": "attached" })).await;
    assert_eq!(bulk(attached, "ec-p256", vec![vec![1; 32]]).await.status, 500);
    for bad in [json!({}), json!({ "dataToSign": "x" }), json!({ "dataToSign": ["!"] }), json!([])] {
        let ticket = gateway.ticket().await;
        assert_eq!(gateway.post_json(&format!("{ticket}/ds/creator/data.bulk"), bad.clone()).await.status, 500, "{bad}");
    }
    gateway.stop().await;
}

// Over the scripted token, which stops where a test wants it to.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_job_is_open_asking_again_is_the_same_job_and_nothing_can_be_changed() {
    let (script, mut plan) = scripted(&["one"]);
    plan.tickets.blocking_get_bound = Duration::from_millis(1);
    let gateway = plan.start().await;
    let ticket = gateway.ticket_with(b"x").await;
    let gate = hang_next(&script);
    assert_eq!(start(&gateway, &ticket, json!({})).await.message(), STARTED);
    gate.wait_entered();
    assert_eq!(start(&gateway, &ticket, json!([])).await.status, 200);
    let creator = format!("{ticket}/ds/creator");
    let pending = gateway.get(&creator).await;
    assert_eq!((pending.status, pending.message().as_str()), (202, PENDING));
    for blocking in ["/ds/data", "/ds/base64Data"] {
        let waited = gateway.get(&format!("{ticket}{blocking}")).await;
        assert_eq!((waited.status, waited.message().as_str()), (202, PENDING));
    }
    let frozen = [
        gateway.upload(&ticket, "application/octet-stream", b"y".to_vec()).await,
        gateway.put_json(&format!("{ticket}/metadata"), json!({ "metaData": "y" })).await,
        gateway.put_json(&format!("{ticket}/option"), json!({ "signatureType": "attached" })).await,
        gateway.put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": "pkcs11:object=one" })).await,
    ];
    for answer in frozen {
        assert_eq!((answer.status, answer.cause().contains("не можна змінювати")), (500, true), "{}", answer.text());
    }
    gate.release();
    wait_until_signed(&gateway, &creator).await;
    assert_eq!(script.count(Call::Sign), 1);
    assert_eq!(start(&gateway, &ticket, json!({})).await.status, 200);
    wait_until_signed(&gateway, &creator).await;
    assert_eq!(script.count(Call::Sign), 2);
    gateway.stop().await;
}

/// Polls as a client does, without the pauses.
async fn wait_until_signed(gateway: &Gateway, creator: &str) {
    let signed = async {
        loop {
            let answer = gateway.get(creator).await;
            if answer.status != 202 {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, signed).await.expect("the job does not end");
    assert_eq!((answer.status, answer.message().as_str()), (200, CREATED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_for_one_ticket_at_once_are_one_job() {
    let (script, plan) = scripted(&["one"]);
    let gateway = Arc::new(plan.start().await);
    let ticket = gateway.ticket_with(b"x").await;
    // The token is asked about its key once; later it cannot answer, for it hangs.
    assert_eq!(gateway.get("/certificate/base64/signature").await.status, 200);
    let gate = hang_next(&script);
    let requests: Vec<_> = (0..20)
        .map(|_| {
            let (gateway, ticket) = (Arc::clone(&gateway), ticket.clone());
            tokio::spawn(async move { start(&gateway, &ticket, json!({})).await.status })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    gate.release();
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 200);
    assert_eq!(script.count(Call::Sign), 1);
    Arc::into_inner(gateway).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_pays_for_as_many_signatures_as_it_says_however_many_race() {
    let (script, plan) = scripted(&["one"]);
    let gateway = Arc::new(plan.start().await);
    let permission = permission(&gateway, 3).await;
    let mut tickets = Vec::new();
    for _ in 0..10 {
        tickets.push(gateway.ticket_with(b"x").await);
    }
    let requests: Vec<_> = tickets
        .into_iter()
        .map(|ticket| {
            let (gateway, permission) = (Arc::clone(&gateway), permission.clone());
            tokio::spawn(async move {
                let started = start(&gateway, &ticket, json!({ "accessTokenUuid": permission })).await;
                if started.status == 200 {
                    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 200);
                }
                started
            })
        })
        .collect();
    let mut refused = 0;
    for request in requests {
        let started = request.await.unwrap();
        if started.status != 200 {
            assert_eq!((started.status, started.message().as_str()), (403, "Дозвіл на використання ЕП вичерпано."));
            refused += 1;
        }
    }
    assert_eq!((refused, script.count(Call::Sign)), (7, 3));
    let read = gateway.get(&format!("/accessToken/{permission}")).await.json();
    assert_eq!(read["usesLeft"], json!(0));
    Arc::into_inner(gateway).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_cannot_be_used_says_why() {
    let (script, plan) = scripted(&["one"]);
    let gateway = plan.start().await;
    let revoked = permission(&gateway, 1).await;
    gateway.delete(&format!("/accessToken/{revoked}")).await;
    let foreign = gateway.anonymous(Method::POST, "/api/v1/accessToken").bearer_auth(OTHER_KEY).json(&json!({ "accessTimesNumber": 1 }));
    let foreign = send(foreign).await.json()["accessTokenUuid"].as_str().unwrap().to_owned();
    let unknown = "Дозвіл на використання ЕП відсутній.";
    for (permission, message) in [
        (revoked.as_str(), "Дозвіл на використання ЕП було відкликано."),
        (&foreign, unknown),
        ("00000000-0000-4000-8000-000000000000", unknown),
        ("nonsense", unknown),
    ] {
        let ticket = gateway.ticket_with(b"x").await;
        let refused = start(&gateway, &ticket, json!({ "accessTokenUuid": permission })).await;
        assert_eq!((refused.status, refused.message().as_str()), (403, message));
        // Nothing was begun, so nothing is frozen.
        assert_eq!(gateway.upload(&ticket, "application/octet-stream", b"y".to_vec()).await.status, 200);
    }
    assert_eq!(script.count(Call::Sign), 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_when_to_come_again_and_a_deleted_ticket_makes_room() {
    let (script, mut plan) = scripted(&["one"]);
    plan.policies[0].queue_bound = 2;
    let gateway = plan.start().await;
    let gate = hang_next(&script);
    let permission = permission(&gateway, 1000).await;
    let token = gateway.tokens.slots()[0].token().clone();
    let submit = || async {
        let ticket = gateway.ticket_with(b"x").await;
        (start(&gateway, &ticket, json!({ "accessTokenUuid": permission })).await, ticket)
    };
    let mut tickets = Vec::new();
    for _ in 0..WITH_THE_TOKEN {
        let (started, ticket) = submit().await;
        assert_eq!(started.status, 200, "{}", started.text());
        tickets.push(ticket);
        let claimed = async {
            while gateway.store.count_queued(&token).await != Ok(0) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, claimed).await.expect("the job is not claimed");
    }
    for _ in 0..2 {
        let (started, ticket) = submit().await;
        assert_eq!(started.status, 200, "{}", started.text());
        tickets.push(ticket);
    }
    let (full, _) = submit().await;
    assert_eq!(full.status, 503);
    assert!(full.message().contains(full.header("retry-after").unwrap()), "{}", full.text());
    let uses_left = || async { gateway.get(&format!("/accessToken/{permission}")).await.json()["usesLeft"].as_u64().unwrap() };
    let before = uses_left().await;
    let last = tickets.pop().unwrap();
    assert_eq!(gateway.delete(&last).await.status, 200);
    assert_eq!(uses_left().await, before + 1);
    let (started, ticket) = submit().await;
    assert_eq!(started.status, 200, "{}", started.text());
    tickets.push(ticket);
    gate.release();
    for ticket in &tickets {
        assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 200);
    }
    assert_eq!(script.count(Call::Sign), tickets.len());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_may_come_with_the_request() {
    let script = Script::new("scripted");
    let gateway = Plan::scripted(&script, LoginMode::PerRequest, &["one"]).start().await;
    let ticket = gateway.ticket_with(b"x").await;
    let creator = format!("{ticket}/ds/creator");
    let as_number: u64 = FAKE_PIN.parse().unwrap();
    for pin in [json!(FAKE_PIN), json!(as_number)] {
        let started = start(&gateway, &ticket, json!({ "keyStorePassword": pin })).await;
        assert_eq!(started.status, 200, "{}", started.text());
        wait_until_signed(&gateway, &creator).await;
    }
    let without = start(&gateway, &ticket, json!({})).await;
    assert_ne!(without.status, 401);
    let wrong = gateway.ticket_with(b"x").await;
    let started = start(&gateway, &wrong, json!({ "keyStorePassword": "999999" })).await;
    let ended = if started.status == 200 { gateway.get(&format!("{wrong}/ds/data")).await } else { started };
    assert_eq!(ended.status, 500, "{}", ended.text());
    assert!(ended.cause().contains("PIN") && !ended.cause().contains("999999"), "{}", ended.text());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_pin_on_a_token_that_is_logged_in_fails_alone() {
    let (script, plan) = scripted(&["one"]);
    let gateway = plan.start().await;
    let logins = script.count(Call::Login);
    let ticket = gateway.ticket_with(b"x").await;
    let wrong = start(&gateway, &ticket, json!({ "keyStorePassword": 999_999 })).await;
    assert_eq!((wrong.status, wrong.cause().contains("PIN")), (500, true), "{}", wrong.text());
    assert_eq!((script.count(Call::Login), script.count(Call::Sign)), (logins, 0));
    let verifier = gateway.put_json(&format!("{ticket}/keyStore/verifier"), json!({ "keyStorePassword": "999999" })).await;
    assert_eq!((verifier.status, verifier.cause().contains("999999")), (500, false));
    assert_eq!(start(&gateway, &ticket, json!({ "keyStorePassword": FAKE_PIN })).await.status, 200);
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 200);
    assert_eq!(script.count(Call::Login), logins);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_of_the_token_is_told_and_keeps_the_permission() {
    let (script, plan) = scripted(&["one"]);
    let gateway = plan.start().await;
    let permission = permission(&gateway, 1).await;
    let ticket = gateway.ticket_with(b"x").await;
    let refused = sealgate::token::driver::DeviceError::Refused("the key is not for signing".to_owned());
    script.fail(Call::SignInit, script.count(Call::SignInit) + 1, refused);
    assert_eq!(start(&gateway, &ticket, json!({ "accessTokenUuid": permission })).await.status, 200);
    let failed = gateway.get(&format!("{ticket}/ds/data")).await;
    assert_eq!((failed.status, failed.message().as_str()), (500, "Електронний підпис не створено."));
    let status = gateway.get(&format!("{ticket}/ds/creator")).await;
    assert_eq!((status.status, status.cause()), (500, failed.cause()));
    assert_eq!(start(&gateway, &ticket, json!({ "accessTokenUuid": permission })).await.status, 200);
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_on_for_a_client_that_hung_up() {
    let (script, mut plan) = scripted(&["one"]);
    let store = watched(&mut plan);
    let gateway = plan.start().await;
    let ticket = gateway.ticket_with(b"x").await;
    let gate = hang_next(&script);
    start(&gateway, &ticket, json!({})).await;
    let mut client = TcpStream::connect(gateway.urls[0].trim_start_matches("http://")).await.unwrap();
    let request = format!("GET /api/v1{ticket}/ds/data HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {CI_KEY}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    until_waiting(&store, 1).await;
    drop(client);
    until_waiting(&store, 0).await;
    gate.release();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_server_stops_those_who_wait_are_answered_at_once() {
    let (script, mut plan) = scripted(&["one"]);
    let store = watched(&mut plan);
    let gateway = plan.start().await;
    let ticket = gateway.ticket_with(b"x").await;
    let gate = hang_next(&script);
    start(&gateway, &ticket, json!({})).await;
    let waiting = tokio::spawn(send(gateway.request(Method::GET, &format!("{ticket}/ds/data"))));
    until_waiting(&store, 1).await;
    let stopping = tokio::spawn(gateway.stop());
    assert_eq!(waiting.await.unwrap().status, 202);
    gate.release();
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_deleted_while_somebody_waits_for_it_is_gone_for_him_too() {
    let (script, mut plan) = scripted(&["one"]);
    let store = watched(&mut plan);
    let gateway = plan.start().await;
    let ticket = gateway.ticket_with(b"x").await;
    let gate = hang_next(&script);
    start(&gateway, &ticket, json!({})).await;
    gate.wait_entered();
    let waiting = tokio::spawn(send(gateway.request(Method::GET, &format!("{ticket}/ds/data"))));
    until_waiting(&store, 1).await;
    assert_eq!(gateway.delete(&ticket).await.status, 200);
    gate.release();
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status, answer.message().as_str()), (400, "Сесія відсутня."));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_still_sending_reads_that_its_upload_is_too_long() {
    let mut plan = Plan::new();
    plan.tickets.upload_bytes_max = 100_000;
    let gateway = plan.start().await;
    let ticket = gateway.ticket().await;
    let mut client = TcpStream::connect(gateway.urls[0].trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /api/v1{ticket}/data HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {CI_KEY}\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: 50000000\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&vec![0; 4_000_000]).await.unwrap();
    let mut answer = vec![0; 12];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
    gateway.stop().await;
}
