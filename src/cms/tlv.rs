//! DER values put together from bytes: tag, definite length, parts.
//!
//! The `der` crate writes values that it has parsed; here most parts are bytes that must stay as they are, and content may be streamed and
//! longer than that crate counts (4 GiB).

/// Tag of a `SEQUENCE`.
pub(super) const SEQUENCE: u8 = 0x30;
/// Tag of a `SET`.
pub(super) const SET: u8 = 0x31;
/// Tag of an `OCTET STRING`.
pub(super) const OCTET_STRING: u8 = 0x04;
/// A whole `NULL`.
pub(super) const NULL: &[u8] = &[0x05, 0x00];

/// The tag `[number]` of a constructed value; `number` is at most 30.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// The tag and the definite length (X.690 section 8.1.3, shortest form) of a value of `len` bytes.
pub(super) fn header(tag: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![tag];
    let all = len.to_be_bytes();
    match all.iter().position(|byte| *byte != 0).map(|first| &all[first..]) {
        None => bytes.push(0),
        Some([short]) if *short < 0x80 => bytes.push(*short),
        Some(long) => {
            // At most eight bytes, so the count fits the seven bits there are for it.
            bytes.push(0x80 | long.len() as u8);
            bytes.extend_from_slice(long);
        }
    }
    bytes
}

/// A whole value made of `parts`, one behind the other.
pub(super) fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = header(tag, len as u64);
    bytes.reserve_exact(len);
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// A `SET OF` in DER: elements in ascending order of their encodings (X.690 section 11.6), each once.
pub(super) fn set_of(tag: u8, mut elements: Vec<Vec<u8>>) -> Vec<u8> {
    elements.sort();
    elements.dedup();
    wrap(tag, &elements.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// A value with a hole: what stands before and behind content that is not in memory.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// What stands before the content.
    pub(super) head: Vec<u8>,
    /// How long the content is.
    pub(super) content_len: u64,
    /// What stands behind it.
    pub(super) tail: Vec<u8>,
}

impl Frame {
    /// A hole for content of `content_len` bytes, with nothing round it yet.
    pub(super) fn around(content_len: u64) -> Self {
        Self { content_len, ..Self::default() }
    }

    /// Puts `bytes` before everything.
    pub(super) fn before(mut self, bytes: &[u8]) -> Self {
        self.head.splice(0..0, bytes.iter().copied());
        self
    }

    /// Puts `bytes` behind everything.
    pub(super) fn after(mut self, bytes: &[u8]) -> Self {
        self.tail.extend_from_slice(bytes);
        self
    }

    /// Makes one value of everything.
    pub(super) fn wrap(self, tag: u8) -> Self {
        let header = header(tag, self.total_len());
        self.before(&header)
    }

    /// Length of head, content and tail together.
    pub(super) fn total_len(&self) -> u64 {
        self.head.len() as u64 + self.content_len + self.tail.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use der::{Decode, Tag, Tagged, asn1::AnyRef};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_wrapped_value_is_read_back(value in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            let wrapped = wrap(OCTET_STRING, &[&value[..value.len() / 2], &value[value.len() / 2..]]);
            let read = AnyRef::from_der(&wrapped).unwrap();
            prop_assert_eq!(read.tag(), Tag::OctetString);
            prop_assert_eq!(read.value(), &value[..]);
        }

        #[test]
        fn a_frame_and_its_content_are_the_value_in_one_piece(content in proptest::collection::vec(any::<u8>(), 0..1000)) {
            let frame = Frame::around(content.len() as u64).wrap(OCTET_STRING).before(b"before").after(b"after").wrap(SEQUENCE);
            let whole = wrap(SEQUENCE, &[b"before", &wrap(OCTET_STRING, &[&content]), b"after"]);
            prop_assert_eq!(frame.total_len(), whole.len() as u64);
            prop_assert_eq!([frame.head, content, frame.tail].concat(), whole);
        }
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        assert_eq!(header(SEQUENCE, 0), [0x30, 0]);
        assert_eq!(header(SEQUENCE, 0x7f), [0x30, 0x7f]);
        assert_eq!(header(SEQUENCE, 0x80), [0x30, 0x81, 0x80]);
        assert_eq!(header(SEQUENCE, 0x100), [0x30, 0x82, 1, 0]);
        assert_eq!(header(SEQUENCE, 0x1_0000_0000), [0x30, 0x85, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_set_is_sorted_and_names_each_element_once() {
        assert_eq!(set_of(SET, vec![vec![5, 0], vec![1, 1, 255], vec![5, 0]]), [0x31, 5, 1, 1, 255, 5, 0]);
    }
}
