//! Who is asking: callers by API key, by TLS client certificate, by the origin of a web page, or by the listener that they came in at.
//!
//! And operators: their accounts, passwords and sessions.
//!
//! Used by `http`, which takes the credentials out of a request. Invariants: an unknown caller gets nothing; a page from an origin that is not
//! configured gets nothing either, whatever key it holds; a key is kept as its hash and compared in constant time.

mod api_key;
mod back_off;
mod book;
mod callers;
mod host;
mod operators;
mod origin;
mod password;
mod peers;
mod rate;
mod sessions;

pub use api_key::{API_KEY_LEN, AcceptedKey, ApiKey, ApiKeyHash, ApiKeyHashError, RandomUnavailable, generate_api_key};
pub use back_off::{BackOff, Patience};
pub use book::{BookSettings, CallerBook, CallerError, GRACE_MAX, ListedCaller};
pub use callers::{AuthError, CallerEntry, Callers, CallersError, Credentials};
pub use host::{AllowedHosts, HostNameError};
pub use operators::{LoginError, OPERATORS_MAX, OpenSession, OperatorError, Operators, SessionSettings};
pub use origin::{Origin, OriginError};
pub use password::{HashError, PASSWORD_MAX, PASSWORD_MIN, Password, PasswordError};
pub use peers::{AllowedPeers, TrustedProxies};
pub use rate::{Rate, RateLimiter, address_key};
pub use sessions::{FormToken, SessionToken};
