//! ASiC-S and ASiC-E containers, opened with `unzip` and judged by OpenSSL.

use std::{fs, path::Path, process::Command};

use sealgate::domain::algorithm::{Curve, KeyKind};
use serde_json::json;

use crate::common::{gateway::Plan, openssl::openssl_ok};

fn unzip(dir: &Path, container: &Path) {
    let output = Command::new("python3").args(["-m", "zipfile", "-e"]).arg(container).arg(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_holds_the_document_and_a_signature_that_openssl_takes() {
    let keys = [("ec-p256", KeyKind::Ec(Curve::P256)), ("tsa-p256", KeyKind::Ec(Curve::P256))];
    let gateway = Plan::softhsm(&keys, 64).await.start().await;
    // Short, and long enough to be spooled.
    let contents = [b"short".to_vec(), (0..3_000_000_u32).map(|n| (n % 251) as u8).collect()];
    for content in contents {
        for (form, signature, signed) in
            [("ASIC_S", "META-INF/signature.p7s", "document"), ("ASIC_E", "META-INF/signature001.p7s", "META-INF/ASiCManifest001.xml")]
        {
            let ticket = gateway.ticket_with(&content).await;
            let set = gateway.put_json(&format!("{ticket}/option"), json!({ "asicForm": form, "cadesType": "CAdEST" })).await;
            assert_eq!(set.status, 200, "{}", set.text());
            let bytes = gateway.sign(&ticket).await;
            assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.body, bytes, "what is fetched again is the same");
            let dir = tempfile::tempdir().unwrap();
            let path = |name: &str| dir.path().join(name);
            fs::write(path("container.zip"), &bytes).unwrap();
            fs::write(path("ca.pem"), gateway.ca.certificate().to_pem()).unwrap();
            unzip(dir.path(), &path("container.zip"));
            assert_eq!(fs::read(path("document")).unwrap(), content);
            let mime = format!("application/vnd.etsi.{}+zip", form.to_lowercase().replace('_', "-"));
            assert_eq!(fs::read_to_string(path("mimetype")).unwrap(), mime);
            assert_eq!(&bytes[38..38 + mime.len()], mime.as_bytes());
            let text = |name: &str| path(name).to_str().unwrap().to_owned();
            openssl_ok([
                "cms",
                "-verify",
                "-binary",
                "-cades",
                "-inform",
                "DER",
                "-in",
                &text(signature),
                "-content",
                &text(signed),
                "-CAfile",
                &text("ca.pem"),
                "-out",
                &text("out"),
            ]);
            if form == "ASIC_E" {
                let manifest = fs::read_to_string(path(signed)).unwrap();
                let digest = openssl_ok(["dgst", "-sha256", "-binary", &text("document")]);
                use base64::{Engine, engine::general_purpose::STANDARD};
                assert!(manifest.contains(&format!("<ds:DigestValue>{}</ds:DigestValue>", STANDARD.encode(digest))), "{manifest}");
            }
        }
    }
    let ticket = gateway.ticket().await;
    let attached = json!({ "asicForm": "ASIC_S", "signatureType": "attached" });
    assert_eq!(gateway.put_json(&format!("{ticket}/option"), attached).await.status, 400);
    gateway.stop().await;
}
