//! Who asks for a page: an operator's session, as the guard found it.

use std::{future::Ready, net::IpAddr};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload};

use super::error::ConsoleError;
use crate::{
    auth::{FormToken, OpenSession},
    domain::{
        ids::{KeyName, OperatorName},
        operator::Operator,
    },
};

/// A request of somebody who is logged in.
#[derive(Clone)]
pub(super) struct Visit {
    /// Their session.
    pub(super) open: OpenSession,
    /// What their forms must carry.
    pub(super) form_token: FormToken,
}

/// How a request came, whoever it is from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// By TLS, to us or to a trusted proxy.
    pub(super) secure: bool,
    /// From where.
    pub(super) address: Option<IpAddr>,
}

impl Visit {
    /// Who.
    pub(super) const fn operator(&self) -> &Operator {
        &self.open.operator
    }

    /// Their name, for the audit log.
    pub(super) fn by(&self) -> String {
        format!("operator {}", self.name())
    }

    pub(super) const fn name(&self) -> &OperatorName {
        &self.open.operator.name
    }

    /// Whether the key is theirs. One without a name belongs to those who have all keys.
    pub(super) fn has_key(&self, key: Option<&KeyName>) -> bool {
        let keys = &self.operator().keys;
        key.map_or(*keys == crate::domain::caller::KeyAccess::All, |key| keys.allows(key))
    }

    /// Lets administrators on.
    pub(super) const fn administrator(&self) -> Result<(), ConsoleError> {
        if self.open.operator.is_administrator() { Ok(()) } else { Err(ConsoleError::AdministratorsOnly) }
    }
}

impl FromRequest for Visit {
    type Error = ConsoleError;
    type Future = Ready<Result<Self, ConsoleError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(request.extensions().get::<Self>().cloned().ok_or(ConsoleError::NotLoggedIn))
    }
}

impl FromRequest for Arrival {
    type Error = ConsoleError;
    type Future = Ready<Result<Self, ConsoleError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // The guard puts it there before anything else.
        std::future::ready(request.extensions().get::<Self>().copied().ok_or(ConsoleError::Broken))
    }
}
