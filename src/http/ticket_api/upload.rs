//! Uploads of content, of signatures and of time stamps, in the three ways that clients send them, each decoded as it comes.

use actix_multipart::{Field, Multipart};
use actix_web::{HttpMessage, HttpRequest, http::header, web::Payload};
use futures_util::StreamExt;

use super::{
    State,
    base64_json::Base64Json,
    error::{ApiError, BodyError, Operation},
    reply::Reply,
    request::{Asking, TicketPath},
};
use crate::{
    http::extract::{BodyReadError, Pace, header_text, next_piece},
    ticket::{TicketError, TokenUpload, Upload},
};

/// What is uploaded: what errors are about, and the form element that holds it.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    operation: Operation,
    element: &'static str,
    /// Whether there may be several of that element.
    several: bool,
}

const CONTENT: Kind = Kind { operation: Operation::UploadData, element: "uploadTicketData", several: true };
pub(super) const TIME_STAMP: Kind = Kind { operation: Operation::UploadTimeStamp, element: "uploadTsData", several: false };
const SIGNATURE: Kind = Kind { operation: Operation::UploadSignature, element: "uploadDsData", several: false };

/// Room for other members of JSON and other parts of a form, in bytes.
const WRAPPING_MAX: u64 = 1 << 20;
/// The most parts of a form.
const PARTS_MAX: usize = 96;

pub(super) async fn data(state: State, asking: Asking, ticket: TicketPath, request: HttpRequest, body: Payload) -> Result<Reply, ApiError> {
    let tickets = &state.services.tickets;
    let mut upload = tickets.begin_upload(&asking.caller, ticket.0).await.map_err(|error| CONTENT.operation.error(error))?;
    receive(&state, &request, body, CONTENT, &mut upload).await?;
    tickets.finish_upload(&asking.caller, ticket.0, upload).await.map_err(|error| CONTENT.operation.error(error))?;
    Ok(Reply::ok("data-uploaded"))
}

/// A signature, to be verified.
pub(super) async fn signature(
    state: State,
    asking: Asking,
    ticket: TicketPath,
    request: HttpRequest,
    body: Payload,
) -> Result<Reply, ApiError> {
    let tickets = &state.services.tickets;
    let mut upload = tickets.begin_signature_upload(&asking.caller, ticket.0).await.map_err(|error| SIGNATURE.operation.error(error))?;
    receive(&state, &request, body, SIGNATURE, &mut upload).await?;
    tickets.finish_upload(&asking.caller, ticket.0, upload).await.map_err(|error| SIGNATURE.operation.error(error))?;
    Ok(Reply::ok("signature-uploaded"))
}

/// Where an upload goes.
pub(super) trait Receiver {
    /// The most bytes that are taken.
    fn limit(&self) -> u64;
    /// A form says that something begins that may have a name and a media type.
    fn begin_object(&mut self, file_name: Option<&str>, media_type: Option<&str>) -> Result<(), TicketError>;
    /// Takes the next piece.
    async fn write(&mut self, piece: &[u8]) -> Result<(), TicketError>;
}

impl Receiver for Upload {
    fn limit(&self) -> u64 {
        self.limit()
    }

    fn begin_object(&mut self, file_name: Option<&str>, media_type: Option<&str>) -> Result<(), TicketError> {
        self.begin_object(file_name, media_type)
    }

    async fn write(&mut self, piece: &[u8]) -> Result<(), TicketError> {
        self.write(piece).await
    }
}

impl Receiver for TokenUpload {
    fn limit(&self) -> u64 {
        self.limit()
    }

    fn begin_object(&mut self, _: Option<&str>, _: Option<&str>) -> Result<(), TicketError> {
        Ok(())
    }

    async fn write(&mut self, piece: &[u8]) -> Result<(), TicketError> {
        self.write(piece)
    }
}

/// Receives a body in whichever form it comes.
pub(super) async fn receive(
    state: &State,
    request: &HttpRequest,
    body: Payload,
    kind: Kind,
    upload: &mut impl Receiver,
) -> Result<(), ApiError> {
    let pace = Pace::start(state.settings.body_idle_max, state.settings.upload_total_max);
    let declared = header_text(request, header::CONTENT_LENGTH).and_then(|len| len.parse::<u64>().ok());
    if declared.is_some_and(|len| len > body_max(upload)) {
        return Err(kind.too_long(upload));
    }
    match request.content_type().to_ascii_lowercase().as_str() {
        "application/octet-stream" | "" => raw(body, pace, kind, upload).await,
        "application/json" => base64_json(body, pace, kind, upload).await,
        "multipart/form-data" => form(request, body, pace, kind, upload).await,
        _ => Err(kind.operation.error(BodyError::ContentType)),
    }
}

