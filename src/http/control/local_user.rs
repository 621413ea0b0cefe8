//! Who is at the other end of the control socket: a user of this machine, as the kernel says, not as a request does.

use std::{any::Any, fs};

use actix_web::{FromRequest, HttpRequest, dev, rt::net::UnixStream};

use super::error::ControlError;
use crate::domain::{
    caller::KeyAccess,
    ids::OperatorName,
    operator::{Operator, Role},
};

/// Where the system keeps its users' names.
const USERS: &str = "/etc/passwd";

/// A user of this machine. They can open the socket, so they are as good as the gateway's own user: an administrator, with all keys.
#[derive(Debug, Clone)]
pub(in crate::http) struct LocalUser(OperatorName);

impl LocalUser {
    /// The user who opened this connection, if it is one to the control socket.
    pub(in crate::http) fn of(connection: &dyn Any) -> Option<Self> {
        let uid = connection.downcast_ref::<UnixStream>()?.peer_cred().ok()?.uid();
        let users = fs::read_to_string(USERS).unwrap_or_default();
        name_of(&users, uid).map(Self)
    }

    pub(super) fn operator(&self) -> Operator {
        Operator { name: self.0.clone(), role: Role::Administrator, keys: KeyAccess::All }
    }
}

impl FromRequest for LocalUser {
    type Error = ControlError;
    type Future = std::future::Ready<Result<Self, ControlError>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        std::future::ready(request.conn_data::<Self>().cloned().ok_or(ControlError::Stranger))
    }
}

/// The name of a user as operators are called; users who are known elsewhere, and names of another form, go by number.
fn name_of(users: &str, uid: u32) -> Option<OperatorName> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?.to_owned(), fields.nth(1)?);
        (number.parse() == Ok(uid)).then_some(name)
    };
    let known = users.lines().find_map(entry).and_then(|name| name.parse().ok());
    known.or_else(|| format!("uid-{uid}").parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_called_by_name_or_else_by_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\nanna:x:1000:1000::/home/anna:/bin/sh\nодин:x:1001:1001::/:/bin/sh\nbroken\n";
        let name = |uid| name_of(users, uid).unwrap().to_string();
        assert_eq!((name(0), name(1000), name(1001), name(7)), ("root".into(), "anna".into(), "uid-1001".into(), "uid-7".into()));
        assert_eq!(name_of("", 0).unwrap().as_str(), "uid-0");
    }
}
