//! ASiC-S and ASiC-E containers, opened with `unzip` and judged by OpenSSL.

use std::{fs, path::Path, process::Command};

use reqwest::Method;
use sealgate::domain::algorithm::{Curve, KeyKind};
use serde_json::json;

use crate::common::{
    gateway::{Plan, send},
    openssl::openssl_ok,
    pyhanko,
};

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

/// A form with these data objects: a file name, a media type, the content.
fn form(objects: &[(Option<&str>, &str, &[u8])]) -> Vec<u8> {
    let part = |(name, media_type, content): &(Option<&str>, &str, &[u8])| {
        let name = name.map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
        let head =
            format!("--cut\r\nContent-Disposition: form-data; name=\"uploadTicketData\"{name}\r\nContent-Type: {media_type}\r\n\r\n");
        [head.as_bytes(), content, b"\r\n"].concat()
    };
    objects.iter().map(part).chain([b"--cut--\r\n".to_vec()]).collect::<Vec<_>>().concat()
}

const FORM: &str = "multipart/form-data; boundary=cut";

#[tokio::test(flavor = "multi_thread")]
async fn several_data_objects_stand_in_one_container_and_a_script_of_its_own_finds_them_all() {
    let keys = [("ec-p256", KeyKind::Ec(Curve::P256)), ("tsa-p256", KeyKind::Ec(Curve::P256))];
    let gateway = Plan::softhsm(&keys, 64).await.start().await;
    // One of them long enough that all are spooled.
    let long: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
    let short = [(Some("a.txt"), "text/plain", b"first".as_slice()), (Some("b & \u{0434}.xml"), "text/xml", b"<b/>"), (None, "x", b"")];
    let spooled = [(Some("/folder/a.bin"), "application/octet-stream", long.as_slice()), (Some("../../etc/b"), "text/plain", b"second")];
    let expected: [&[&str]; 2] = [&["a.txt", "b & \u{0434}.xml", "document-3"], &["a.bin", "b"]];
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("ca.pem"), gateway.ca.certificate().to_pem()).unwrap();
    for (objects, names) in [short.as_slice(), &spooled].into_iter().zip(expected) {
        let ticket = gateway.ticket().await;
        let uploaded = gateway.upload(&ticket, FORM, form(objects)).await;
        assert_eq!(uploaded.status, 200, "{}", uploaded.text());
        // Nothing but a container can hold them.
        let refused = gateway.post(&format!("{ticket}/ds/creator")).await;
        assert!(refused.status == 500 && refused.cause().contains("ASIC_E"), "{}", refused.text());
        assert_eq!(gateway.post(&format!("{ticket}/ts/creator")).await.status, 500);
        gateway.put_json(&format!("{ticket}/option"), json!({ "asicForm": "ASIC_E", "cadesType": "CAdEST" })).await;
        fs::write(path("container.asice"), gateway.sign(&ticket).await).unwrap();
        let listed: Vec<_> = objects
            .iter()
            .zip(names)
            .enumerate()
            .map(|(number, ((_, media_type, content), name))| {
                let file = path(&format!("object-{number}"));
                fs::write(&file, content).unwrap();
                let media_type = if *media_type == "x" { "application/octet-stream" } else { media_type };
                json!({ "name": name, "mediaType": media_type, "file": file })
            })
            .collect();
        let manifest = json!({ "container": path("container.asice"), "ca": path("ca.pem"), "objects": listed });
        fs::write(path("expected.json"), manifest.to_string()).unwrap();
        let output = pyhanko::run("check_container.py", [path("expected.json").as_os_str()]);
        assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // We ourselves take what signs the manifest.
        unzip(dir.path(), &path("container.asice"));
        let signed = gateway.ticket_with(&fs::read(path("META-INF/ASiCManifest001.xml")).unwrap()).await;
        let upload = gateway.request(Method::POST, &format!("{signed}/ds/data")).header("content-type", "application/octet-stream");
        send(upload.body(fs::read(path("META-INF/signature001.p7s")).unwrap())).await;
        gateway.post(&format!("{signed}/ds/verifier")).await;
        assert_eq!(gateway.get(&format!("{signed}/ds/verifier")).await.status, 200);
    }
    let twice = [(Some("a"), "text/plain", b"1".as_slice()), (Some("folder/A"), "text/plain", b"2")];
    let ticket = gateway.ticket().await;
    let refused = gateway.upload(&ticket, FORM, form(&twice)).await;
    assert!(refused.status == 500 && refused.cause().contains("\"A\""), "{}", refused.text());
    let many = vec![(None, "text/plain", b"1".as_slice()); 65];
    assert!(gateway.upload(&ticket, FORM, form(&many)).await.cause().contains("64"));
    // One object with a name keeps it in a container, and is signed as it is without one.
    let one = [(Some("one.txt"), "text/plain", b"one".as_slice())];
    assert_eq!(gateway.upload(&ticket, FORM, form(&one)).await.status, 200);
    gateway.put_json(&format!("{ticket}/option"), json!({ "asicForm": "ASIC_S" })).await;
    fs::write(path("container.asics"), gateway.sign(&ticket).await).unwrap();
    unzip(dir.path(), &path("container.asics"));
    assert_eq!(fs::read(path("one.txt")).unwrap(), b"one");
    gateway.stop().await;
}
