//! What parent and child say to each other, and how it is framed: four bytes of length (little endian), then the value in postcard.
//!
//! Invariant: a frame has at most [`FRAME_MAX`] bytes, checked before anything is allocated, on both sides. Buffers may hold a PIN and are wiped.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::domain::{
    fence::Fence,
    pin::{LedgerInstance, LedgerKey, LedgerRefusal, LoginVerdict, Pin, PinOrigin},
    token::{LoginMode, SlotStatus, TokenFlags, TokenIdentity},
};

use super::super::{
    command::{Command, Reply},
    driver::DeviceError,
    link::{CreateToken, SlotRef},
    pkcs11::ModuleOptions,
    runner::{Expected, LoginModes},
    watchdog::CallLimits,
};

/// The longest frame, in bytes, without its length.
pub const FRAME_MAX: usize = 1024 * 1024;

const LENGTH_BYTES: usize = 4;

/// From the gateway to a module's process.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToChild {
    /// Load the module; always the first frame.
    Start(Box<StartModule>),
    /// A command to one slot.
    Call {
        /// Names the answer.
        call: u64,
        /// The slot.
        slot: SlotRef,
        /// The command.
        command: Command,
    },
    /// Make a token.
    CreateToken {
        /// Names the answer.
        call: u64,
        /// What token.
        order: CreateToken,
    },
    /// The answer to a question about PIN tries.
    LedgerAnswer {
        /// The question's name.
        ask: u64,
        /// Whether the attempt may be made; `Ok` to everything else.
        answer: Result<(), LedgerRefusal>,
    },
    /// Answer with [`ToParent::Pong`]: shows that the process runs at all.
    Ping,
    /// Finish what is running, answer what is queued, end.
    Stop,
}

/// What a module's process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct StartModule {
    /// The library file.
    pub path: std::path::PathBuf,
    /// What it is denied.
    pub fence: Fence,
    /// Its name, and how it is initialised.
    pub options: ModuleOptions,
    /// How its tokens are logged in.
    pub modes: LoginModes,
    /// Names this run for the PIN ledger.
    pub instance: LedgerInstance,
    /// After how long a call is taken for one that never returns.
    pub limits: CallLimits,
    /// Tokens that should be there, and how long they may be missed.
    pub expected: Expected,
    /// Where slots keep their marks; `None` for nowhere.
    pub marks: Option<std::path::PathBuf>,
}

/// From a module's process to the gateway.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToParent {
    /// The module was loaded, or why not.
    Started(Result<(), String>),
    /// [`ModuleEvents::slot_up`](super::super::link::ModuleEvents::slot_up).
    SlotUp {
        /// The slot.
        slot: SlotRef,
        /// Its token.
        token: TokenIdentity,
        /// How it is logged in.
        login: LoginMode,
    },
    /// [`ModuleEvents::status`](super::super::link::ModuleEvents::status).
    Status {
        /// The slot.
        slot: SlotRef,
        /// Its state.
        status: SlotStatus,
        /// The token's flags.
        flags: TokenFlags,
    },
    /// [`ModuleEvents::flags`](super::super::link::ModuleEvents::flags).
    Flags {
        /// The slot.
        slot: SlotRef,
        /// The token's flags.
        flags: TokenFlags,
    },
    /// [`ModuleEvents::slot_down`](super::super::link::ModuleEvents::slot_down).
    SlotDown {
        /// The slot.
        slot: SlotRef,
        /// Why.
        reason: String,
    },
    /// [`ModuleEvents::scanned`](super::super::link::ModuleEvents::scanned).
    Scanned,
    /// [`ModuleEvents::overdue`](super::super::link::ModuleEvents::overdue).
    Overdue {
        /// The slot whose call it is; `None` for the search for tokens.
        slot: Option<SlotRef>,
        /// The call.
        call: String,
    },
    /// [`ModuleEvents::replace`](super::super::link::ModuleEvents::replace).
    Replace {
        /// Why.
        reason: String,
    },
    /// The answer to [`ToChild::Ping`].
    Pong,
    /// A command enters the call from which on a signature may exist. Written before that call.
    Entering {
        /// The command.
        call: u64,
    },
    /// The answer to a command.
    Answer {
        /// The command.
        call: u64,
        /// What came out.
        answer: Result<Reply, DeviceError>,
    },
    /// A question about PIN tries; the asker waits.
    Ledger {
        /// Names the answer.
        ask: u64,
        /// The question.
        question: LedgerQuestion,
    },
}

/// A call to the PIN ledger, which lives in the parent.
#[derive(Debug, Serialize, Deserialize)]
pub enum LedgerQuestion {
    /// May this attempt be made?
    Begin(LedgerAttempt),
    /// It ended.
    End(LedgerAttempt, LoginVerdict),
    /// Forget what this token rejected.
    Forget(LedgerKey),
}

/// A login attempt as it crosses the process boundary.
#[derive(Debug, Serialize, Deserialize)]
pub struct LedgerAttempt {
    /// Whose try counter.
    pub token: LedgerKey,
    /// The PIN; the parent hashes it under its own secret.
    #[serde(with = "super::pin_codec::required")]
    pub pin: Pin,
    /// Where it came from.
    pub origin: PinOrigin,
    /// It logged in before.
    pub known_good: bool,
    /// Whose attempt.
    pub instance: LedgerInstance,
}

