//! What stands in bodies, and the bank's words for our states.

use serde_json::{Map, Value, json};

use super::error::{Check, Notice};
use crate::{
    domain::{
        audit::Sha256,
        enrolment::{Application, Enrolment, EnrolmentState, ExternalId, Refusal, profile::key_kind},
        key_uri::Pkcs11Uri,
    },
    enrolment::{KeyWish, NewRequest, RequestFault, read_request, request_in_pem},
};

/// The longest text of a member, in characters.
const TEXT_MAX: usize = 200;
/// The longest PEM that is looked at, in bytes.
const PEM_MAX: usize = 512 * 1024;

/// A state in the bank's words.
pub(super) const fn status_of(state: EnrolmentState) -> &'static str {
    match state {
        EnrolmentState::Accepted => "ACCEPTED",
        EnrolmentState::AwaitingIssue => "ACCEPTED_BY_ABS",
        EnrolmentState::AwaitingConfirmation => "AWAITING_CONFIRMATION",
        EnrolmentState::Issued => "PUBLISHED_BY_BANK",
        EnrolmentState::Activated => "IMPLEMENTED",
        EnrolmentState::Refused(Refusal::ByOperator) => "REFUSEDBYBANK",
        EnrolmentState::Refused(Refusal::ByCa) => "DECLINED_BY_ABS",
        EnrolmentState::Refused(Refusal::Particulars) => "REQUISITEERROR",
        EnrolmentState::Refused(Refusal::Signature) => "INVALIDEDS",
    }
}

/// The answer to a created request: its body, and what became of it.
pub(super) fn created(enrolment: &Enrolment) -> Value {
    let mut body: Map<String, Value> = serde_json::from_str(&enrolment.body).unwrap_or_default();
    // A request that was made here goes to whoever asked for it.
    if let Some(request) = &enrolment.request {
        let pkcs10 = body.entry("pkcs10").or_insert_with(|| json!({}));
        if let Value::Object(pkcs10) = pkcs10 {
            pkcs10.entry("cms").or_insert_with(|| request_in_pem(&request.0).into());
        }
    }
    body.insert("bankStatus".to_owned(), status_of(enrolment.state).into());
    body.insert("bankComment".to_owned(), enrolment.comment.clone().into());
    Value::Object(body)
}

/// Where a request stands.
pub(super) fn state(enrolment: &Enrolment) -> Value {
    json!({ "bankStatus": status_of(enrolment.state), "bankComment": enrolment.comment, "channelInfo": null })
}

/// The members of a body, and what is wrong with them.
struct Members<'a> {
    object: &'a Map<String, Value>,
    malformed: Vec<Check>,
    invalid: Vec<Check>,
}

impl<'a> Members<'a> {
    fn malformed(&mut self, field: &'static str, message: &str) {
        self.malformed.push(Check { field, message: message.to_owned() });
    }

    fn invalid(&mut self, field: &'static str, message: &str) {
        self.invalid.push(Check { field, message: message.to_owned() });
    }

    /// A text; `None` if it is absent, `null`, or noted as wrong.
    fn text(&mut self, object: &'a Map<String, Value>, name: &str, field: &'static str) -> Option<&'a str> {
        match object.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => {
                self.malformed(field, "Значение должно быть строкой");
                None
            }
        }
    }

    fn required(&mut self, field: &'static str) -> String {
        let noted = self.malformed.len();
        let text = self.text(self.object, field, field);
        if text.is_none() && self.malformed.len() == noted {
            self.malformed(field, "Обязательное поле не заполнено");
        }
        let text = text.unwrap_or_default();
        self.check_words(text, field);
        text.to_owned()
    }

    fn optional(&mut self, field: &'static str) -> Option<String> {
        let text = self.text(self.object, field, field)?;
        self.check_words(text, field);
        Some(text.to_owned())
    }

    /// Words joined by single spaces.
    fn check_words(&mut self, text: &str, field: &'static str) {
        if self.malformed.iter().any(|check| check.field == field) {
            return;
        }
        let in_words = text.split(' ').all(|word| !word.is_empty() && !word.contains(|c: char| c.is_control() || c.is_whitespace()));
        if !in_words || text.chars().count() > TEXT_MAX {
            self.invalid(field, "Значение должно состоять из слов, разделенных одним пробелом, не длиннее 200 символов");
        }
    }
}

