//! The data objects of an upload: where each begins, what it is called, and at the end what each of them is.

use std::io::{self, Read};

use super::{
    TicketError,
    spool::{hash_of, unavailable},
};
use crate::domain::{
    algorithm::HashAlgorithm,
    digest::Digest,
    ticket::{DOCUMENT_NAME, DataObject, UNKNOWN_MEDIA_TYPE},
};

/// The most data objects of one content.
const OBJECTS_MAX: usize = 64;

/// A data object that is being received.
struct Begun {
    name: Option<String>,
    media_type: Option<String>,
    /// Where it begins.
    start: u64,
}

/// The data objects of an upload so far.
#[derive(Default)]
pub(super) struct Objects(Vec<Begun>);

impl Objects {
    /// Begins one, behind the `start` bytes that came before.
    pub(super) fn begin(&mut self, file_name: Option<&str>, media_type: Option<&str>, start: u64) -> Result<(), TicketError> {
        if self.0.len() == OBJECTS_MAX {
            return Err(TicketError::TooManyObjects { max: OBJECTS_MAX });
        }
        let name = file_name.and_then(DataObject::name_of).map(str::to_owned);
        let media_type = media_type.and_then(DataObject::media_type_of).map(str::to_owned);
        self.0.push(Begun { name, media_type, start });
        Ok(())
    }

    /// The data objects of a content of `len` bytes, which are read once more if there are several: each has a digest of its own.
    pub(super) fn finish<R: Read>(
        self,
        len: u64,
        whole: &Digest,
        content: impl FnOnce() -> io::Result<R>,
    ) -> Result<Vec<DataObject>, TicketError> {
        let begun = self.0;
        let several = begun.len() > 1;
        let mut content = if several { Some(content().map_err(unavailable)?) } else { None };
        let ends: Vec<u64> = begun.iter().skip(1).map(|next| next.start).chain([len]).collect();
        let mut objects: Vec<DataObject> = Vec::with_capacity(begun.len());
        for (index, (begun, end)) in begun.into_iter().zip(ends).enumerate() {
            let object_len = end - begun.start;
            let sha256 = match &mut content {
                Some(content) => hash_of(&mut content.by_ref().take(object_len), HashAlgorithm::Sha256).map_err(unavailable)?,
                None => whole.clone(),
            };
            let unnamed = || if several { format!("{DOCUMENT_NAME}-{}", index + 1) } else { DOCUMENT_NAME.to_owned() };
            let (name, media_type) =
                (begun.name.unwrap_or_else(unnamed), begun.media_type.unwrap_or_else(|| UNKNOWN_MEDIA_TYPE.to_owned()));
            // Where case does not count, the second of two would overwrite the first when they are taken out.
            if objects.iter().any(|other| other.name.to_lowercase() == name.to_lowercase()) {
                return Err(TicketError::SameName(name));
            }
            objects.push(DataObject { name, media_type, len: object_len, sha256 });
        }
        Ok(objects)
    }
}
