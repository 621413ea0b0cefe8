//! Evidence that certificates are not revoked: which CRLs and OCSP answers count, which do not, and what becomes of a signature then.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sealgate::{
    domain::{
        algorithm::{Curve, KeyKind},
        timestamp::Timestamp,
    },
    pki::{
        Certificate, DevCa, Validity,
        fetch::Fetcher,
        revocation::{Evidence, Moment, RevocationClient, RevocationError, RevocationSettings, RevocationSource, SourcePlace},
    },
};
use serde_json::json;

use crate::common::{
    authority::{OcspManner, TestAuthority},
    gateway::{PATIENCE, Plan},
    openssl::private_key,
    pyhanko,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Lab {
    ca: DevCa,
    certificate: Certificate,
    other: Certificate,
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// From so many days ago for so many days.
fn days(ago: u32, length: u32) -> Validity {
    let begin = Timestamp::from_millis(now().as_millis() - u64::try_from((DAY * ago).as_millis()).unwrap());
    Validity::new(begin, begin.after(DAY * length)).unwrap()
}

impl Lab {
    fn new() -> Self {
        let ca = DevCa::create("Revoking CA", days(10, 3650)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let spki = private_key(&dir.path().join("key"), &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        let issue = |name| ca.issue(&spki, name, days(9, 3000)).unwrap();
        let (certificate, other) = (issue("one"), issue("other"));
        Self { ca, certificate, other }
    }

    fn client(&self, places: Vec<SourcePlace>) -> RevocationClient {
        let sources = vec![RevocationSource { issuer: self.ca.certificate().as_der().to_vec(), places }];
        let settings = RevocationSettings { sources, timeout: PATIENCE, crl_max: 100_000, concurrent: 2 };
        RevocationClient::new(Fetcher::new(false).unwrap(), settings)
    }

    async fn ask(&self, client: &RevocationClient) -> Result<Evidence, RevocationError> {
        client.evidence(self.certificate.as_der(), self.ca.certificate().as_der(), Moment::present(now())).await
    }

    async fn authority(&self) -> Arc<TestAuthority> {
        let serials = [self.certificate.serial()];
        TestAuthority::start(&self.ca.key_pem().unwrap(), &self.ca.certificate().to_pem(), &serials).await.0
    }
}

#[tokio::test]
async fn each_crl_counts_or_does_not_for_its_own_reason() {
    let lab = Lab::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("crl");
    let client = lab.client(vec![SourcePlace::CrlFile(file.clone())]);
    let stranger = DevCa::create("Another CA", days(10, 3650)).unwrap();
    let impostor = DevCa::create("Revoking CA", days(10, 3650)).unwrap();
    let good = lab.ca.crl(1, days(1, 7), &[&lab.other]).unwrap();
    let mut cut = good.clone();
    cut.pop();
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    let cases: [(Vec<u8>, &str); 8] = [
        (lab.ca.crl(1, days(9, 7), &[]).unwrap(), "out of date"),
        (lab.ca.crl(1, Validity::new(now().after(DAY), now().after(DAY * 2)).unwrap(), &[]).unwrap(), "from the future"),
        (stranger.crl(1, days(1, 7), &[]).unwrap(), "of another issuer"),
        (impostor.crl(1, days(1, 7), &[]).unwrap(), "its signature"),
        (changed, "its signature"),
        (cut, "cannot be read"),
        (b"no list".to_vec(), "cannot be read"),
        (vec![0x30; 100_001], "more than 100000 bytes"),
    ];
    for (crl, reason) in cases {
        fs::write(&file, crl).unwrap();
        let error = lab.ask(&client).await.expect_err(reason).to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    fs::write(&file, lab.ca.crl(2, days(1, 7), &[&lab.other, &lab.certificate]).unwrap()).unwrap();
    assert!(matches!(lab.ask(&client).await, Err(RevocationError::Revoked { .. })));
    fs::write(&file, &good).unwrap();
    assert!(matches!(lab.ask(&client).await, Ok(Evidence::Crl(checked)) if checked.der == good));
    let nobody = lab.client(Vec::new());
    assert_eq!(lab.ask(&nobody).await, Err(RevocationError::NoSource));
}

#[tokio::test]
async fn a_crl_is_fetched_once_while_it_is_valid() {
    let lab = Lab::new();
    let authority = lab.authority().await;
    authority.put("crl", lab.ca.crl(1, days(1, 7), &[]).unwrap());
    let client = lab.client(vec![SourcePlace::Crl(format!("{}/crl", authority.url).parse().unwrap())]);
    for _ in 0..3 {
        lab.ask(&client).await.unwrap();
    }
    assert_eq!(authority.requests(), 1);
    let missing = lab.client(vec![SourcePlace::Crl(format!("{}/none", authority.url).parse().unwrap())]);
    assert!(lab.ask(&missing).await.unwrap_err().to_string().contains("HTTP status 404"));
}

#[tokio::test]
async fn each_ocsp_answer_counts_or_does_not_for_its_own_reason() {
    let lab = Lab::new();
    let authority = lab.authority().await;
    let client = lab.client(vec![SourcePlace::Ocsp(format!("{}/ocsp", authority.url).parse().unwrap())]);
    for manner in [OcspManner::Good, OcspManner::Delegated] {
        authority.set(manner);
        assert!(matches!(lab.ask(&client).await, Ok(Evidence::Ocsp(_))), "{manner:?}");
    }
    let cases = [
        (OcspManner::WrongPurpose, "not certified for OCSP"),
        (OcspManner::Stranger, "not of the issuer"),
        (OcspManner::Unknown, "does not know the certificate"),
        (OcspManner::Replayed, "does not repeat the nonce"),
        (OcspManner::Garbage, "cannot be read"),
    ];
    for (manner, reason) in cases {
        authority.set(manner);
        let error = lab.ask(&client).await.expect_err(reason).to_string();
        assert!(error.contains(reason), "{manner:?}: {error}");
    }
    authority.set(OcspManner::Revoked);
    assert!(matches!(lab.ask(&client).await, Err(RevocationError::Revoked { .. })));
    // The next place is asked when one does not answer well, but not when it says that the certificate is revoked.
    authority.put("crl", lab.ca.crl(1, days(1, 7), &[]).unwrap());
    let places = [
        SourcePlace::Ocsp(format!("{}/ocsp", authority.url).parse().unwrap()),
        SourcePlace::Crl(format!("{}/crl", authority.url).parse().unwrap()),
    ];
    let both = lab.client(places.into());
    assert!(matches!(lab.ask(&both).await, Err(RevocationError::Revoked { .. })));
    authority.set(OcspManner::Garbage);
    assert!(matches!(lab.ask(&both).await, Ok(Evidence::Crl(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn x_long_with_ocsp_is_recomputed_by_asn1crypto_and_a_revoked_certificate_gets_no_form() {
    let keys = [("ec-p256", KeyKind::Ec(Curve::P256)), ("tsa-p256", KeyKind::Ec(Curve::P256))];
    let mut plan = Plan::softhsm(&keys, 64).await;
    let listing = plan.serials.clone();
    let authority = TestAuthority::start(&plan.ca.key_pem().unwrap(), &plan.ca.certificate().to_pem(), &listing).await.0;
    plan.evidence_from(vec![SourcePlace::Ocsp(format!("{}/ocsp", authority.url).parse().unwrap())]);
    let gateway = plan.start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("content"), b"some content").unwrap();
    fs::write(path("root.der"), gateway.ca.certificate().as_der()).unwrap();
    let mut cases = Vec::new();
    for (form, manner) in [("CAdESC", OcspManner::Good), ("CAdESXLong", OcspManner::Good), ("CAdESXLong", OcspManner::Delegated)] {
        authority.set(manner);
        let ticket = gateway.ticket_with(b"some content").await;
        assert_eq!(gateway.put_json(&format!("{ticket}/option"), json!({ "cadesType": form })).await.status, 200);
        let signature = path(&format!("{form}-{manner:?}.p7s"));
        let der = gateway.sign(&ticket).await;
        let message = gateway_signer(&der);
        fs::write(path("leaf.der"), message).unwrap();
        fs::write(&signature, der).unwrap();
        cases.push(json!({
            "name": format!("{form} {manner:?}"), "signature": signature, "content": path("content"), "form": form, "embedded": [path("leaf.der")],
            "path": [path("leaf.der"), path("root.der")], "attached": false, "signatureTs": false, "contentTs": false, "caInfo": false,
        }));
    }
    fs::write(path("forms.json"), json!({ "root": path("root.der"), "years": 5, "cases": cases }).to_string()).unwrap();
    let output = pyhanko::run("check_forms.py", [path("forms.json").as_os_str()]);
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    authority.set(OcspManner::Revoked);
    let ticket = gateway.ticket_with(b"some content").await;
    gateway.put_json(&format!("{ticket}/option"), json!({ "cadesType": "CAdESC" })).await;
    assert_eq!(gateway.post(&format!("{ticket}/ds/creator")).await.status, 200);
    let refused = gateway.get(&format!("{ticket}/ds/data")).await;
    assert!(refused.status == 500 && refused.cause().contains("revoked"), "{}", refused.text());
    gateway.stop().await;
}

/// The certificate that is embedded, in DER.
fn gateway_signer(signature: &[u8]) -> Vec<u8> {
    use der::{Decode, Encode};
    let info = cms::content_info::ContentInfo::from_der(signature).unwrap();
    let data: cms::signed_data::SignedData = info.content.decode_as().unwrap();
    data.certificates.unwrap().0.get(0).unwrap().to_der().unwrap()
}
