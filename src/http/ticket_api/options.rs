//! The options of a ticket as this API writes them.

use std::fmt;

use serde_json::{Map, Value, json};

use super::error::OptionError;
use crate::domain::ticket::{AsicForm, CadesType, DataToSign, EmbedCertificate, SignatureOptions, SignatureType, TimeStampCheck};

/// The longest `caId`, in characters.
pub(super) const CA_ID_MAX: usize = 200;

/// A choice with a name for each of its values.
pub(super) trait WireEnum: Sized + Copy + PartialEq + fmt::Debug + 'static {
    const NAMES: &'static [(&'static str, Self)];

    /// The value's name on the wire.
    fn wire_name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }

    /// The value of this name; case and `_` do not count.
    fn of_wire_name(text: &str) -> Option<Self> {
        let plain = |text: &str| text.replace('_', "").to_ascii_lowercase();
        let text = plain(text);
        Self::NAMES.iter().find(|(name, _)| plain(name) == text).map(|(_, value)| *value)
    }
}

impl WireEnum for SignatureType {
    const NAMES: &'static [(&'static str, Self)] = &[("attached", Self::Attached), ("detached", Self::Detached)];
}

impl WireEnum for CadesType {
    const NAMES: &'static [(&'static str, Self)] =
        &[("undefined", Self::Undefined), ("CAdESBES", Self::Bes), ("CAdEST", Self::T), ("CAdESC", Self::C), ("CAdESXLong", Self::XLong)];
}

impl WireEnum for EmbedCertificate {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("nothing", Self::Nothing),
        ("signerCert", Self::SignerCert),
        ("signerAndCaCert", Self::SignerAndCaCert),
        ("signerCertAndCaInfo", Self::SignerCertAndCaInfo),
    ];
}

impl WireEnum for TimeStampCheck {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("ignore", Self::Ignore),
        ("verifyIfPresent", Self::VerifyIfPresent),
        ("verifyOrFailIfNotPresent", Self::VerifyOrFailIfNotPresent),
    ];
}

impl WireEnum for DataToSign {
    const NAMES: &'static [(&'static str, Self)] = &[("notSignedBefore", Self::NotSignedBefore), ("alreadySigned", Self::AlreadySigned)];
}

impl WireEnum for AsicForm {
    const NAMES: &'static [(&'static str, Self)] = &[("NONE", Self::None), ("ASIC_S", Self::S), ("ASIC_E", Self::E)];
}

impl WireEnum for bool {
    const NAMES: &'static [(&'static str, Self)] = &[("false", false), ("true", true)];
}

/// The options that a request sets; what it does not name stays as it is.
#[derive(Debug, Default, PartialEq)]
pub(super) struct OptionChanges {
    signature_type: Option<SignatureType>,
    cades_type: Option<CadesType>,
    embed_certificate: Option<EmbedCertificate>,
    embed_signature_ts: Option<bool>,
    embed_data_ts: Option<bool>,
    signature_ts_check: Option<TimeStampCheck>,
    data_ts_check: Option<TimeStampCheck>,
    ts_additional_verifying: Option<bool>,
    duplicate_sign: Option<bool>,
    data_to_sign: Option<DataToSign>,
    ca_id: Option<String>,
    asic_form: Option<AsicForm>,
}

impl OptionChanges {
    /// Reads the known options out of a flat object; unknown members and `null` are passed over.
    pub(super) fn parse(object: &Map<String, Value>) -> Result<Self, OptionError> {
        Ok(Self {
            signature_type: choice(object, "signatureType")?,
            cades_type: choice(object, "cadesType")?,
            embed_certificate: choice(object, "embedCertificateType")?,
            embed_signature_ts: choice(object, "embedSignatureTs")?,
            embed_data_ts: choice(object, "embedDataTs")?,
            signature_ts_check: choice(object, "signatureTsVerifyOption")?,
            data_ts_check: choice(object, "dataTsVerifyOption")?,
            ts_additional_verifying: choice(object, "tsAdditionalVerifying")?,
            duplicate_sign: choice(object, "duplicateSign")?,
            data_to_sign: choice(object, "dataToSignQualifier")?,
            ca_id: text(object, "caId", CA_ID_MAX)?,
            asic_form: choice(object, "asicForm")?,
        })
    }

    pub(super) fn apply(&self, options: &mut SignatureOptions) {
        set(&mut options.signature_type, self.signature_type);
        options.signature_type_set |= self.signature_type.is_some();
        set(&mut options.cades_type, self.cades_type);
        set(&mut options.embed_certificate, self.embed_certificate);
        set(&mut options.embed_signature_ts, self.embed_signature_ts);
        set(&mut options.embed_data_ts, self.embed_data_ts);
        set(&mut options.signature_ts_check, self.signature_ts_check);
        set(&mut options.data_ts_check, self.data_ts_check);
        set(&mut options.ts_additional_verifying, self.ts_additional_verifying);
        set(&mut options.duplicate_sign, self.duplicate_sign);
        set(&mut options.data_to_sign, self.data_to_sign);
        // An empty one names none.
        set(&mut options.ca_id, self.ca_id.clone().map(|id| Some(id).filter(|id| !id.is_empty())));
        set(&mut options.asic_form, self.asic_form);
    }
}

