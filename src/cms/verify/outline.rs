//! The frame of `ContentInfo { SignedData }` (RFC 5652 sections 3 and 5.1), walked over without its content.
//!
//! Streaming signers write the frame, and nothing inside it, in BER of indefinite length, with the content in pieces; both forms are walked
//! here. What stands in the frame (certificates, CRLs, signers) must be DER and comes out as the bytes that it is.
//! Invariants: the nesting that is followed is that of the standard, so there is no recursion; everything but the content is counted against
//! [`FRAME_MAX`]; the walk ends where the source ends.

use std::io::{BufReader, Read, Seek, SeekFrom};

use const_oid::{ObjectIdentifier, db::rfc5911};
use der::{Decode, Length};

use super::{EMBEDDED_MAX, FRAME_MAX, ReadError, SIGNERS_MAX};
use crate::cms::tlv::{OCTET_STRING, SEQUENCE, SET, context};

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// An OCTET STRING in pieces.
const OCTET_STRINGS: u8 = 0x24;
/// Two zero bytes end a value of indefinite length (X.690 section 8.1.5).
const END_OF_CONTENTS: u8 = 0x00;
const INDEFINITE: u8 = 0x80;

/// The most pieces that a content comes in: one of 4 GiB in the pieces of 4 KiB that streaming signers write.
const SEGMENTS_MAX: usize = 1 << 20;
/// The most digest algorithms that stand before the content. Nothing depends on them.
const DIGEST_ALGORITHMS_MAX: usize = 64;

/// A piece of the content: where it is in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) len: u64,
}

/// What stands in the frame.
#[derive(Debug)]
pub(super) struct Outline {
    /// With its header.
    pub(super) version: Vec<u8>,
    pub(super) digest_algorithms: Vec<Vec<u8>>,
    pub(super) content_type: ObjectIdentifier,
    pub(super) content: Option<Vec<Segment>>,
    pub(super) certificates: Vec<Vec<u8>>,
    /// What stands among the certificates and is none: attribute certificates and the like.
    pub(super) other_certificates: Vec<Vec<u8>>,
    pub(super) crls: Vec<Vec<u8>>,
    /// What stands among the CRLs and is none: OCSP answers and the like.
    pub(super) other_crls: Vec<Vec<u8>>,
    pub(super) signer_infos: Vec<Vec<u8>>,
}

impl Outline {
    /// Walks over the whole source.
    pub(super) fn read<R: Read + Seek>(source: &mut R) -> Result<Self, ReadError> {
        let len = source.seek(SeekFrom::End(0))?;
        source.seek(SeekFrom::Start(0))?;
        let mut walk = Walk { source: BufReader::new(source), at: 0, len, budget: FRAME_MAX, peeked: None };
        let content_info = walk.enter(SEQUENCE)?;
        if walk.take_oid()? != rfc5911::ID_SIGNED_DATA {
            return Err(malformed("it is CMS, but no SignedData"));
        }
        let explicit = walk.enter(context(0))?;
        let outline = walk.signed_data()?;
        walk.leave(explicit)?;
        walk.leave(content_info)?;
        if walk.at == walk.len { Ok(outline) } else { Err(ReadError::TrailingData) }
    }
}

/// Where a value ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// At this place.
    At(u64),
    /// Where it says so.
    Marked,
}

/// The beginning of a value.
#[derive(Debug, Clone)]
struct Header {
    tag: u8,
    /// The bytes of tag and length.
    bytes: Vec<u8>,
    /// Where the value's contents begin.
    start: u64,
    end: End,
}

struct Walk<R> {
    source: BufReader<R>,
    at: u64,
    len: u64,
    /// How many bytes of the frame may still be read.
    budget: usize,
    peeked: Option<Header>,
}

impl<R: Read + Seek> Walk<R> {
    fn signed_data(&mut self) -> Result<Outline, ReadError> {
        let signed_data = self.enter(SEQUENCE)?;
        let version = self.take(INTEGER)?;
        let digest_algorithms = self.take_all(SET, DIGEST_ALGORITHMS_MAX, "digest algorithms")?;
        let encapsulated = self.enter(SEQUENCE)?;
        let content_type = self.take_oid()?;
        let content = if self.is_next(context(0), encapsulated)? { Some(self.content()?) } else { None };
        self.leave(encapsulated)?;
        let mut embedded = |tag: u8, what| -> Result<Vec<Vec<u8>>, ReadError> {
            if self.is_next(tag, signed_data)? { self.take_all(tag, EMBEDDED_MAX, what) } else { Ok(Vec::new()) }
        };
        // Attribute certificates, OCSP answers and whatever else may stand there have tags of their own.
        let plain = |der: &Vec<u8>| der.first() == Some(&SEQUENCE);
        let (certificates, other_certificates) = embedded(context(0), "certificates")?.into_iter().partition(plain);
        let (crls, other_crls) = embedded(context(1), "CRLs")?.into_iter().partition(plain);
        let signer_infos = self.take_all(SET, SIGNERS_MAX, "signers")?;
        self.leave(signed_data)?;
        Ok(Outline { version, digest_algorithms, content_type, content, certificates, other_certificates, crls, other_crls, signer_infos })
    }

    /// `eContent [0] EXPLICIT OCTET STRING`, in one piece or in many.
    fn content(&mut self) -> Result<Vec<Segment>, ReadError> {
        let explicit = self.enter(context(0))?;
        let mut segments = Vec::new();
        if self.is_next(OCTET_STRINGS, explicit)? {
            let pieces = self.enter(OCTET_STRINGS)?;
            while !self.is_over(pieces)? {
                if segments.len() == SEGMENTS_MAX {
                    return Err(ReadError::TooMuch("pieces of content"));
                }
                segments.push(self.skip(OCTET_STRING)?);
            }
            self.leave(pieces)?;
        } else {
            segments.push(self.skip(OCTET_STRING)?);
        }
        self.leave(explicit)?;
        Ok(segments)
    }

