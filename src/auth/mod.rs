//! Who is asking: callers by API key, by TLS client certificate, by the origin of a web page, or by the listener that they came in at.
//!
//! Used by `http`, which takes the credentials out of a request. Invariants: an unknown caller gets nothing; a page from an origin that is not
//! configured gets nothing either, whatever key it holds; a key is kept as its hash and compared in constant time.

mod api_key;
mod book;
mod callers;
mod host;
mod origin;
mod peers;
mod rate;

pub use api_key::{API_KEY_LEN, AcceptedKey, ApiKey, ApiKeyHash, ApiKeyHashError, RandomUnavailable, generate_api_key};
pub use book::{BookSettings, CallerBook, CallerError, GRACE_MAX, ListedCaller};
pub use callers::{AuthError, CallerEntry, Callers, CallersError, Credentials};
pub use host::{AllowedHosts, HostNameError};
pub use origin::{Origin, OriginError};
pub use peers::{AllowedPeers, TrustedProxies};
pub use rate::{Rate, RateLimiter, address_key};