/// A frame that cannot be written or understood.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// It is longer than [`FRAME_MAX`].
    #[error("a frame of {0} bytes is longer than {FRAME_MAX}")]
    TooLong(usize),
    /// Its bytes are not a value of the expected type.
    #[error("a frame could not be understood")]
    Malformed,
    /// The socket failed or ended.
    #[error("the connection to the module's process failed: {0}")]
    Io(#[from] io::Error),
}

/// Encodes `value` as one frame, its length included.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode<T: Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    // Serialised twice, first for its size: a buffer that never grows leaves no copy of a PIN behind.
    let size = postcard::experimental::serialized_size(value).map_err(|_| FrameError::Malformed)?;
    let length = u32::try_from(size).ok().filter(|_| size <= FRAME_MAX).ok_or(FrameError::TooLong(size))?;
    let mut frame = Zeroizing::new(vec![0; LENGTH_BYTES + size]);
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    postcard::to_slice(value, &mut frame[LENGTH_BYTES..]).map_err(|_| FrameError::Malformed)?;
    Ok(frame)
}

/// Writes `value` as one frame in one go. Blocks.
///
/// # Errors
/// [`FrameError`].
pub fn write<T: Serialize>(to: &mut impl Write, value: &T) -> Result<(), FrameError> {
    Ok(to.write_all(&encode(value)?)?)
}

/// Reads one frame; `None` at a clean end of the stream. Blocks.
///
/// # Errors
/// [`FrameError`]; the stream is of no use then.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut length = [0; LENGTH_BYTES];
    if let Err(error) = from.read_exact(&mut length) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error.into()) };
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_MAX {
        return Err(FrameError::TooLong(length));
    }
    let mut body = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut body)?;
    match postcard::take_from_bytes(&body) {
        Ok((value, [])) => Ok(Some(value)),
        _ => Err(FrameError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        digest::{Digest, SigningInput, ToSign},
        token::KeySelector,
    };
    use crate::token::command::CertificateOrder;

    fn sign(id: Option<Vec<u8>>, label: Option<String>, digest: [u8; 32], pin: Option<String>) -> Command {
        let digest = Digest::new(HashAlgorithm::Sha256, digest.to_vec()).unwrap();
        Command::Sign {
            key: KeySelector { id, label },
            to_sign: ToSign::new(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256), SigningInput::Digest(digest)).unwrap(),
            pin: pin.and_then(|pin| Pin::new(pin).ok()),
            mark: None,
        }
    }

    fn writing(id: Vec<u8>, label: String, certificate: Vec<u8>) -> Command {
        Command::WriteCertificate(CertificateOrder { id, label, certificate, chain: Vec::new(), replace: true })
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let signing = (any::<Option<Vec<u8>>>(), any::<Option<String>>(), any::<[u8; 32]>(), any::<Option<String>>())
            .prop_map(|(id, label, digest, pin)| sign(id, label, digest, pin));
        let writing =
            (any::<Vec<u8>>(), any::<String>(), any::<Vec<u8>>()).prop_map(|(id, label, certificate)| writing(id, label, certificate));
        prop_oneof![signing, writing, Just(()).prop_map(|()| Command::ListKeys), Just(()).prop_map(|()| Command::Logout)]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(calls in proptest::collection::vec((any::<u64>(), any::<u32>(), any_command()), 0..5)) {
            let frames: Vec<ToChild> = calls.into_iter().map(|(call, slot, command)| ToChild::Call { call, slot: SlotRef(slot), command }).collect();
            let mut wire = Vec::new();
            for frame in &frames {
                write(&mut wire, frame).unwrap();
            }
            let mut stream = wire.as_slice();
            for frame in &frames {
                let read: ToChild = read(&mut stream).unwrap().unwrap();
                prop_assert_eq!(encode(&read).unwrap(), encode(frame).unwrap());
            }
            prop_assert!(read::<ToChild>(&mut stream).unwrap().is_none());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in any::<Vec<u8>>()) {
            let framed = [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], &bytes].concat();
            let _ = read::<ToChild>(&mut bytes.as_slice());
            let _ = read::<ToChild>(&mut framed.as_slice());
            let _ = read::<ToParent>(&mut framed.as_slice());
        }

        #[test]
        fn a_frame_that_is_cut_off_is_no_frame(command in any_command(), cut in 0.0f64..1.0) {
            let whole = encode(&ToChild::Call { call: 1, slot: SlotRef(0), command }).unwrap();
            let kept = (whole.len() as f64 * cut) as usize;
            prop_assert!(!matches!(read::<ToChild>(&mut &whole[..kept]), Ok(Some(_))));
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_allocated() {
        let mut wire: &[u8] = &u32::MAX.to_le_bytes();
        assert!(matches!(read::<ToParent>(&mut wire), Err(FrameError::TooLong(_))));
        let long = writing(vec![], String::new(), vec![0; FRAME_MAX]);
        assert!(matches!(encode(&long), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn a_command_does_not_show_its_pin() {
        let command = sign(None, None, [0; 32], Some("73155".to_owned()));
        assert!(!format!("{command:?}").contains("73155"));
    }
}
