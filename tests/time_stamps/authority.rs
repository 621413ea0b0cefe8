//! The gateway as a time-stamping authority, as OpenSSL and pyHanko see it.

use std::{collections::HashSet, fs, path::Path};

use reqwest::Method;
use sealgate::{
    cms::{
        digest,
        time_stamp::{PkiFailure, TimeStampError, TimeStampQuery},
    },
    domain::{
        algorithm::{Curve, HashAlgorithm, KeyKind},
        audit::AuditEvent,
    },
};

use crate::common::{
    gateway::{Gateway, Plan},
    openssl::{openssl, openssl_ok},
    pyhanko,
};

const KEYS: [(&str, KeyKind); 2] = [("ec-p256", KeyKind::Ec(Curve::P256)), ("tsa-p256", KeyKind::Ec(Curve::P256))];

async fn gateway() -> Gateway {
    Plan::softhsm(&KEYS, 64).await.start().await
}

async fn ask(gateway: &Gateway, content_type: &str, query: Vec<u8>) -> (u16, String, Vec<u8>) {
    let request = gateway.anonymous(Method::POST, "/tsa").header("content-type", content_type).body(query);
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let content_type = headers["content-type"].to_str().unwrap().to_owned();
    (status, content_type, response.bytes().await.unwrap().to_vec())
}

fn write_ca(gateway: &Gateway, dir: &Path) -> String {
    let ca = dir.join("ca.pem");
    fs::write(&ca, gateway.ca.certificate().to_pem()).unwrap();
    ca.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_asks_and_takes_the_answers_and_no_serial_number_comes_twice() {
    let gateway = gateway().await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let ca = write_ca(&gateway, dir.path());
    fs::write(file("data"), b"some data").unwrap();
    let mut serials = HashSet::new();
    for (hash, options) in
        [("-sha256", &["-cert"][..]), ("-sha512", &["-cert", "-no_nonce"]), ("-sha384", &["-cert", "-tspolicy", "1.2.3.4.7"])]
    {
        let (data, query, answer) = (file("data"), file("q.tsq"), file("r.tsr"));
        openssl_ok([&["ts", "-query", "-data", &data, hash, "-out", &query][..], options].concat());
        let (status, content_type, reply) = ask(&gateway, "application/timestamp-query", fs::read(&query).unwrap()).await;
        assert_eq!((status, content_type.as_str()), (200, "application/timestamp-reply"));
        fs::write(&answer, reply).unwrap();
        openssl_ok(["ts", "-verify", "-in", &answer, "-queryfile", &query, "-CAfile", &ca]);
        let text = String::from_utf8(openssl_ok(["ts", "-reply", "-in", &answer, "-text"])).unwrap();
        assert!(text.contains("Policy OID: 1.2.3.4.7") && text.contains("Accuracy: 0x01 seconds"), "{text}");
        serials.insert(text.lines().find(|line| line.starts_with("Serial number")).unwrap().to_owned());
    }
    assert_eq!(serials.len(), 3);
    // Without -cert the token has no certificate, and whoever verifies brings it.
    let (data, query, answer) = (file("data"), file("q.tsq"), file("r.tsr"));
    openssl_ok(["ts", "-query", "-data", &data, "-sha256", "-out", &query]);
    fs::write(&answer, ask(&gateway, "application/timestamp-query", fs::read(&query).unwrap()).await.2).unwrap();
    assert!(!openssl(["ts", "-verify", "-in", &answer, "-queryfile", &query, "-CAfile", &ca]).status.success());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pyhanko_takes_a_time_stamp() {
    let gateway = gateway().await;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.der");
    fs::write(&ca, gateway.ca.certificate().as_der()).unwrap();
    let url = format!("{}/tsa", gateway.urls[0]);
    let output = tokio::task::spawn_blocking(move || pyhanko::run("time_stamp.py", [url.as_ref(), ca.as_os_str()])).await.unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_rejected_with_its_failure_info() {
    let gateway = gateway().await;
    let query = |policy: Option<&str>| {
        let imprint = digest(HashAlgorithm::Sha256, b"some data");
        TimeStampQuery::new(imprint, policy.map(|policy| policy.parse().unwrap())).unwrap()
    };
    let good = query(None).to_der().unwrap();
    // The imprint's hash function is the one OID in it; its last byte makes it SHA-512, SHA-1 has another.
    let with = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|window| window == from).unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    let cases = [
        (PkiFailure::BadDataFormat, b"no request".to_vec()),
        (PkiFailure::BadDataFormat, good[..good.len() - 1].to_vec()),
        (PkiFailure::BadDataFormat, [&good[..], &[0]].concat()),
        (PkiFailure::BadDataFormat, with(&[0x65, 3, 4, 2, 1], &[0x65, 3, 4, 2, 3])),
        (PkiFailure::BadAlg, with(&[0x65, 3, 4, 2, 1], &[0x65, 3, 4, 2, 9])),
        (PkiFailure::BadRequest, with(&[2, 1, 1], &[2, 1, 2])),
        (PkiFailure::UnacceptedPolicy, query(Some("1.2.3.4.8")).to_der().unwrap()),
    ];
    for (failure, request) in cases {
        let (status, content_type, reply) = ask(&gateway, "application/timestamp-query", request.clone()).await;
        assert_eq!((status, content_type.as_str()), (200, "application/timestamp-reply"), "{failure}");
        let error = query(None).accept(&reply).unwrap_err();
        let TimeStampError::Refused { status: 2, detail } = &error else { panic!("{failure}: {error}") };
        assert!(detail.starts_with(&format!(", {failure}, ")), "{failure}: {error}");
    }
    assert_eq!(ask(&gateway, "application/octet-stream", good.clone()).await.0, 415);
    assert_eq!(ask(&gateway, "application/timestamp-query", vec![0x30; 20_000]).await.0, 413);
    let elsewhere = gateway.anonymous(Method::POST, "/tsa").header("content-type", "application/timestamp-query");
    let elsewhere = elsewhere.header("x-forwarded-for", "192.0.2.7").body(good).send().await.unwrap();
    assert_eq!(elsewhere.status().as_u16(), 403);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_time_stamp_is_in_the_audit_log_before_anybody_gets_it() {
    let gateway = gateway().await;
    let query = TimeStampQuery::new(digest(HashAlgorithm::Sha256, b"some data"), None).unwrap();
    let reply = ask(&gateway, "application/timestamp-query", query.to_der().unwrap()).await.2;
    let stamp = query.accept(&reply).unwrap();
    let head = gateway.store.audit_head().await.unwrap();
    let records = gateway.store.audit_records(head.gateway, 1, 1000).await.unwrap();
    let events = records.iter().map(|record| serde_json::from_str::<sealgate::domain::audit::AuditRecord>(&record.text).unwrap().event);
    let told = events.filter_map(|event| match event {
        AuditEvent::TimeStamped { serial, imprint, key_name, address, time } => Some((serial, imprint, key_name, address, time)),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    let [(serial, imprint, key, address, time)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((serial, key.as_str()), (&stamp.serial(), "tsa-p256"));
    assert_eq!(time.as_millis() / 1000, stamp.time().as_millis() / 1000);
    assert!(imprint.starts_with("sha256:") && address.is_some_and(|address| address.is_loopback()), "{imprint} {address:?}");
    gateway.stop().await;
}
