//! The APDU layer over an application that only echoes, and the two real applications over it.

use std::time::Duration;

use apdu_app::{App, CommandView, Interface};
use heapless::VecView;
use iso7816::{Aid, Status};
use vpicc::VSmartCard;

use crate::{
    apdu::ApduLayer,
    cards::{Kind, Memory, with_card},
};

const OK: [u8; 2] = [0x90, 0x00];

/// Answers every command with its own data, as often as P2 says.
struct Echo;

impl iso7816::App for Echo {
    fn aid(&self) -> Aid {
        Aid::new_truncatable(&[0xd2, 0x76, 1, 2, 3, 4], 5)
    }
}

impl App for Echo {
    fn select(&mut self, _: Interface, _: CommandView<'_>, _: &mut VecView<u8>) -> iso7816::Result {
        Ok(())
    }

    fn deselect(&mut self) {}

    fn call(&mut self, _: Interface, command: CommandView<'_>, reply: &mut VecView<u8>) -> iso7816::Result {
        for _ in 0..command.p2 {
            reply.extend_from_slice(command.data()).map_err(|_| Status::NotEnoughMemory)?;
        }
        Ok(())
    }
}

fn echo() -> ApduLayer<Echo> {
    ApduLayer::new(Echo, Duration::ZERO)
}

#[test]
fn only_the_cards_own_application_is_selected() {
    let mut card = echo();
    assert_eq!(card.execute(&[0, 0xa4, 4, 0, 5, 0xd2, 0x76, 1, 2, 3]), OK);
    assert_eq!(card.execute(&[0, 0xa4, 4, 0, 5, 0xa0, 0, 0, 3, 8]), [0x6a, 0x82]);
}

#[test]
fn a_chained_command_is_put_together() {
    let mut card = echo();
    assert_eq!(card.execute(&[0x10, 0xda, 0, 1, 2, 1, 2]), OK);
    assert_eq!(card.execute(&[0x00, 0xda, 0, 1, 2, 3, 4]), [1, 2, 3, 4, 0x90, 0x00]);
    assert_eq!(card.execute(&[0x00, 0xda, 0, 1, 1, 5]), [5, 0x90, 0x00]);
}

#[test]
fn a_long_answer_comes_in_parts() {
    let mut card = echo();
    let mut ask = vec![0, 0xca, 0, 3, 100];
    ask.extend(0..100);
    let first = card.execute(&ask);
    assert_eq!((first.len(), &first[256..]), (258, &[0x61, 44][..]));
    let rest = card.execute(&[0, 0xc0, 0, 0, 0]);
    assert_eq!((rest.len(), &rest[44..]), (46, &OK[..]));
    assert_eq!(rest[..44], (56..100).collect::<Vec<u8>>());
}

#[test]
fn a_reset_forgets_a_command_that_was_begun() {
    let mut card = echo();
    assert_eq!(card.execute(&[0x10, 0xda, 0, 1, 1, 1]), OK);
    card.reset();
    assert_eq!(card.execute(&[0x00, 0xda, 0, 1, 1, 2]), [2, 0x90, 0x00]);
}

#[test]
fn what_is_no_apdu_is_refused() {
    assert_eq!(echo().execute(&[0, 0xda]), [0x67, 0x00]);
}

/// The answers to these APDUs, from the card whose state is in `directory`.
fn talk(kind: Kind, directory: &std::path::Path, apdus: &[&[u8]]) -> Vec<Vec<u8>> {
    let memory = Memory::in_files(&directory.join("card")).expect("a card");
    with_card(kind, memory, Duration::ZERO, |card| apdus.iter().map(|apdu| card.execute(apdu)).collect())
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

const SELECT_OPENPGP: &[u8] = &[0, 0xa4, 4, 0, 6, 0xd2, 0x76, 0, 1, 0x24, 1];
const SELECT_PIV: &[u8] = &[0, 0xa4, 4, 0, 9, 0xa0, 0, 0, 3, 8, 0, 0, 0x10, 0];

#[test]
fn a_card_is_the_same_one_when_it_is_put_back() {
    let directory = directory();
    let wrong_pin = [&[0, 0x20, 0, 0x81, 6][..], b"654321"].concat();
    let status: &[u8] = &[0, 0xca, 0, 0xc4, 0];
    let number: &[u8] = &[0, 0xca, 0, 0x4f, 0];
    let before = talk(Kind::OpenPgp, directory.path(), &[SELECT_OPENPGP, status, &wrong_pin, number]);
    assert_eq!((before[0].as_slice(), before[1][4]), (&OK[..], 3));
    let after = talk(Kind::OpenPgp, directory.path(), &[SELECT_OPENPGP, status, number]);
    assert_eq!(after[1][4], 2, "the wrong PIN is remembered");
    assert_eq!(after[2], before[3], "the number is the same");
}

#[test]
fn two_cards_have_two_numbers() {
    let number: &[u8] = &[0, 0xca, 0, 0x4f, 0];
    let of = |directory: tempfile::TempDir| talk(Kind::OpenPgp, directory.path(), &[SELECT_OPENPGP, number]).remove(1);
    assert_ne!(of(directory()), of(directory()));
}

#[test]
fn a_piv_card_counts_wrong_pins() {
    let wrong_pin = [&[0, 0x20, 0, 0x80, 8][..], b"654321\xff\xff"].concat();
    let answers = talk(Kind::Piv, directory().path(), &[SELECT_PIV, &wrong_pin, &wrong_pin]);
    assert_eq!(answers[0][answers[0].len() - 2..], OK);
    assert_eq!(answers[1..], [vec![0x63, 0xc2], vec![0x63, 0xc1]]);
}

#[test]
fn a_file_of_another_kind_is_no_card() {
    let directory = directory();
    std::fs::write(directory.path().join("card"), "something else").expect("a file");
    assert!(Memory::in_files(&directory.path().join("card")).is_err());
}