/// All options in force, as `settedOptions` shows them.
pub(super) fn to_wire(options: &SignatureOptions) -> Map<String, Value> {
    let members = [
        ("signatureType", json!(options.signature_type.wire_name())),
        ("cadesType", json!(options.cades_type.wire_name())),
        ("embedCertificateType", json!(options.embed_certificate.wire_name())),
        ("embedSignatureTs", json!(options.embed_signature_ts)),
        ("embedDataTs", json!(options.embed_data_ts)),
        ("signatureTsVerifyOption", json!(options.signature_ts_check.wire_name())),
        ("dataTsVerifyOption", json!(options.data_ts_check.wire_name())),
        ("tsAdditionalVerifying", json!(options.ts_additional_verifying)),
        ("duplicateSign", json!(options.duplicate_sign)),
        ("dataToSignQualifier", json!(options.data_to_sign.wire_name())),
        ("asicForm", json!(options.asic_form.wire_name())),
    ];
    let ca_id = options.ca_id.iter().map(|id| ("caId", json!(id)));
    members.into_iter().chain(ca_id).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn set<T>(option: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *option = value;
    }
}

fn choice<T: WireEnum>(object: &Map<String, Value>, option: &'static str) -> Result<Option<T>, OptionError> {
    let value = match object.get(option) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => T::of_wire_name(text),
        Some(Value::Bool(value)) => T::of_wire_name(bool::wire_name(*value)),
        Some(_) => None,
    };
    let bad = || OptionError::BadValue { option, allowed: T::NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ") };
    value.map(Some).ok_or_else(bad)
}

fn text(object: &Map<String, Value>, option: &'static str, max: usize) -> Result<Option<String>, OptionError> {
    match object.get(option) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= max => Ok(Some(text.clone())),
        Some(_) => Err(OptionError::BadText { option, max }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: Value) -> Result<OptionChanges, OptionError> {
        OptionChanges::parse(value.as_object().unwrap())
    }

    fn after(value: Value) -> Map<String, Value> {
        let mut options = SignatureOptions::default();
        parse(value).unwrap().apply(&mut options);
        to_wire(&options)
    }

    #[test]
    fn the_defaults_are_those_of_the_api() {
        let expected = json!({
            "signatureType": "detached", "cadesType": "undefined", "embedCertificateType": "signerCert", "embedSignatureTs": false,
            "embedDataTs": false, "signatureTsVerifyOption": "ignore", "dataTsVerifyOption": "ignore", "tsAdditionalVerifying": false,
            "duplicateSign": false, "dataToSignQualifier": "notSignedBefore", "asicForm": "NONE"
        });
        assert_eq!(Value::Object(after(json!({}))), expected);
        assert_eq!(Value::Object(after(json!({"unknown": {"a": 1}, "cadesType": null}))), expected);
    }

    #[test]
    fn every_value_of_every_option_is_read_as_it_is_shown() {
        fn check<T: WireEnum>(option: &'static str) {
            for (name, _) in T::NAMES {
                let shown = after(json!({ option: name })).remove(option).unwrap();
                let as_shown = shown.as_str().map_or_else(|| shown.to_string(), str::to_owned);
                assert_eq!(as_shown, *name, "{option}");
            }
        }
        check::<SignatureType>("signatureType");
        check::<CadesType>("cadesType");
        check::<EmbedCertificate>("embedCertificateType");
        check::<bool>("embedSignatureTs");
        check::<bool>("embedDataTs");
        check::<TimeStampCheck>("signatureTsVerifyOption");
        check::<TimeStampCheck>("dataTsVerifyOption");
        check::<bool>("tsAdditionalVerifying");
        check::<bool>("duplicateSign");
        check::<DataToSign>("dataToSignQualifier");
        check::<AsicForm>("asicForm");
        assert_eq!(after(json!({"caId": "ca-1"}))["caId"], "ca-1");
    }

    #[test]
    fn case_and_underscores_do_not_count_and_booleans_may_be_strings() {
        let shown = after(json!({"cadesType": "CADES_X_LONG", "asicForm": "asics", "embedDataTs": "TRUE", "duplicateSign": true}));
        assert_eq!(shown["cadesType"], "CAdESXLong");
        assert_eq!(shown["asicForm"], "ASIC_S");
        assert_eq!((&shown["embedDataTs"], &shown["duplicateSign"]), (&json!(true), &json!(true)));
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_allowed() {
        let allowed = "undefined, CAdESBES, CAdEST, CAdESC, CAdESXLong".to_owned();
        for bad in [json!("CAdES"), json!(""), json!(1), json!(true), json!([]), json!({})] {
            assert_eq!(parse(json!({ "cadesType": bad })), Err(OptionError::BadValue { option: "cadesType", allowed: allowed.clone() }));
        }
        assert!(parse(json!({"embedDataTs": "yes"})).is_err());
        for bad in [json!(1), json!("x".repeat(CA_ID_MAX + 1))] {
            assert_eq!(parse(json!({ "caId": bad })), Err(OptionError::BadText { option: "caId", max: CA_ID_MAX }));
        }
    }
}