    /// Reads the beginning of the next value.
    fn header(&mut self) -> Result<Header, ReadError> {
        if let Some(peeked) = self.peeked.take() {
            return Ok(peeked);
        }
        let [tag, first] = self.bytes::<2>()?;
        if tag & 0x1f == 0x1f {
            return Err(malformed("a tag has more than one byte"));
        }
        let mut bytes = vec![tag, first];
        if first == INDEFINITE {
            return Ok(Header { tag, bytes, start: self.at, end: End::Marked });
        }
        if first > INDEFINITE {
            for _ in 0..first - INDEFINITE {
                // Longer lengths than the library's are refused by it below.
                if bytes.len() > 8 {
                    return Err(malformed("a length has too many bytes"));
                }
                let [byte] = self.bytes::<1>()?;
                bytes.push(byte);
            }
        }
        let len = Length::from_der(&bytes[1..]).map_err(|_| malformed("a length is not in its shortest form, or too long"))?;
        let end = self.at + u64::from(u32::from(len));
        if end > self.len {
            return Err(malformed("it is cut off"));
        }
        Ok(Header { tag, bytes, start: self.at, end: End::At(end) })
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        if self.at + N as u64 > self.len {
            return Err(malformed("it is cut off"));
        }
        self.source.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn expect(&mut self, tag: u8) -> Result<Header, ReadError> {
        let header = self.header()?;
        if header.tag == tag { Ok(header) } else { Err(malformed("something else stands where SignedData has its members")) }
    }

    /// Goes into a constructed value.
    fn enter(&mut self, tag: u8) -> Result<End, ReadError> {
        Ok(self.expect(tag)?.end)
    }

    /// Whether nothing follows within the value that ends there.
    fn is_over(&mut self, end: End) -> Result<bool, ReadError> {
        match end {
            End::At(end) => Ok(self.position() >= end),
            End::Marked => Ok(self.peek()?.tag == END_OF_CONTENTS),
        }
    }

    /// Whether a value with this tag follows within the value that ends there.
    fn is_next(&mut self, tag: u8, within: End) -> Result<bool, ReadError> {
        Ok(!self.is_over(within)? && self.peek()?.tag == tag)
    }

    /// Goes out of a constructed value, which must be over.
    fn leave(&mut self, end: End) -> Result<(), ReadError> {
        match end {
            End::At(end) if self.position() == end => Ok(()),
            End::At(_) => Err(malformed("a value does not end where its length says")),
            End::Marked => match self.header()?.bytes.as_slice() {
                [END_OF_CONTENTS, 0] => Ok(()),
                _ => Err(malformed("a value does not end where it must")),
            },
        }
    }

    fn peek(&mut self) -> Result<Header, ReadError> {
        let header = self.header()?;
        self.peeked = Some(header.clone());
        Ok(header)
    }

    /// Where the next value begins.
    fn position(&self) -> u64 {
        self.peeked.as_ref().map_or(self.at, |peeked| peeked.start - peeked.bytes.len() as u64)
    }

    /// Passes over a primitive value and says where its contents are.
    fn skip(&mut self, tag: u8) -> Result<Segment, ReadError> {
        let header = self.expect(tag)?;
        let End::At(end) = header.end else { return Err(malformed("a primitive value has no length")) };
        let len = end - header.start;
        self.source.seek_relative(i64::try_from(len).map_err(|_| malformed("a value is too long"))?)?;
        self.at = end;
        Ok(Segment { start: header.start, len })
    }

    /// Reads a whole value of definite length, with its header.
    fn take(&mut self, tag: u8) -> Result<Vec<u8>, ReadError> {
        let header = self.expect(tag)?;
        self.take_rest(header)
    }

    fn take_rest(&mut self, header: Header) -> Result<Vec<u8>, ReadError> {
        let End::At(end) = header.end else { return Err(malformed("a certificate, CRL or signer is not DER")) };
        let len = usize::try_from(end - header.start).map_err(|_| ReadError::TooMuch("bytes"))?;
        self.budget = self.budget.checked_sub(len + header.bytes.len()).ok_or(ReadError::TooMuch("bytes"))?;
        let mut bytes = header.bytes;
        let head = bytes.len();
        bytes.resize(head + len, 0);
        self.source.read_exact(&mut bytes[head..])?;
        self.at = end;
        Ok(bytes)
    }

    /// Reads the elements of a set, each whole.
    fn take_all(&mut self, tag: u8, max: usize, what: &'static str) -> Result<Vec<Vec<u8>>, ReadError> {
        let end = self.enter(tag)?;
        let mut elements = Vec::new();
        while !self.is_over(end)? {
            if elements.len() == max {
                return Err(ReadError::TooMuch(what));
            }
            let header = self.header()?;
            elements.push(self.take_rest(header)?);
        }
        self.leave(end)?;
        Ok(elements)
    }

    fn take_oid(&mut self) -> Result<ObjectIdentifier, ReadError> {
        let der = self.take(OBJECT_IDENTIFIER)?;
        ObjectIdentifier::from_der(&der).map_err(|_| malformed("an object identifier is wrong"))
    }
}

fn malformed(what: &str) -> ReadError {
    ReadError::Malformed(what.to_owned())
}
