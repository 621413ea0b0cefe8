//! No single changed byte makes a signature good for other content, or another signer's.

use std::io::Cursor;

use proptest::prelude::*;
use sealgate::{
    cms::verify::SignedMessage,
    pki::Certificate,
    verification::{VerificationError, judge},
};

use crate::lab::{CONTENT, Lab, P256, RSA, judgement, now};

/// What a signature says if it is good: the content in it, and who signed.
fn good(lab: &Lab, signature: &[u8], content: Option<&[u8]>) -> Option<(Vec<u8>, Vec<Certificate>)> {
    let trust = lab.trust();
    let judged = || -> Result<_, VerificationError> {
        let mut message = SignedMessage::read(Cursor::new(signature))?;
        let mut given = content;
        let reader = given.as_mut().map(|content| content as &mut dyn std::io::Read);
        let verdict = judge(&mut message, reader, &judgement(&trust, now()))?;
        let mut inside = Vec::new();
        if message.is_attached() {
            message.copy_content(&mut inside)?;
        }
        Ok((verdict, inside))
    };
    let (verdict, inside) = judged().ok()?;
    let signers = verdict.signers.iter().filter_map(|signer| signer.certificate.clone()).collect();
    verdict.is_good().then(|| (content.map_or(inside, <[u8]>::to_vec), signers))
}

#[test]
fn a_changed_byte_never_makes_another_content_or_another_signer_good() {
    let lab = Lab::new();
    for (name, key) in [("p256", P256), ("rsa", RSA)] {
        let certificate = lab.signer(name, key);
        for more in [&["-nodetach", "-cades"][..], &["-cades"], &["-nodetach", "-noattr"], &["-nodetach", "-stream"]] {
            let signature = lab.sign(name, more);
            let content = (!more.contains(&"-nodetach")).then_some(CONTENT);
            let right = (CONTENT.to_vec(), vec![certificate.clone()]);
            assert_eq!(good(&lab, &signature, content), Some(right.clone()));
            let mut still_good = 0;
            for position in 0..signature.len() {
                let mut changed = signature.clone();
                changed[position] ^= 1 << (position % 8);
                match good(&lab, &changed, content) {
                    None => {}
                    Some(found) => {
                        assert_eq!(found, right, "{name} {more:?}: byte {position}");
                        still_good += 1;
                    }
                }
            }
            // What is not signed: versions, the list of digest algorithms, the other certificate.
            assert!(still_good < signature.len() / 2, "{name} {more:?}: {still_good} of {}", signature.len());
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = SignedMessage::read(Cursor::new(bytes));
    }

    #[test]
    fn bytes_behind_the_beginning_of_a_signature_make_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), indefinite in any::<bool>()) {
        let head = if indefinite { "308006092a864886f70d010702a0803080020101" } else { "308201f406092a864886f70d010702a08201e5308201e1020101" };
        let mut signature = hex::decode(head).unwrap();
        signature.extend(bytes);
        if let Ok(mut message) = SignedMessage::read(Cursor::new(signature)) {
            let _ = message.check(Some(&mut &b"content"[..]), &[]);
        }
    }
}
