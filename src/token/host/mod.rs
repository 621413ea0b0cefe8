//! The process boundary around a module: parent's side, child's side, and the frames between them.
//!
//! A module is foreign C code: it can hang, crash and leak, and it reads its configuration from the environment. So it lives in a child of
//! the gateway, one child per configured module, each with an environment of its own. Invariants: the end of the socket ends the child; the
//! end of the child answers every command that was outstanding; the parent never waits for the child on a thread that serves others.

mod child;
pub(super) mod fence;
pub(super) mod frame;
pub(super) mod parent;
pub mod pin_codec;

pub use child::child_main;
