//! What the forms of several pages have in common: which keys somebody has, and a secret that is shown once.

use actix_web::HttpResponse;
use askama::Template;

use super::{
    State,
    error::ConsoleError,
    form::Form,
    frame::{self, Frame, Place},
    visit::Visit,
};
use crate::domain::{caller::KeyAccess, ids::KeyName};

/// The boxes of the template `keys.html`.
pub(super) struct KeyBoxes {
    /// All keys are theirs, also those that are added later.
    pub(super) has_all: bool,
    /// Each key, and whether it is theirs by name.
    pub(super) boxes: Vec<(KeyName, bool)>,
}

impl KeyBoxes {
    /// For somebody new.
    pub(super) fn unticked(state: &State) -> Self {
        Self { has_all: true, boxes: state.services.desk.key_names().into_iter().map(|key| (key, false)).collect() }
    }

    /// As somebody has them.
    pub(super) fn of(state: &State, access: &KeyAccess) -> Self {
        let mut this = Self { has_all: *access == KeyAccess::All, ..Self::unticked(state) };
        if let KeyAccess::Only(named) = access {
            this.boxes.iter_mut().for_each(|(key, is_theirs)| *is_theirs = named.contains(key));
            // Keys that the configuration has no more are still theirs, should they come back.
            let gone: Vec<_> = named.iter().filter(|key| !this.boxes.iter().any(|(known, _)| known == *key)).cloned().collect();
            this.boxes.extend(gone.into_iter().map(|key| (key, true)));
        }
        this
    }

    /// What a form chooses: all, or some by name.
    pub(super) fn chosen(form: &Form) -> Result<KeyAccess, ConsoleError> {
        if form.text("keys") == Some("all") {
            return Ok(KeyAccess::All);
        }
        let keys = form.all("key").map(str::parse).collect::<Result<Vec<KeyName>, _>>();
        let keys = keys.map_err(|error| ConsoleError::Form(error.to_string()))?;
        if keys.is_empty() { Err(ConsoleError::Form("choose at least one key, or all".to_owned())) } else { Ok(KeyAccess::Only(keys)) }
    }
}

/// A secret that was made just now.
pub(super) struct Secret<'a> {
    /// What it is.
    pub(super) what: &'a str,
    /// Whose.
    pub(super) whose: &'a str,
    /// The secret in clear.
    pub(super) secret: &'a str,
}

#[derive(Template)]
#[template(path = "once.html")]
struct OncePage<'a> {
    frame: Frame,
    made: Secret<'a>,
}

/// The page that shows a secret this once.
pub(super) fn once(visit: &Visit, place: Place, made: Secret<'_>) -> Result<HttpResponse, ConsoleError> {
    frame::page(&OncePage { frame: Frame::new(visit, place, made.what), made })
}