async fn raw(mut body: Payload, pace: Pace, kind: Kind, upload: &mut impl Receiver) -> Result<(), ApiError> {
    while let Some(piece) = next_piece(&mut body, pace).await.map_err(|error| kind.read_error(error))? {
        kind.take(upload, &piece).await?;
    }
    Ok(())
}

async fn base64_json(mut body: Payload, pace: Pace, kind: Kind, upload: &mut impl Receiver) -> Result<(), ApiError> {
    let mut json = Base64Json::default();
    let mut content = Vec::new();
    // Escapes and white space are no content; without a limit of its own, a body of nothing else would never end.
    let mut left = body_max(upload);
    while let Some(piece) = next_piece(&mut body, pace).await.map_err(|error| kind.read_error(error))? {
        left = left.checked_sub(piece.len() as u64).ok_or_else(|| kind.too_long(upload))?;
        json.push(&piece, &mut content).map_err(|error| kind.operation.error(error))?;
        kind.take(upload, &content).await?;
        content.clear();
    }
    json.finish().map_err(|error| kind.operation.error(error))
}

async fn form(request: &HttpRequest, body: Payload, pace: Pace, kind: Kind, upload: &mut impl Receiver) -> Result<(), ApiError> {
    let mut form = Multipart::new(request.headers(), body);
    let mut found = false;
    for _ in 0..PARTS_MAX {
        let part = pace.wait(form.next()).await.map_err(|error| kind.read_error(error))?;
        let Some(part) = part else {
            return if found { Ok(()) } else { Err(kind.operation.error(BodyError::MissingElement(kind.element))) };
        };
        let part = part.map_err(|_| kind.operation.error(BodyError::Form))?;
        if part.name() != Some(kind.element) || (found && !kind.several) {
            pass_over(part, pace, kind).await?;
            continue;
        }
        found = true;
        let file_name = part.content_disposition().and_then(|disposition| disposition.get_filename()).map(str::to_owned);
        let media_type = part.content_type().map(|media_type| media_type.essence_str().to_owned());
        let begun = upload.begin_object(file_name.as_deref(), media_type.as_deref());
        begun.map_err(|error| kind.operation.error(error))?;
        element(part, pace, kind, upload).await?;
    }
    Err(kind.operation.error(BodyError::Form))
}

async fn element(mut part: Field, pace: Pace, kind: Kind, upload: &mut impl Receiver) -> Result<(), ApiError> {
    while let Some(piece) = pace.wait(part.next()).await.map_err(|error| kind.read_error(error))? {
        kind.take(upload, &piece.map_err(|_| kind.operation.error(BodyError::Form))?).await?;
    }
    Ok(())
}

async fn pass_over(mut part: Field, pace: Pace, kind: Kind) -> Result<(), ApiError> {
    let mut left = WRAPPING_MAX;
    while let Some(piece) = pace.wait(part.next()).await.map_err(|error| kind.read_error(error))? {
        let piece = piece.map_err(|_| kind.operation.error(BodyError::Form))?;
        left = left.checked_sub(piece.len() as u64).ok_or_else(|| kind.operation.error(BodyError::Form))?;
    }
    Ok(())
}

/// The longest body, in whatever form. Base64 adds a third, and may have escapes.
fn body_max(upload: &impl Receiver) -> u64 {
    upload.limit().saturating_mul(2).saturating_add(WRAPPING_MAX)
}

impl Kind {
    async fn take(self, upload: &mut impl Receiver, piece: &[u8]) -> Result<(), ApiError> {
        upload.write(piece).await.map_err(|error| self.operation.error(error))
    }

    fn read_error(self, error: BodyReadError) -> ApiError {
        self.operation.error(BodyError::from(error))
    }

    fn too_long(self, upload: &impl Receiver) -> ApiError {
        self.operation.error(TicketError::TooLarge { limit: upload.limit() })
    }
}
