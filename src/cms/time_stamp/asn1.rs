//! The structures of RFC 3161 and of ESS (RFC 2634, RFC 5035), as the `der` crate reads and writes them.

use const_oid::ObjectIdentifier;
use der::{
    Any, DateTime, Decode, Encode, EncodeValue, FixedTag, Header, Length, Reader, Sequence, Tag, Writer,
    asn1::{BitString, Int, OctetString, Utf8StringRef},
};
use spki::AlgorithmIdentifierOwned;
use x509_cert::ext::Extensions;

use crate::domain::timestamp::Timestamp;

/// `id-ct-TSTInfo`.
pub(crate) const ID_CT_TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");

/// `MessageImprint`.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct MessageImprint {
    pub(super) hash_algorithm: AlgorithmIdentifierOwned,
    pub(super) hashed_message: OctetString,
}

/// `TimeStampReq` (RFC 3161 section 2.4.1).
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct TimeStampReq {
    pub(super) version: u8,
    pub(super) message_imprint: MessageImprint,
    #[asn1(optional = "true")]
    pub(super) req_policy: Option<ObjectIdentifier>,
    #[asn1(optional = "true")]
    pub(super) nonce: Option<Int>,
    #[asn1(default = "no")]
    pub(super) cert_req: bool,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) extensions: Option<Extensions>,
}

/// `TimeStampResp` (RFC 3161 section 2.4.2).
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct TimeStampResp {
    pub(super) status: PkiStatusInfo,
    #[asn1(optional = "true")]
    pub(super) time_stamp_token: Option<Any>,
}

/// `PKIStatusInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct PkiStatusInfo {
    pub(super) status: u8,
    #[asn1(optional = "true")]
    pub(super) status_string: Option<Vec<Any>>,
    #[asn1(optional = "true")]
    pub(super) fail_info: Option<BitString>,
}

impl PkiStatusInfo {
    /// The free text, cleaned of control characters; at most 200 characters.
    pub(super) fn text(&self) -> String {
        let lines = self.status_string.iter().flatten();
        let texts = lines.filter_map(|line| line.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.as_str().to_owned()));
        texts.collect::<Vec<_>>().join("; ").chars().filter(|c| !c.is_control()).take(200).collect()
    }
}

/// `TSTInfo` (RFC 3161 section 2.4.2).
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct TstInfo {
    pub(super) version: u8,
    pub(super) policy: ObjectIdentifier,
    pub(super) message_imprint: MessageImprint,
    pub(super) serial_number: Int,
    pub(super) gen_time: GenTime,
    #[asn1(optional = "true")]
    pub(super) accuracy: Option<Accuracy>,
    #[asn1(default = "no")]
    pub(super) ordering: bool,
    #[asn1(optional = "true")]
    pub(super) nonce: Option<Int>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) tsa: Option<Any>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) extensions: Option<Extensions>,
}

/// `Accuracy`.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct Accuracy {
    #[asn1(optional = "true")]
    pub(super) seconds: Option<u64>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) millis: Option<u16>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) micros: Option<u16>,
}

/// `genTime`: a `GeneralizedTime` that may have fractions of a second, which RFC 5280 forbids and RFC 3161 allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GenTime {
    text: Vec<u8>,
    time: Timestamp,
}

impl GenTime {
    /// The time to the millisecond; what is finer is cut off.
    pub(super) const fn time(&self) -> Timestamp {
        self.time
    }

    /// Whole seconds, as DER writes them.
    pub(super) fn at(time: Timestamp) -> der::Result<Self> {
        let whole = Timestamp::from_millis(time.as_millis() / 1000 * 1000);
        let date = DateTime::from_system_time(whole.to_system_time())?;
        let text = date.to_string().chars().filter(|c| c.is_ascii_digit() || *c == 'Z').collect::<String>().into_bytes();
        Ok(Self { text, time: whole })
    }

    fn parse(text: &[u8]) -> Option<Timestamp> {
        let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
        let (seconds, fraction) = text.split_once('.').map_or((text, None), |(seconds, fraction)| (seconds, Some(fraction)));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if seconds.len() != 14 || !digits(seconds) || fraction.is_some_and(|text| text.is_empty() || text.ends_with('0') || !digits(text)) {
            return None;
        }
        let field = |from: usize, to: usize| seconds.get(from..to)?.parse::<u8>().ok();
        let date =
            DateTime::new(seconds.get(..4)?.parse().ok()?, field(4, 6)?, field(6, 8)?, field(8, 10)?, field(10, 12)?, field(12, 14)?)
                .ok()?;
        let millis = fraction.map_or(Some(0), |text| format!("{text:0<3}").get(..3)?.parse::<u64>().ok())?;
        Some(Timestamp::from_millis(u64::try_from(date.unix_duration().as_millis()).ok()?.checked_add(millis)?))
    }
}

impl FixedTag for GenTime {
    const TAG: Tag = Tag::GeneralizedTime;
}

impl<'a> der::DecodeValue<'a> for GenTime {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        let text = reader.read_vec(header.length())?;
        let time = Self::parse(&text).ok_or_else(|| reader.error(Tag::GeneralizedTime.value_error()))?;
        Ok(Self { text, time })
    }
}

impl EncodeValue for GenTime {
    fn value_len(&self) -> der::Result<Length> {
        Length::try_from(self.text.len())
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        writer.write(&self.text)
    }
}

fn no() -> bool {
    false
}

/// The nonnegative number in an INTEGER, in lower-case hexadecimal digits, two a byte.
pub(super) fn hex_of(number: &Int) -> String {
    let bytes = number.as_bytes();
    let shown = bytes.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(bytes);
    hex::encode(shown)
}

/// A nonnegative INTEGER of these big-endian bytes.
pub(super) fn positive(bytes: &[u8]) -> der::Result<Int> {
    let der = der::asn1::UintRef::new(bytes)?.to_der()?;
    Int::from_der(&der)
}
