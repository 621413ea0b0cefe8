//! Signatures: asking for one, asking how it stands, fetching it, and many at once.

use std::io;

use actix_web::{Either, HttpRequest, HttpResponse, Responder, body::SizedStream, http::header::HeaderName, web::Bytes};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{Stream, StreamExt, future::ready, stream};
use serde::Deserialize;
use serde_json::Value;

use super::{
    State,
    error::{AccessError, ApiError, BodyError, Operation},
    messages::Text,
    reply::{JSON, Reply, say},
    request::{Asking, Body, GivenPin, TicketPath},
};
use crate::{
    domain::{ids::IdempotencyKey, permit::PermitRefusal},
    http::limits::TooMany,
    signing::service::SubmitError,
    ticket::{Payment, SignatureDocument, SignatureState, TicketError},
};

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PaymentDto {
    access_token_uuid: Option<Value>,
    key_store_password: GivenPin,
}

impl PaymentDto {
    fn into_payment(self) -> Result<Payment, ApiError> {
        let error = |problem| Operation::StartSignature.error(problem);
        match (self.access_token_uuid, self.key_store_password.into_pin().map_err(error)?) {
            (None, None) => Ok(Payment::AskNow),
            (None, Some(pin)) => Ok(Payment::Pin(pin)),
            // One that is not written as a UUID cannot exist.
            (Some(Value::String(id)), None) => id
                .parse()
                .map(Payment::Permit)
                .map_err(|_| Operation::StartSignature.error(TicketError::Submit(SubmitError::Permit(PermitRefusal::Unknown)))),
            (Some(_), None) => Err(error(BodyError::PermissionId)),
            (Some(_), Some(_)) => Err(error(BodyError::PinAndPermission)),
        }
    }
}

/// The header by which a client names a request that it may send again.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

fn idempotency_key(request: &HttpRequest) -> Result<Option<IdempotencyKey>, ApiError> {
    let bad = || Operation::StartSignature.error(BodyError::IdempotencyKey);
    let Some(value) = request.headers().get(IDEMPOTENCY_KEY) else { return Ok(None) };
    value.to_str().ok().and_then(|text| text.parse().ok()).map(Some).ok_or_else(bad)
}

pub(super) async fn start(state: State, asking: Asking, ticket: TicketPath, request: HttpRequest, body: Body) -> Result<Reply, ApiError> {
    const OPERATION: Operation = Operation::StartSignature;
    let tickets = &state.services.tickets;
    tickets.check(&asking.caller, ticket.0).await.map_err(|error| OPERATION.error(error))?;
    let dto: PaymentDto = body.object_or_nothing().map_err(|error| OPERATION.error(error))?;
    let payment = dto.into_payment()?;
    let key = idempotency_key(&request)?;
    tickets.start_signature(&asking.caller, ticket.0, payment, key).await.map_err(|error| OPERATION.error(error))?;
    Ok(Reply::ok("signature-started"))
}

pub(super) async fn state(state: State, asking: Asking, ticket: TicketPath) -> Result<Reply, ApiError> {
    let found = state.services.tickets.signature_state(&asking.caller, ticket.0).await;
    Ok(match found.map_err(|error| Operation::FetchSignature.error(error))? {
        SignatureState::Pending => Reply::pending(),
        SignatureState::Signed => Reply::ok("signature-created"),
    })
}

pub(super) async fn data(state: State, asking: Asking, ticket: TicketPath) -> Result<impl Responder, ApiError> {
    let Some(document) = wait_for(&state, &asking, ticket).await? else { return Ok(Either::Right(Reply::pending())) };
    Ok(Either::Left(in_bytes(document)))
}

pub(super) async fn base64_data(
    state: State,
    asking: Asking,
    ticket: TicketPath,
    request: HttpRequest,
) -> Result<impl Responder, ApiError> {
    let Some(document) = wait_for(&state, &asking, ticket).await? else { return Ok(Either::Right(Reply::pending())) };
    Ok(Either::Left(in_base64(&request, "signature-created", document)))
}

/// An answer with a document as it is, sent as it is read.
pub(super) fn in_bytes(document: SignatureDocument) -> HttpResponse {
    let body = SizedStream::new(document.len(), document.into_pieces());
    HttpResponse::Ok().content_type("application/octet-stream").body(body)
}

