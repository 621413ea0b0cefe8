//! The content of `{"base64Data":"…"}`, decoded as it comes: a document is never in memory as text, nor twice.
//!
//! A scanner for one flat JSON object. Other members are passed over without being judged, as everywhere in this API.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::error::BodyError;

/// The member that holds the content.
pub(super) const MEMBER: &str = "base64Data";

/// A body of this form, as far as it has come.
#[derive(Default)]
pub(super) struct Base64Json {
    place: Place,
    key: Vec<u8>,
    found: bool,
    escape: Option<Vec<u8>>,
    text: Base64Text,
}

/// Where in the object the scanner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    BeforeObject,
    BeforeFirstKey,
    BeforeKey,
    InKey,
    BeforeColon,
    BeforeValue,
    InContent,
    /// In a value of another member; strings and brackets in it are counted, so that its end is found.
    InOther {
        depth: u32,
        in_string: bool,
        escaped: bool,
    },
    AfterValue,
    AfterObject,
}

impl Base64Json {
    /// Takes the next piece of the body and appends what is decoded of it to `content`.
    pub(super) fn push(&mut self, mut piece: &[u8], content: &mut Vec<u8>) -> Result<(), BodyError> {
        while let Some((&byte, rest)) = piece.split_first() {
            if self.place == Place::InContent && self.escape.is_none() {
                let plain = piece.iter().take_while(|byte| !matches!(byte, b'"' | b'\\')).count();
                if plain > 0 {
                    self.text.push(&piece[..plain], content)?;
                    piece = &piece[plain..];
                    continue;
                }
            }
            self.step(byte, content)?;
            piece = rest;
        }
        Ok(())
    }

    /// Ends the body.
    pub(super) fn finish(self) -> Result<(), BodyError> {
        match self.place {
            Place::AfterObject if !self.found => Err(BodyError::MissingMember(MEMBER)),
            Place::AfterObject => self.text.finish(),
            _ => Err(BodyError::NotJson),
        }
    }

    fn step(&mut self, byte: u8, content: &mut Vec<u8>) -> Result<(), BodyError> {
        let space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.place = match (self.place, byte) {
            (Place::InKey, b'"') => Place::BeforeColon,
            (Place::InKey, _) => {
                // A longer key, or one with escapes, is another one.
                if self.key.len() <= MEMBER.len() {
                    self.key.push(byte);
                }
                Place::InKey
            }
            (Place::InContent, _) => self.in_content(byte, content)?,
            (Place::InOther { depth, in_string, escaped }, _) => in_other(byte, depth, in_string, escaped),
            (place, _) if space => place,
            (Place::BeforeObject, b'{') => Place::BeforeFirstKey,
            (Place::BeforeFirstKey | Place::BeforeKey, b'"') => {
                self.key.clear();
                Place::InKey
            }
            (Place::BeforeFirstKey | Place::AfterValue, b'}') => Place::AfterObject,
            (Place::BeforeColon, b':') => Place::BeforeValue,
            (Place::BeforeValue, _) if self.key == MEMBER.as_bytes() => match byte {
                b'"' if !self.found => {
                    self.found = true;
                    Place::InContent
                }
                b'"' => return Err(BodyError::NotJson),
                _ => return Err(BodyError::MissingMember(MEMBER)),
            },
            (Place::BeforeValue, b',' | b':' | b'}' | b']') => return Err(BodyError::NotJson),
            (Place::BeforeValue, _) => in_other(byte, 0, false, false),
            (Place::AfterValue, b',') => Place::BeforeKey,
            _ => return Err(BodyError::NotJson),
        };
        Ok(())
    }

    /// A character of the content that ends it, or is or belongs to an escape.
    fn in_content(&mut self, byte: u8, content: &mut Vec<u8>) -> Result<Place, BodyError> {
        match (&mut self.escape, byte) {
            (None, b'"') => return Ok(Place::AfterValue),
            (None, _) => self.escape = Some(Vec::new()),
            (Some(escape), _) => {
                escape.push(byte);
                if escape[0] != b'u' || escape.len() == 5 {
                    let character = unescape(escape).ok_or(BodyError::Base64(MEMBER))?;
                    self.escape = None;
                    self.text.push(&[character], content)?;
                }
            }
        }
        Ok(Place::InContent)
    }
}

/// The next place after a byte in a value that is passed over.
const fn in_other(byte: u8, depth: u32, in_string: bool, escaped: bool) -> Place {
    match byte {
        b'\\' if in_string && !escaped => Place::InOther { depth, in_string, escaped: true },
        b'"' if in_string && !escaped && depth == 0 => Place::AfterValue,
        b'"' if !escaped => Place::InOther { depth, in_string: !in_string, escaped: false },
        _ if in_string => Place::InOther { depth, in_string, escaped: false },
        b'{' | b'[' => Place::InOther { depth: depth.saturating_add(1), in_string, escaped: false },
        b'}' | b']' if depth == 1 => Place::AfterValue,
        b'}' | b']' if depth > 1 => Place::InOther { depth: depth - 1, in_string, escaped: false },
        b'}' if depth == 0 => Place::AfterObject,
        b',' if depth == 0 => Place::BeforeKey,
        b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => Place::AfterValue,
        _ => Place::InOther { depth, in_string, escaped: false },
    }
}