/// Reads the body of a new request.
pub(super) fn new_request(bytes: &[u8], for_all: bool) -> Result<NewRequest, Notice> {
    let Ok(Value::Object(object)) = serde_json::from_slice::<Value>(bytes) else { return Err(Notice::malformed(Vec::new())) };
    let mut members = Members { object: &object, malformed: Vec::new(), invalid: Vec::new() };
    let external_id = members.text(&object, "externalId", "externalId").unwrap_or_default();
    if external_id.is_empty() && members.malformed.is_empty() {
        members.malformed("externalId", "Обязательное поле не заполнено");
    }
    let email = members.required("email");
    if members.malformed.is_empty() && !is_email(&email) {
        members.invalid("email", "Значение не является адресом электронной почты");
    }
    let login = if for_all { Some(members.required("login")) } else { None };
    let application = Application {
        number: members.required("number"),
        email,
        organisation: members.optional("orgName"),
        full_name: members.required("userName"),
        position: members.required("userPosition"),
        key_identifier: None,
    };
    let pkcs10 = Pkcs10::read(&mut members);
    if !members.malformed.is_empty() {
        return Err(Notice::malformed(members.malformed));
    }
    let external_id: ExternalId = external_id.parse().map_err(|_| Notice::bad_external_id())?;
    if !members.invalid.is_empty() {
        return Err(Notice::invalid(members.invalid));
    }
    let body = Value::Object(object.clone()).to_string();
    Ok(NewRequest {
        external_id,
        login,
        application: Application { key_identifier: pkcs10.identifier, ..application },
        key: pkcs10.wish.map_or(Ok(KeyWish::Make(None)), Wish::read)?,
        profile: pkcs10.profile.map(|name| name.parse()).transpose().map_err(|_| {
            Notice::invalid(vec![Check { field: "pkcs10.profile", message: "Имя профиля недопустимо".to_owned() }])
        })?,
        // The members of an object are kept in the order of their names, so the same request is the same however it was written.
        fingerprint: Sha256::of(format!("{for_all}\n{body}").as_bytes()),
        body,
    })
}

/// The member `pkcs10`.
#[derive(Default)]
struct Pkcs10 {
    wish: Option<Wish>,
    identifier: Option<String>,
    profile: Option<String>,
}

/// How the key is chosen, as it was written.
enum Wish {
    Request(String),
    Key(String),
    Type(String),
}

impl Pkcs10 {
    fn read(members: &mut Members<'_>) -> Self {
        let object = match members.object.get("pkcs10") {
            None | Some(Value::Null) => return Self::default(),
            Some(Value::Object(object)) => object,
            Some(_) => {
                members.malformed("pkcs10", "Значение должно быть объектом");
                return Self::default();
            }
        };
        let cms = members.text(object, "cms", "pkcs10.cms").map(str::to_owned);
        let key = members.text(object, "key", "pkcs10.key").map(str::to_owned);
        let key_type = members.text(object, "keyType", "pkcs10.keyType").map(str::to_owned);
        let identifier = members.text(object, "bicryptId", "pkcs10.bicryptId").map(str::to_owned);
        let profile = members.text(object, "profile", "pkcs10.profile").map(str::to_owned);
        if identifier.as_deref().is_some_and(|identifier| !is_key_identifier(identifier)) {
            members.invalid("pkcs10.bicryptId", "Идентификатор ключа: код УЦ и номер (8 знаков), s или t, имя владельца");
        }
        if cms.as_ref().is_some_and(|pem| pem.len() > PEM_MAX) {
            members.invalid("pkcs10.cms", "Запрос на сертификат слишком длинный");
        }
        if [cms.is_some(), key.is_some(), key_type.is_some()].into_iter().filter(|given| *given).count() > 1 {
            members.invalid("pkcs10", "Укажите только одно из полей cms, key, keyType");
        }
        let wish = cms.map(Wish::Request).or(key.map(Wish::Key)).or(key_type.map(Wish::Type));
        Self { wish, identifier, profile }
    }
}

