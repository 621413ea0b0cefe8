//! A finished signature, or a document that an operator looks at, on its way out: without copying the content.

use std::io;

use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use tokio::fs::File;
use tokio_util::{bytes::Bytes, io::ReaderStream};

use super::{
    TicketError,
    signature::ContentSource,
    spool::{Share, unavailable},
};
use crate::cms::AttachedFrame;

/// How much of a spooled content is read at a time, in bytes.
const READ_LEN: usize = 64 * 1024;

/// A CMS signature in DER, the content of one, or a document as it was uploaded.
pub struct SignatureDocument {
    len: u64,
    pieces: BoxStream<'static, io::Result<Bytes>>,
}

impl SignatureDocument {
    /// Its length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it is empty, which a signature never is and a document may be.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its bytes, in pieces of a bounded length. The content stays readable although the ticket is deleted meanwhile.
    #[must_use]
    pub fn into_pieces(self) -> BoxStream<'static, io::Result<Bytes>> {
        self.pieces
    }
}

pub(super) fn whole(der: Vec<u8>) -> SignatureDocument {
    SignatureDocument { len: der.len() as u64, pieces: once(der) }
}

/// Bytes of a known length that come in pieces.
pub(super) fn streamed(len: u64, pieces: BoxStream<'static, io::Result<Bytes>>) -> SignatureDocument {
    SignatureDocument { len, pieces }
}

/// The frame with the content in it.
pub(super) async fn around(frame: AttachedFrame, content: ContentSource) -> Result<SignatureDocument, TicketError> {
    Ok(framed(frame, pieces_of(content).await?))
}

/// The frame round content that comes in pieces.
pub(super) fn framed(frame: AttachedFrame, content: BoxStream<'static, io::Result<Bytes>>) -> SignatureDocument {
    SignatureDocument { len: frame.total_len, pieces: once(frame.head).chain(content).chain(once(frame.tail)).boxed() }
}

/// The whole of a file that nobody else has; `share` is what it takes of the disk, and is given back with it.
pub(super) fn of_file(file: std::fs::File, len: u64, share: Share) -> SignatureDocument {
    let pieces = ReaderStream::with_capacity(File::from_std(file), READ_LEN)
        .inspect_err(|error| tracing::error!(error = %error, "a container cannot be read back"))
        .map(move |piece| {
            let _taken = &share;
            piece
        });
    SignatureDocument { len, pieces: pieces.boxed() }
}

/// Content as it is.
pub(super) async fn plain(len: u64, content: ContentSource) -> Result<SignatureDocument, TicketError> {
    Ok(SignatureDocument { len, pieces: pieces_of(content).await? })
}

fn once(bytes: Vec<u8>) -> BoxStream<'static, io::Result<Bytes>> {
    stream::iter([Ok(Bytes::from(bytes))]).boxed()
}

async fn pieces_of(content: ContentSource) -> Result<BoxStream<'static, io::Result<Bytes>>, TicketError> {
    Ok(match content {
        ContentSource::Bytes(bytes) => stream::iter([Ok(Bytes::from_owner(bytes))]).boxed(),
        ContentSource::File(path) => {
            let file = File::open(path).await.map_err(unavailable)?;
            ReaderStream::with_capacity(file, READ_LEN)
                .inspect_err(|error| tracing::error!(error = %error, "spooled content cannot be read"))
                .boxed()
        }
    })
}