/// An answer with a document in Base64, encoded as it goes.
pub(super) fn in_base64(request: &HttpRequest, message: &'static str, document: SignatureDocument) -> HttpResponse {
    let message = Value::from(say(request, &Text::new(message)));
    let (head, tail) = (format!("{{\"message\":{message},\"base64Data\":\""), "\"}");
    let len = (head.len() + tail.len()) as u64 + document.len().div_ceil(3) * 4;
    let whole = |text: String| stream::iter([Ok(Bytes::from(text))]);
    let pieces = whole(head).chain(base64_pieces(document.into_pieces())).chain(whole(tail.to_owned()));
    HttpResponse::Ok().content_type(JSON).body(SizedStream::new(len, pieces.boxed_local()))
}

/// Waits for the ticket's signature; `None` if it is not there when the time is over, or the server stops.
async fn wait_for(state: &State, asking: &Asking, ticket: TicketPath) -> Result<Option<SignatureDocument>, ApiError> {
    let tickets = &state.services.tickets;
    // A signature that is there already is fetched without waiting.
    let held = match state.limits.hold_open(&asking.caller.id) {
        Ok(held) => Some(held),
        Err(too_many) => match tickets.signature_state(&asking.caller, ticket.0).await {
            Ok(SignatureState::Pending) => return Err(Operation::FetchSignature.error(too_many_waiting(too_many))),
            Ok(SignatureState::Signed) | Err(_) => None,
        },
    };
    let signature = state.unless_closing(tickets.signature(&asking.caller, ticket.0)).await;
    drop(held);
    signature.transpose().map(Option::flatten).map_err(|error| Operation::FetchSignature.error(error))
}

pub(super) const fn too_many_waiting(TooMany { retry_after }: TooMany) -> AccessError {
    AccessError::TooManyWaiting { retry_after }
}

/// The same bytes in Base64. What does not make a whole group is carried over to the next piece.
fn base64_pieces(pieces: impl Stream<Item = io::Result<Bytes>>) -> impl Stream<Item = io::Result<Bytes>> {
    let with_end = pieces.map(Some).chain(stream::iter([None]));
    with_end.scan(Vec::new(), |carried: &mut Vec<u8>, piece| {
        ready(Some(match piece {
            Some(Ok(bytes)) => {
                carried.extend_from_slice(&bytes);
                let rest = carried.split_off(carried.len() / 3 * 3);
                Ok(Bytes::from(STANDARD.encode(std::mem::replace(carried, rest))))
            }
            Some(Err(error)) => Err(error),
            None => Ok(Bytes::from(STANDARD.encode(&carried))),
        }))
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BulkDto {
    data_to_sign: Option<Vec<String>>,
    #[serde(flatten)]
    payment: PaymentDto,
}

pub(super) async fn bulk(
    state: State,
    asking: Asking,
    ticket: TicketPath,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    const OPERATION: Operation = Operation::StartSignature;
    const MEMBER: &str = "dataToSign";
    let tickets = &state.services.tickets;
    tickets.check(&asking.caller, ticket.0).await.map_err(|error| OPERATION.error(error))?;
    let dto: BulkDto = body.object().map_err(|error| OPERATION.error(error))?;
    let texts = dto.data_to_sign.ok_or_else(|| OPERATION.error(BodyError::MissingMember(MEMBER)))?;
    let hashes = texts.iter().map(|text| STANDARD.decode(text).map_err(|_| OPERATION.error(BodyError::Base64(MEMBER))));
    let hashes = hashes.collect::<Result<Vec<_>, _>>()?;
    let _held = state.limits.hold_open(&asking.caller.id).map_err(|error| OPERATION.error(too_many_waiting(error)))?;
    let signed = tickets.sign_hashes(&asking.caller, ticket.0, hashes, dto.payment.into_payment()?, idempotency_key(&request)?).await;
    let signatures = signed.map_err(|error| OPERATION.error(error))?;
    let encoded: Vec<_> = signatures.iter().map(|signature| STANDARD.encode(signature)).collect();
    Ok(HttpResponse::Ok().content_type(JSON).body(Value::from(encoded).to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_of_any_length_make_the_same_base64(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..10)) {
            let encoded = base64_pieces(stream::iter(pieces.clone().into_iter().map(|piece| Ok(Bytes::from(piece)))));
            let encoded: Vec<_> = futures_util::FutureExt::now_or_never(encoded.map(Result::unwrap).collect()).unwrap();
            prop_assert_eq!(encoded.concat(), STANDARD.encode(pieces.concat()).into_bytes());
        }
    }
}
