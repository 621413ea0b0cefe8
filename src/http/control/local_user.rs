//! Who is at the other end of the control socket: a user of this machine, as the kernel says, not as a request does. A request may add who
//! that user was before `sudo`, which stands beside the kernel's word and never in its place.

use std::{any::Any, env, fs};

use actix_web::{FromRequest, HttpRequest, dev, rt::net::UnixStream};

use super::error::ControlError;
use crate::domain::{
    caller::KeyAccess,
    ids::OperatorName,
    operator::{Operator, Role},
};

/// Where the system keeps its users' names.
const USERS: &str = "/etc/passwd";

/// The header in which a command tells who called it by way of `sudo`.
pub(crate) const BEFORE_SUDO: &str = "sealgate-before-sudo";

/// A user of this machine. They can open the socket, so they are as good as the gateway's own user: an administrator, with all keys.
#[derive(Debug, Clone)]
pub(in crate::http) struct LocalUser {
    name: OperatorName,
    before_sudo: Option<OperatorName>,
}

impl LocalUser {
    /// The user who opened this connection, if it is one to the control socket.
    pub(in crate::http) fn of(connection: &dyn Any) -> Option<Self> {
        let uid = connection.downcast_ref::<UnixStream>()?.peer_cred().ok()?.uid();
        Self::with_uid(uid)
    }

    fn with_uid(uid: u32) -> Option<Self> {
        let users = fs::read_to_string(USERS).unwrap_or_default();
        name_of(&users, uid).map(|name| Self { name, before_sudo: None })
    }

    /// Their name for the records: the kernel's and, if it is another, in brackets the one from before `sudo`.
    pub(super) fn who(&self) -> String {
        match &self.before_sudo {
            Some(before) if *before != self.name => format!("{} ({before})", self.name),
            _ => self.name.to_string(),
        }
    }

    pub(super) fn operator(&self) -> Operator {
        Operator { name: self.name.clone(), role: Role::Administrator, keys: KeyAccess::All }
    }
}

impl FromRequest for LocalUser {
    type Error = ControlError;
    type Future = std::future::Ready<Result<Self, ControlError>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        let before_sudo = request.headers().get(BEFORE_SUDO).and_then(|value| value.to_str().ok()?.parse().ok());
        let user = request.conn_data::<Self>().cloned().map(|user| Self { before_sudo, ..user });
        std::future::ready(user.ok_or(ControlError::Stranger))
    }
}

/// The user who runs this process, as [`LocalUser::who`] has it.
pub(crate) fn who_runs_this() -> String {
    let user = LocalUser::with_uid(rustix::process::getuid().as_raw());
    user.map_or_else(|| "unknown".to_owned(), |user| LocalUser { before_sudo: before_sudo(), ..user }.who())
}

/// The user who called this process by way of `sudo`, as `sudo` says.
pub(crate) fn before_sudo() -> Option<OperatorName> {
    env::var("SUDO_USER").ok()?.parse().ok()
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

    #[test]
    fn who_a_user_was_before_sudo_stands_beside_the_kernels_word() {
        let who =
            |before: Option<&str>| LocalUser { name: "root".parse().unwrap(), before_sudo: before.map(|name| name.parse().unwrap()) }.who();
        assert_eq!([who(None), who(Some("root")), who(Some("anna"))], ["root", "root", "root (anna)"]);
    }
}
