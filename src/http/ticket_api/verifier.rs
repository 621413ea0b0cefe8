//! Verification of uploaded signatures, and the content of attached ones.

use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value, json};

use super::{
    State,
    certificate_info::describe,
    error::{ApiError, Operation},
    messages::Text,
    reply::Reply,
    request::{Asking, TicketPath},
    signature::{in_base64, in_bytes, too_many_waiting},
};
use crate::ticket::{SignatureDocument, SignerVerdict, Verification};

pub(super) async fn start(state: State, asking: Asking, ticket: TicketPath) -> Result<Reply, ApiError> {
    let started = state.services.tickets.start_verification(&asking.caller, ticket.0).await;
    started.map_err(|error| Operation::StartVerification.error(error))?;
    Ok(Reply::ok("verification-started"))
}

pub(super) async fn result(state: State, asking: Asking, ticket: TicketPath, request: HttpRequest) -> Result<Reply, ApiError> {
    const OPERATION: Operation = Operation::FetchVerification;
    let _held = state.limits.hold_open(&asking.caller.id).map_err(|error| OPERATION.error(too_many_waiting(error)))?;
    let ended = state.unless_closing(state.services.tickets.verification(&asking.caller, ticket.0)).await;
    let verification = ended.transpose().map(Option::flatten).map_err(|error| OPERATION.error(error))?;
    Ok(verification.map_or_else(|| Reply::in_progress("verification-pending"), |verification| answer(&request, &verification)))
}

pub(super) async fn signed_data(state: State, asking: Asking, ticket: TicketPath) -> Result<HttpResponse, ApiError> {
    Ok(in_bytes(content(&state, &asking, ticket).await?))
}

pub(super) async fn base64_signed_data(
    state: State,
    asking: Asking,
    ticket: TicketPath,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    Ok(in_base64(&request, "signed-data-found", content(&state, &asking, ticket).await?))
}

async fn content(state: &State, asking: &Asking, ticket: TicketPath) -> Result<SignatureDocument, ApiError> {
    let found = state.services.tickets.signed_content(&asking.caller, ticket.0).await;
    found.map_err(|error| Operation::FetchSignedData.error(error))
}

fn answer(request: &HttpRequest, verification: &Verification) -> Reply {
    let results: Vec<_> = match verification {
        Verification::Judged(verdict) => verdict.signers.iter().map(|signer| of_signer(request, signer)).collect(),
        Verification::NotASignature(reason) => vec![item(Some(reason.clone()), Map::new())],
    };
    let reply = if verification.is_good() { Reply::ok("signature-valid") } else { Reply::not_valid(Text::new("signature-not-valid")) };
    reply.with("verifyResults", results)
}

fn of_signer(request: &HttpRequest, signer: &SignerVerdict) -> Value {
    let info = signer.certificate.as_ref().map(|certificate| describe(request, certificate)).unwrap_or_default();
    let mut found = item(signer.outcome.as_ref().err().map(ToString::to_string), info);
    for (name, stamp) in [("signatureTimeStamp", &signer.signature_time_stamp), ("dataTimeStamp", &signer.content_time_stamp)] {
        if let Some(stamp) = stamp {
            found[name] = json!({
                "dateTime": stamp.time.to_rfc3339(),
                "tsaCertificateSerialNumber": stamp.authority.serial(),
                "tsaCertificateIssuerX500Name": stamp.authority.issuer(),
            });
        }
    }
    found
}

/// One item of `verifyResults`. A client takes any `failureCause` for a failure, so a good one has none.
fn item(failure: Option<String>, info: Map<String, Value>) -> Value {
    let status = if failure.is_none() { "SUCCESS" } else { "FAILURE" };
    let mut item = Map::from_iter([("status".to_owned(), status.into()), ("signerInfo".to_owned(), Value::Object(info))]);
    item.extend(failure.map(|failure| ("failureCause".to_owned(), failure.into())));
    Value::Object(item)
}
