//! Signs in turns with PKCS#11 modules, and prints how many signatures a second each makes: how much a wrapper costs.
//!
//! `overhead LABEL PIN SIGNATURES MODULE…`: the first P-256 key of the token with that label; the modules wrap the same one, or are it.
#![allow(clippy::print_stdout)]

use std::{error::Error, time::Instant};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::Mechanism,
    object::{Attribute, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    types::AuthPin,
};

const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [label, pin, signatures, modules @ ..] = &arguments[..] else { return Err("overhead LABEL PIN SIGNATURES MODULE…".into()) };
    let signatures: u32 = signatures.parse()?;
    for round in 1..=ROUNDS {
        for module in modules {
            let pkcs11 = Pkcs11::new(module)?;
            pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
            let (session, key) = open(&pkcs11, label, pin)?;
            let began = Instant::now();
            for number in 0..signatures {
                let mut digest = [0; 32];
                digest[..4].copy_from_slice(&number.to_le_bytes());
                session.sign(&Mechanism::Ecdsa, key, &digest)?;
            }
            println!("{round}  {:>8.0}/s  {module}", f64::from(signatures) / began.elapsed().as_secs_f64());
            drop(session);
            pkcs11.finalize()?;
        }
    }
    Ok(())
}

fn open(pkcs11: &Pkcs11, label: &str, pin: &str) -> Result<(Session, ObjectHandle), Box<dyn Error>> {
    let slots = pkcs11.get_slots_with_token()?;
    let labelled = slots.into_iter().find(|slot| pkcs11.get_token_info(*slot).is_ok_and(|info| info.label() == label));
    let session = pkcs11.open_ro_session(labelled.ok_or("no token with this label")?)?;
    session.login(UserType::User, Some(&AuthPin::from(pin)))?;
    let keys = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::EC)])?;
    Ok((session, *keys.first().ok_or("no key on an elliptic curve")?))
}
