//! Signatures on their way in: DER as it is, PEM (RFC 7468) and bare Base64 without their dress.
//!
//! A signature in DER begins with `30`, which no PEM and no Base64 of one does, so the first byte decides. Invariant: what comes out is
//! what was encoded, whole, or there is an error.

use base64::{Engine, engine::general_purpose::STANDARD};

/// Text that looks like a signature in PEM or Base64 and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is neither DER nor whole PEM or Base64")]
pub struct ArmorError;

/// How much Base64 is decoded at a time, in bytes; a multiple of four.
const GROUPS_LEN: usize = 16 * 1024;
/// The longest line before the Base64 of PEM, in bytes.
const HEADER_MAX: usize = 128;

/// What the bytes so far say that they are.
#[derive(Default)]
enum Form {
    /// There were none, but for white space.
    #[default]
    Unknown,
    Bare,
    /// In the first line of PEM, of so many bytes.
    Header(usize),
    Base64,
    /// Behind the Base64: the last line of PEM.
    Footer,
}

/// Takes the dress off a signature that comes in pieces.
#[derive(Default)]
pub struct Armor {
    form: Form,
    /// White space that stood first, which is dropped from text and kept of anything else.
    first: Vec<u8>,
    base64: Vec<u8>,
}

impl Armor {
    /// Takes the next piece and appends what it holds.
    ///
    /// # Errors
    /// [`ArmorError`].
    pub fn push(&mut self, piece: &[u8], bare: &mut Vec<u8>) -> Result<(), ArmorError> {
        let mut rest = piece;
        while let Some((byte, behind)) = rest.split_first() {
            match &mut self.form {
                Form::Unknown if byte.is_ascii_whitespace() && self.first.len() < HEADER_MAX => self.first.push(*byte),
                Form::Unknown => {
                    self.form = match byte {
                        b'-' => Form::Header(0),
                        b'M' => Form::Base64,
                        _ => Form::Bare,
                    };
                    if matches!(self.form, Form::Bare) {
                        bare.append(&mut self.first);
                    }
                    continue;
                }
                Form::Bare => {
                    bare.extend_from_slice(rest);
                    return Ok(());
                }
                Form::Header(_) if *byte == b'\n' => self.form = Form::Base64,
                Form::Header(len) => {
                    *len += 1;
                    if *len > HEADER_MAX {
                        return Err(ArmorError);
                    }
                }
                Form::Base64 if *byte == b'-' => self.form = Form::Footer,
                Form::Base64 if byte.is_ascii_whitespace() => {}
                Form::Base64 => {
                    self.base64.push(*byte);
                    if self.base64.len() == GROUPS_LEN {
                        self.decode(bare)?;
                    }
                }
                Form::Footer => {}
            }
            rest = behind;
        }
        Ok(())
    }

    /// Ends it and appends what is left.
    ///
    /// # Errors
    /// [`ArmorError`].
    pub fn finish(mut self, bare: &mut Vec<u8>) -> Result<(), ArmorError> {
        match self.form {
            Form::Header(_) => Err(ArmorError),
            Form::Unknown | Form::Bare => {
                bare.append(&mut self.first);
                Ok(())
            }
            Form::Base64 | Form::Footer => self.decode(bare),
        }
    }

    fn decode(&mut self, bare: &mut Vec<u8>) -> Result<(), ArmorError> {
        STANDARD.decode_vec(&self.base64, bare).map_err(|_| ArmorError)?;
        self.base64.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken_off(pieces: &[&[u8]]) -> Result<Vec<u8>, ArmorError> {
        let (mut armor, mut bare) = (Armor::default(), Vec::new());
        pieces.iter().try_for_each(|piece| armor.push(piece, &mut bare))?;
        armor.finish(&mut bare).map(|()| bare)
    }

    proptest! {
        #[test]
        fn every_form_in_any_pieces_gives_the_same(mut der in proptest::collection::vec(any::<u8>(), 1..60_000), cut in 1usize..5000) {
            // What every signature begins with: a long SEQUENCE.
            der.splice(0..0, [0x30, 0x82]);
            let text = STANDARD.encode(&der);
            let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
            let pem = format!("\n-----BEGIN CMS-----\r\n{}\r\n-----END CMS-----\n", lines.join("\r\n"));
            for form in [der.as_slice(), text.as_bytes(), pem.as_bytes()] {
                prop_assert_eq!(taken_off(&form.chunks(cut).collect::<Vec<_>>()).unwrap(), &der[..]);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = taken_off(&[&bytes]);
        }
    }

    #[test]
    fn what_only_looks_like_text_of_a_signature_is_refused() {
        for bad in ["-----BEGIN CMS-----", "MII*", "MIIB=A", &format!("-{}", "x".repeat(200))] {
            assert_eq!(taken_off(&[bad.as_bytes()]), Err(ArmorError), "{bad}");
        }
        assert_eq!(taken_off(&[b"hello"]), Ok(b"hello".to_vec()));
        assert_eq!(taken_off(&[]), Ok(Vec::new()));
    }
}