impl Wish {
    fn read(self) -> Result<KeyWish, Notice> {
        match self {
            Self::Request(pem) => Ok(KeyWish::Requested(read_request(&pem)?)),
            Self::Key(text) => match text.parse::<Pkcs11Uri>() {
                Ok(uri) if uri.names_an_object() => Ok(KeyWish::Named(uri)),
                Ok(_) => Err(Notice::invalid(vec![Check {
                    field: "pkcs10.key",
                    message: "URI должен называть ключ: id= или object=".to_owned(),
                }])),
                Err(error) => Err(Notice::invalid(vec![Check { field: "pkcs10.key", message: error.to_string() }])),
            },
            Self::Type(text) => {
                let known =
                    key_kind(&text).map_err(|_| RequestFault::KeyType(text.chars().filter(|c| !c.is_control()).take(40).collect()))?;
                Ok(KeyWish::Make(Some(known)))
            }
        }
    }
}

/// `^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$`.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let Some((host, top)) = domain.rsplit_once('.') else { return false };
    let all = |text: &str, lawful: fn(u8) -> bool| !text.is_empty() && text.bytes().all(lawful);
    all(local, |byte| byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte))
        && all(host, |byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
        && top.len() >= 2
        && all(top, |byte| byte.is_ascii_alphabetic())
}

/// The CA's code (4 or 6 of `[0-9A-Z]`) and a number that together have 8 characters, `s` or `t`, and a name.
fn is_key_identifier(text: &str) -> bool {
    let Some((head, rest)) = text.split_at_checked(8) else { return false };
    let lawful =
        head.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()) && head[6..].bytes().all(|byte| byte.is_ascii_digit());
    let name = rest.strip_prefix(['s', 't']).unwrap_or_default();
    lawful && !name.is_empty() && name.chars().count() <= TEXT_MAX && !name.contains(char::is_control)
}

/// One signature over the application.
pub(super) struct Confirmed {
    pub(super) base64: String,
    pub(super) certificate: Option<String>,
}

/// Reads the body of a confirmation.
pub(super) fn confirmation(bytes: &[u8]) -> Result<Vec<Confirmed>, Notice> {
    let wrong = |field, message: &str| Notice::malformed(vec![Check { field, message: message.to_owned() }]);
    let Ok(Value::Object(object)) = serde_json::from_slice::<Value>(bytes) else { return Err(Notice::malformed(Vec::new())) };
    let Some(Value::Array(signatures)) = object.get("digestSignatures") else {
        return Err(wrong("digestSignatures", "Обязательное поле не заполнено"));
    };
    if signatures.is_empty() || signatures.len() > crate::enrolment::SIGNATURES_MAX {
        return Err(wrong("digestSignatures", "Недопустимое число подписей"));
    }
    let one = |value: &Value| {
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let base64 = text("base64Encoded").ok_or_else(|| wrong("digestSignatures.base64Encoded", "Обязательное поле не заполнено"))?;
        Ok(Confirmed { base64, certificate: text("certificateUuid") })
    };
    signatures.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_expression() {
        for good in ["a@b.ru", "first.last+tag%x@sub.example-1.com"] {
            assert!(is_email(good), "{good}");
        }
        for bad in ["", "a", "@b.ru", "a@b", "a@.ru", "a@b.r", "a@b.r1", "а@b.ru", "a@b@c.ru", "a b@c.ru"] {
            assert!(!is_email(bad), "{bad}");
        }
    }

    #[test]
    fn a_key_identifier_has_a_code_a_number_a_mark_and_a_name() {
        for good in ["A00B0001sИванов И.И.", "A00B0C01tIvanov"] {
            assert!(is_key_identifier(good), "{good}");
        }
        for bad in ["", "A00B0001", "A00B0001s", "A00B0001xIvanov", "a00b0001sIvanov", "A00B000sIvanov", "ЯЯЯЯsIvanov"] {
            assert!(!is_key_identifier(bad), "{bad}");
        }
    }
}
