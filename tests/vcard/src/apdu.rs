//! The layer between the reader's APDUs and a card application: selection by AID, command chaining, and answers in several parts.

use std::{thread, time::Duration};

use apdu_app::{App, CommandView, Interface};
use iso7816::{Command, Instruction, Status};
use vpicc::VSmartCard;

/// The longest command, and the longest answer, in bytes: an RSA-4096 key with its certificate is shorter.
const BUFFER: usize = 7609;
/// The longest answer to a short APDU.
const SHORT_MAX: usize = 256;
/// `P1` of a SELECT that names an application.
const BY_NAME: u8 = 0x04;

/// One application as a whole card.
pub struct ApduLayer<A> {
    app: A,
    /// Time that each APDU takes longer.
    delay: Duration,
    /// The parts of a chained command that have come.
    chained: Option<Command<BUFFER>>,
    /// What is left of an answer, for GET RESPONSE.
    rest: Vec<u8>,
}

impl<A: App> ApduLayer<A> {
    pub fn new(app: A, delay: Duration) -> Self {
        Self { app, delay, chained: None, rest: Vec::new() }
    }

    fn answer(&mut self, apdu: &[u8]) -> Result<Vec<u8>, Status> {
        let part = CommandView::try_from(apdu).map_err(|_| Status::WrongLength)?;
        if part.instruction() == Instruction::GetResponse {
            return Ok(self.next_part(part.expected().max(1)));
        }
        self.rest.clear();
        let mut command = self.chained.take().map_or_else(
            || part.to_owned(),
            |mut begun| begun.extend_from_command_view(part).map(|()| begun).map_err(|_| iso7816::command::FromSliceError::TooLong),
        );
        if let Ok(command) = &mut command
            && part.class().chain().not_the_last()
        {
            self.chained = Some(command.clone());
            return Ok(sw(Status::Success));
        }
        let command = command.map_err(|_| Status::NotEnoughMemory)?;
        self.rest = self.call(command.as_view())?;
        // An answer to a command that asks for none still goes out, as much as a short one may hold.
        let room = if part.extended { part.expected() } else { part.expected().min(SHORT_MAX) };
        Ok(self.next_part(if room == 0 { SHORT_MAX } else { room }))
    }

    fn call(&mut self, command: CommandView<'_>) -> Result<Vec<u8>, Status> {
        let mut reply = heapless::Vec::<u8, BUFFER>::new();
        if command.instruction() == Instruction::Select && command.p1 == BY_NAME {
            if !self.app.aid().matches(command.data()) {
                return Err(Status::NotFound);
            }
            self.app.select(Interface::Contact, command, reply.as_mut_view())?;
        } else {
            self.app.call(Interface::Contact, command, reply.as_mut_view())?;
        }
        Ok(reply.to_vec())
    }

    /// The next bytes of the answer, at most `room`, and how much there is still to come.
    fn next_part(&mut self, room: usize) -> Vec<u8> {
        let mut part: Vec<u8> = self.rest.drain(..room.min(self.rest.len())).collect();
        let status = match self.rest.len() {
            0 => Status::Success,
            left => Status::MoreAvailable(u8::try_from(left).unwrap_or(0)),
        };
        part.extend(sw(status));
        part
    }

    fn forget(&mut self) {
        self.app.deselect();
        self.chained = None;
        self.rest.clear();
    }
}

impl<A: App> VSmartCard for ApduLayer<A> {
    fn power_off(&mut self) {
        self.forget();
    }

    fn reset(&mut self) {
        self.forget();
    }

    fn execute(&mut self, apdu: &[u8]) -> Vec<u8> {
        thread::sleep(self.delay);
        self.answer(apdu).unwrap_or_else(sw)
    }
}

fn sw(status: Status) -> Vec<u8> {
    <[u8; 2]>::from(status).to_vec()
}
