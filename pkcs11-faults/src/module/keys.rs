//! Which `CKA_ID` a key handle has: asked once, and remembered, since asking costs as much as half a fast signature.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cryptoki_sys::{CK_OBJECT_HANDLE, CK_SLOT_ID};

use super::{real::Real, sessions::Session};

/// Handles that are remembered; with more, all are forgotten and asked for again.
const HANDLES_MAX: usize = 4096;

type Table = HashMap<(CK_SLOT_ID, CK_OBJECT_HANDLE), Option<Vec<u8>>>;

/// The `CKA_ID`s of the real module's handles.
#[derive(Debug, Default)]
pub(super) struct KeyIds {
    table: Mutex<Table>,
}

impl KeyIds {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key's `CKA_ID`, if the token tells it.
    pub(super) fn find(&self, real: &Real, session: &Session, object: CK_OBJECT_HANDLE) -> Option<Vec<u8>> {
        let at = (session.slot, object);
        if let Some(id) = self.lock().get(&at) {
            return id.clone();
        }
        let id = real.key_id(session.real(), object);
        let mut table = self.lock();
        if table.len() >= HANDLES_MAX {
            table.clear();
        }
        table.insert(at, id.clone());
        id
    }

    /// The object is gone, or may have another `CKA_ID`.
    pub(super) fn forget(&self, slot: CK_SLOT_ID, object: CK_OBJECT_HANDLE) {
        self.lock().remove(&(slot, object));
    }

    /// The slot's handles are dead, and their numbers may come again for other objects.
    pub(super) fn forget_slot(&self, slot: CK_SLOT_ID) {
        self.lock().retain(|(at, _), _| *at != slot);
    }

    pub(super) fn forget_all(&self) {
        self.lock().clear();
    }
}
