//! What this API takes out of a request: who asks, which certificate request, and bodies.

use std::future::{Ready, ready};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest, dev,
    web::{self, Payload},
};
use futures_util::future::LocalBoxFuture;
use zeroize::Zeroizing;

use super::error::Notice;
use crate::{
    domain::enrolment::ExternalId,
    enrolment::Requester,
    http::{
        app::AppState,
        extract::{Pace, read_whole},
    },
};

/// Who asks; [`access`](super::access) found out.
pub(super) struct Asking(pub(super) Requester);

impl FromRequest for Asking {
    type Error = Notice;
    type Future = Ready<Result<Self, Notice>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        ready(request.extensions().get::<Requester>().cloned().map(Self).ok_or_else(|| Notice::unauthorized("")))
    }
}

/// The request that the path names.
pub(super) struct Named(pub(super) ExternalId);

impl FromRequest for Named {
    type Error = Notice;
    type Future = Ready<Result<Self, Notice>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        let id = request.match_info().get("externalId").and_then(|text| text.parse().ok());
        ready(id.map(Self).ok_or_else(Notice::bad_external_id))
    }
}

/// A whole body of limited length.
pub(super) struct Body(pub(super) Zeroizing<Vec<u8>>);

impl FromRequest for Body {
    type Error = Notice;
    type Future = LocalBoxFuture<'static, Result<Self, Notice>>;

    fn from_request(request: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let state = request.app_data::<web::Data<AppState>>().cloned();
        let payload = Payload::from_request(request, payload);
        Box::pin(async move {
            let broken = || Notice::malformed(Vec::new());
            let (state, mut payload) = (state.ok_or_else(broken)?, payload.await.map_err(|_| broken())?);
            let settings = &state.settings;
            let pace = Pace::start(settings.body_idle_max, settings.body_total_max);
            Ok(Self(read_whole(&mut payload, settings.body_bytes_max, pace).await?))
        })
    }
}
