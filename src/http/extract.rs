//! What several APIs take out of a request in the same way.

use std::time::Duration;

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderName},
    web::{Bytes, Payload},
};
use futures_util::StreamExt;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyReadError {
    /// It is longer than it may be.
    #[error("the body has more than {limit} bytes")]
    TooLong {
        /// The most it may have, in bytes.
        limit: u64,
    },
    /// It did not come, or stopped coming.
    #[error("the body did not come in time")]
    TooSlow,
    /// It broke off, or its encoding is broken.
    #[error("the body could not be read")]
    Broken,
}

/// A header as text; `None` if it is missing, or is no text.
pub(super) fn header_text(request: &HttpRequest, name: HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

/// The host that the client means: of HTTP/2 and absolute targets in the target, otherwise in `Host`.
pub(super) fn host(request: &HttpRequest) -> Option<&str> {
    request.uri().authority().map(|authority| authority.as_str()).or_else(|| header_text(request, header::HOST))
}

/// The next piece of a body, or `None` at its end.
pub(super) async fn next_piece(body: &mut Payload, idle_max: Duration) -> Result<Option<Bytes>, BodyReadError> {
    match timeout(idle_max, body.next()).await {
        Ok(piece) => piece.transpose().map_err(|_| BodyReadError::Broken),
        Err(_) => Err(BodyReadError::TooSlow),
    }
}

/// A whole body, wiped when it is dropped, since there may be a PIN in it.
pub(super) async fn read_whole(body: &mut Payload, max: usize, idle_max: Duration) -> Result<Zeroizing<Vec<u8>>, BodyReadError> {
    let mut whole = Zeroizing::new(Vec::new());
    while let Some(piece) = next_piece(body, idle_max).await? {
        let len = whole.len() + piece.len();
        if len > max {
            return Err(BodyReadError::TooLong { limit: max as u64 });
        }
        if len > whole.capacity() {
            // A vector that grows by itself would leave copies behind.
            let mut larger = Zeroizing::new(Vec::with_capacity(len.next_power_of_two()));
            larger.extend_from_slice(&whole);
            whole = larger;
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}