/// The character behind a `\`, if it is one that Base64 can have: PHP writes `\/`, others `\u002B` or line ends.
fn unescape(escape: &[u8]) -> Option<u8> {
    match escape {
        [b'/'] => Some(b'/'),
        [b'n' | b'r' | b't'] => Some(b' '),
        [b'u', hex @ ..] => u8::try_from(u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?).ok(),
        _ => None,
    }
}

/// Base64 (RFC 4648 section 4, padded) that comes in pieces; line ends and spaces are passed over.
#[derive(Default)]
struct Base64Text {
    /// Characters that do not make a whole group of four yet.
    rest: Vec<u8>,
    padded: bool,
}

impl Base64Text {
    fn push(&mut self, piece: &[u8], content: &mut Vec<u8>) -> Result<(), BodyError> {
        self.rest.extend(piece.iter().filter(|byte| !byte.is_ascii_whitespace()));
        let whole = self.rest.len() / 4 * 4;
        if whole == 0 {
            return Ok(());
        }
        // What is padded is the end.
        let decoded = if self.padded { None } else { STANDARD.decode_vec(&self.rest[..whole], content).ok() };
        decoded.ok_or(BodyError::Base64(MEMBER))?;
        self.padded = self.rest[whole - 1] == b'=';
        self.rest.drain(..whole);
        Ok(())
    }

    fn finish(self) -> Result<(), BodyError> {
        if self.rest.is_empty() { Ok(()) } else { Err(BodyError::Base64(MEMBER)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(body: &[u8], piece: usize) -> Result<Vec<u8>, BodyError> {
        let (mut json, mut content) = (Base64Json::default(), Vec::new());
        for piece in body.chunks(piece) {
            json.push(piece, &mut content)?;
        }
        json.finish().map(|()| content)
    }

    fn any_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(|b| json!(b)),
            any::<i64>().prop_map(|n| json!(n)),
            any::<String>().prop_map(|s| json!(s))
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| json!(items)),
                proptest::collection::btree_map(any::<String>(), inner, 0..4).prop_map(|members| json!(members)),
            ]
        })
    }

    proptest! {
        #[test]
        fn content_is_found_among_any_other_members_however_the_body_is_cut(
            content in proptest::collection::vec(any::<u8>(), 0..300),
            others in proptest::collection::btree_map("[^\"\\\\]{0,12}", any_value(), 0..4),
            piece in 1usize..40,
            pretty in any::<bool>(),
        ) {
            let mut members: serde_json::Map<_, _> = others.into_iter().collect();
            members.insert(MEMBER.to_owned(), json!(STANDARD.encode(&content)));
            let body = serde_json::Value::Object(members);
            let body = if pretty { serde_json::to_vec_pretty(&body) } else { serde_json::to_vec(&body) }.unwrap();
            prop_assert_eq!(read(&body, piece), Ok(content));
        }

        #[test]
        fn nothing_makes_the_scanner_panic(body in proptest::collection::vec(any::<u8>(), 0..200), piece in 1usize..9) {
            let _ = read(&body, piece);
            let _ = read(&[br#"{"base64Data":""#, &body[..]].concat(), piece);
        }
    }

    #[test]
    fn escapes_and_line_ends_are_taken() {
        for body in [r#"{"base64Data":"+\/8="}"#, r#"{"base64Data":"\u002B\u002f8\u003D"}"#, r#"{"base64Data":"+/\r\n8= "}"#] {
            assert_eq!(read(body.as_bytes(), 3), Ok(vec![0xfb, 0xff]), "{body}");
        }
        assert_eq!(read(br#"{"base64Data":""}"#, 1), Ok(vec![]));
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for bad in ["YQ=", "YQ", "YQ==YQ==", "Y Q==!", "Y-_=", "=", "\\u0410AAA", "AA\\bAA", "дані"] {
            let body = format!("{{\"base64Data\":\"{bad}\"}}");
            for piece in [1, 4, 100] {
                assert_eq!(read(body.as_bytes(), piece), Err(BodyError::Base64(MEMBER)), "{bad}");
            }
        }
    }

    #[test]
    fn what_is_not_such_an_object_is_refused() {
        for bad in [
            "",
            "{",
            "[]",
            "\"x\"",
            "{\"base64Data\"}",
            "{\"base64Data\":\"YQ==\"",
            "{\"base64Data\":\"YQ==\"} x",
            "{,}",
            "{\"base64Data\":\"YQ==\",}",
            "{\"base64Data\":\"YQ==\",\"base64Data\":\"YQ==\"}",
            "{\"a\":}",
        ] {
            assert_eq!(read(bad.as_bytes(), 2), Err(BodyError::NotJson), "{bad}");
        }
        for bad in
            ["{}", "{\"a\":1}", "{\"base64Data\":1}", "{\"base64Data\":null}", "{\"base64data\":\"YQ==\"}", "{\"base64DataX\":\"YQ==\"}"]
        {
            assert_eq!(read(bad.as_bytes(), 2), Err(BodyError::MissingMember(MEMBER)), "{bad}");
        }
    }
}
