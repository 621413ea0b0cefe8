//! The two directions between a module's slot threads and the rest of the gateway: commands in, events out.
//!
//! Both are traits because the threads run either in this process or in a child; the implementations pass plain values on.

use serde::{Deserialize, Serialize};

use crate::domain::{
    pin::Pin,
    token::{LoginMode, SlotStatus, TokenFlags, TokenIdentity},
};

use super::{
    command::{Command, Reply},
    driver::DeviceError,
};

/// Names one worker during one run of its module; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SlotRef(pub u32);

/// Where the answer to one command goes. Dropping it unanswered tells the asker that the thread ended.
pub trait Responder: Send {
    /// The command enters the call from which on a signature may exist.
    fn entering(&self);

    /// The answer.
    fn answer(self: Box<Self>, answer: Result<Reply, DeviceError>);
}

/// A command and where its answer goes.
pub struct Envelope {
    /// What is asked.
    pub command: Command,
    /// Who waits.
    pub responder: Box<dyn Responder>,
}

/// Why a command was not taken. The responder was dropped unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// The queue is full.
    Busy,
    /// The slot's thread, or its module's process, is not there any more.
    Gone,
}

/// A running module, as its slots are reached. No method blocks.
pub trait ModuleLink: Send + Sync {
    /// Sends a command to the thread of `slot`.
    ///
    /// # Errors
    /// [`NotTaken`].
    fn send(&self, slot: SlotRef, envelope: Envelope) -> Result<(), NotTaken>;

    /// Makes a token in a free slot of the module.
    ///
    /// # Errors
    /// [`NotTaken`].
    fn create_token(&self, order: CreateToken, responder: Box<dyn Responder>) -> Result<(), NotTaken>;
}

/// What token to make.
#[derive(Debug, Serialize, Deserialize)]
pub struct CreateToken {
    /// Its label.
    pub label: String,
    /// The security officer's PIN.
    #[serde(with = "super::host::pin_codec::required")]
    pub so_pin: Pin,
    /// The user's PIN.
    #[serde(with = "super::host::pin_codec::required")]
    pub user_pin: Pin,
}

/// What slot threads tell the rest of the gateway. Implementations must not wait for a slot thread.
pub trait ModuleEvents: Send + Sync {
    /// A token was found and has its thread.
    fn slot_up(&self, slot: SlotRef, token: TokenIdentity, login: LoginMode);

    /// The slot's state changed.
    fn status(&self, slot: SlotRef, status: SlotStatus, flags: TokenFlags);

    /// The token's flags changed, and the slot's state did not.
    fn flags(&self, slot: SlotRef, flags: TokenFlags);

    /// The slot's thread has ended.
    fn slot_down(&self, slot: SlotRef, reason: String);

    /// The module's slots were looked through for the first time.
    fn scanned(&self);

    /// A call does not return: one of this slot's thread, or (`None`) of the search for tokens. Said once a call.
    fn overdue(&self, slot: Option<SlotRef>, call: String);

    /// Only a new start of the module will help: it fails again and again, or is not initialised any more.
    fn replace(&self, reason: String);
}
