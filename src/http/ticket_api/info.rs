//! Calls about the service itself: whether it works, what it can do, which tokens and certificates it has.

use actix_web::{HttpRequest, HttpResponse, web::Path};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    State,
    certificate_info::{KeyType, describe},
    error::{ApiError, Operation, RouteError},
    messages::Language,
    reply::{JSON, Reply},
    request::Asking,
};
use crate::{
    domain::token::{SlotReport, SlotState},
    ticket::Certificate,
};

/// What this build can do, in words that clients may look for.
const FEATURES: [&str; 20] = [
    "signatureType.detached",
    "signatureType.attached",
    "cadesType.undefined",
    "cadesType.CAdESBES",
    "cadesType.CAdEST",
    "cadesType.CAdESC",
    "cadesType.CAdESXLong",
    "embedCertificateType.nothing",
    "embedCertificateType.signerCert",
    "embedCertificateType.signerAndCaCert",
    "embedCertificateType.signerCertAndCaInfo",
    "asicForm.ASIC_S",
    "asicForm.ASIC_E",
    "ts.creator",
    "ts.verifier",
    "ds.creator.data.bulk",
    "ds.verifier",
    "ds.modifier",
    "dataToSignQualifier.alreadySigned",
    "keyStore.pkcs11",
];

pub(super) async fn status(state: State) -> Result<Reply, ApiError> {
    if state.services.desk.any_can_sign() { Ok(Reply::ok("services-ready")) } else { Err(Operation::Other.error(RouteError::NoKeyReady)) }
}

pub(super) async fn features() -> Reply {
    Reply::ok("features-listed").with("features", FEATURES)
}

/// The CAs that the configuration trusts or knows.
pub(super) async fn authorities(state: State) -> Reply {
    let authorities = state.services.tickets.authorities().into_iter();
    let listed: Vec<_> = authorities.map(|authority| json!({ "id": authority.id, "name": authority.name })).collect();
    Reply::ok("authorities-listed").with("ca", listed)
}

/// A token of ours does the cryptography itself, so its path is an active one.
pub(super) async fn tokens(state: State) -> Reply {
    let slots = state.services.desk.slots();
    let connected: Vec<_> = slots.iter().filter(|slot| slot.status.state != SlotState::Absent).collect();
    let paths: Vec<_> = connected.iter().map(|slot| slot.token.uri().to_string()).collect();
    Reply::ok("tokens-listed")
        .with("passiveTokenPath", Vec::<Value>::new())
        .with("activeTokenPath", paths)
        .with("tokenInfo", connected.into_iter().map(token_info).collect::<Vec<_>>())
}

fn token_info(slot: &SlotReport) -> Value {
    let token = &slot.token;
    json!({
        "name": token.label,
        "model": token.model,
        "serial": token.serial,
        "activeModePath": token.uri().to_string(),
        "passiveModePath": null,
    })
}

pub(super) async fn choose_language(state: State, asking: Asking, code: Path<String>) -> Result<Reply, ApiError> {
    let language = Language::of_tag(&code).ok_or_else(|| Operation::Other.error(RouteError::Language))?;
    state.languages.choose(&asking.caller.id, language);
    Ok(Reply::ok("language-changed"))
}

pub(super) async fn certificate_info(
    state: State,
    asking: Asking,
    key_type: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let certificate = default_certificate(&state, &asking, &key_type).await?;
    Ok(info_answer(&request, certificate.as_ref()))
}

pub(super) async fn certificate_base64(
    state: State,
    asking: Asking,
    key_type: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let certificate = default_certificate(&state, &asking, &key_type).await?;
    Ok(base64_answer(&request, certificate.as_ref()))
}

async fn default_certificate(state: &State, asking: &Asking, key_type: &str) -> Result<Option<Certificate>, ApiError> {
    match KeyType::parse(key_type)? {
        KeyType::KeyAgreement => Ok(None),
        KeyType::Signature => {
            let found = state.services.tickets.default_certificate(&asking.caller).await;
            found.map_err(|error| Operation::ReadCertificate.error(error))
        }
    }
}

/// A certificate's description; `{}` where there is none.
pub(super) fn info_answer(request: &HttpRequest, certificate: Option<&Certificate>) -> HttpResponse {
    answer(request, certificate.map(|certificate| Reply::ok("certificate-found").with_all(describe(request, certificate))))
}

/// A certificate in Base64; `{}` where there is none.
pub(super) fn base64_answer(request: &HttpRequest, certificate: Option<&Certificate>) -> HttpResponse {
    let encoded = certificate.map(|certificate| STANDARD.encode(certificate.as_der()));
    answer(request, encoded.map(|encoded| Reply::ok("certificate-found").with("base64Data", encoded)))
}

fn answer(request: &HttpRequest, reply: Option<Reply>) -> HttpResponse {
    use actix_web::Responder;
    reply.map_or_else(|| HttpResponse::Ok().content_type(JSON).body("{}"), |reply| reply.respond_to(request))
}
