//! No single changed byte makes a signature good for other content, or another signer's.

use std::io::Cursor;

use proptest::prelude::*;
use sealgate::{
    cms::verify::SignedMessage,
    domain::{revocation::RevocationCheck, ticket::TimeStampCheck},
    pki::Certificate,
    verification::{Judgement, Verdict, VerificationError, judge, judge_detached},
};

use crate::lab::{CONTENT, Lab, P256, RSA, days, judgement, now};

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

#[test]
fn a_changed_byte_of_what_stands_beside_a_signature_proves_no_other_time() {
    let lab = Lab::new();
    let certificate = lab.signer("signer", P256);
    lab.authority("tsa");
    let (trust, now) = (lab.trust(), days(300));
    let judgement = || Judgement {
        revocation: RevocationCheck::IfKnown,
        signature_time_stamp: TimeStampCheck::VerifyIfPresent,
        ..judgement(&trust, now)
    };
    let judged = |signature: &[u8]| {
        let verdict = judge_detached(signature, CONTENT, &judgement()).ok().filter(Verdict::is_good)?;
        let signers: Vec<_> = verdict.signers.iter().map(|signer| (signer.certificate.clone().unwrap(), signer.best_time)).collect();
        Some(signers)
    };
    // Every byte of T; of X Long, whose lists are long, every fifth.
    for (form, signature, step) in [("T", lab.stamped("signer", "tsa", &[]), 1), ("X Long", lab.x_long("signer", &certificate, &[]), 5)] {
        let right = judged(&signature).unwrap();
        let (stamped, mut still_good) = (right[0].1, 0);
        assert!(right.len() == 1 && right[0].0 == certificate && stamped < now);
        for position in (0..signature.len()).step_by(step) {
            let mut changed = signature.clone();
            changed[position] ^= 1 << (position % 8);
            if let Some(found) = judged(&changed) {
                // Without its stamp it is a signature of now.
                let is_right = found.len() == 1 && found[0].0 == certificate && (found[0].1 == stamped || found[0].1 == now);
                assert!(is_right, "{form}: byte {position}: {found:?}");
                still_good += step;
            }
        }
        println!("{form}: {still_good} of {} bytes do not matter", signature.len());
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
