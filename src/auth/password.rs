//! Passwords of operators: argon2id, on threads of their own and a few at a time.
//!
//! Invariants: a password is wiped when it is dropped and shows nothing; hashing never runs on an event loop, and no more than
//! [`AT_ONCE`] are under way, each with [`MEMORY_KIB`] of memory; whoever finds no place in the queue is told at once.

use std::{fmt, sync::Arc};

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version,
    password_hash::{PasswordHash as Phc, SaltString},
};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::api_key::{RandomUnavailable, letters_and_digits};
use crate::domain::operator::PasswordHash;

/// The fewest characters of a new password.
pub const PASSWORD_MIN: usize = 12;
/// The most bytes of a password.
pub const PASSWORD_MAX: usize = 256;
/// How many letters and digits a password has that the gateway makes: 119 bits.
const GENERATED_LEN: usize = 20;

/// Memory of one hash, in KiB (OWASP's first choice for argon2id).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Hashes under way at once.
const AT_ONCE: usize = 2;
/// Those that wait for their turn.
const WAITING_MAX: usize = 16;
const SALT_LEN: usize = 16;

/// A password. No `Clone`, `Display` or `Serialize`; `Debug` shows nothing; the memory is wiped when it is dropped.
pub struct Password(SecretString);

/// A text that is no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// It is too short for a new one.
    #[error("a password has at least {PASSWORD_MIN} characters")]
    Short,
    /// It is too long.
    #[error("a password has at most {PASSWORD_MAX} bytes")]
    Long,
}

impl Password {
    /// Takes a text that somebody typed to log in.
    ///
    /// # Errors
    /// [`PasswordError::Long`].
    pub fn typed(text: &str) -> Result<Self, PasswordError> {
        if text.len() > PASSWORD_MAX { Err(PasswordError::Long) } else { Ok(Self(SecretString::from(text))) }
    }

    /// Takes a text that is to be a new password.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn chosen(text: &str) -> Result<Self, PasswordError> {
        if text.chars().count() < PASSWORD_MIN { Err(PasswordError::Short) } else { Self::typed(text) }
    }

    /// Makes a new one, to be shown once.
    ///
    /// # Errors
    /// [`RandomUnavailable`].
    pub fn generate() -> Result<Self, RandomUnavailable> {
        Ok(Self(SecretString::from(letters_and_digits(GENERATED_LEN)?.as_str())))
    }

    /// The password in clear: to be shown once to whoever is to use it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Why a password was neither hashed nor checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Too many are being checked.
    #[error("too many passwords are being checked; try again in a moment")]
    Busy,
    /// There is no random salt, or no memory.
    #[error("the system has no random numbers or no memory for a password's hash")]
    Unavailable,
}

/// Hashes and checks passwords.
pub(super) struct Hasher {
    turns: Arc<Semaphore>,
    places: Semaphore,
    /// What is checked in place of an account that there is not, so that the time says nothing.
    decoy: PasswordHash,
}

impl Hasher {
    pub(super) fn new() -> Self {
        // Of no password: its digest is all zeros. Checking against it takes as long as against any other.
        let decoy = format!(
            "$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        );
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), places: Semaphore::new(AT_ONCE + WAITING_MAX), decoy: PasswordHash::new(decoy) }
    }

    pub(super) async fn hash(&self, password: Password) -> Result<PasswordHash, HashError> {
        self.work(move || {
            let mut salt = [0; SALT_LEN];
            SystemRandom::new().fill(&mut salt).map_err(|_| HashError::Unavailable)?;
            let salt = SaltString::encode_b64(&salt).map_err(|_| HashError::Unavailable)?;
            let hash = argon2()?.hash_password(password.reveal().as_bytes(), &salt).map_err(|_| HashError::Unavailable)?;
            Ok(PasswordHash::new(hash.to_string()))
        })
        .await
    }

    /// Whether it is the password; without a hash it is not, and takes as long to find out.
    pub(super) async fn verify(&self, password: Password, hash: Option<PasswordHash>) -> Result<bool, HashError> {
        let (known, hash) = (hash.is_some(), hash.unwrap_or_else(|| self.decoy.clone()));
        self.work(move || {
            // Parameters are those of the hash, so that older ones can still be checked.
            let parsed = Phc::new(hash.as_str()).map_err(|_| HashError::Unavailable)?;
            Ok(argon2()?.verify_password(password.reveal().as_bytes(), &parsed).is_ok() && known)
        })
        .await
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T, HashError> + Send + 'static) -> Result<T, HashError> {
        let _place = self.places.try_acquire().map_err(|_| HashError::Busy)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| HashError::Busy)?;
        let done = spawn_blocking(move || {
            // Kept by the work itself: whoever asked may be gone before it is done.
            let _turn = turn;
            work()
        });
        done.await.unwrap_or(Err(HashError::Unavailable))
    }
}

fn argon2() -> Result<Argon2<'static>, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| HashError::Unavailable)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_and_by_nothing_else() {
        let hasher = Hasher::new();
        let hash = hasher.hash(Password::chosen("correct horse battery").unwrap()).await.unwrap();
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.as_str());
        let check = async |text: &str, hash: Option<&PasswordHash>| hasher.verify(Password::typed(text).unwrap(), hash.cloned()).await;
        assert_eq!(check("correct horse battery", Some(&hash)).await, Ok(true));
        assert_eq!(check("correct horse batterz", Some(&hash)).await, Ok(false));
        assert_eq!(check("", Some(&hash)).await, Ok(false));
        assert_eq!(check("correct horse battery", None).await, Ok(false));
        let again = hasher.hash(Password::chosen("correct horse battery").unwrap()).await.unwrap();
        assert_ne!(hash.as_str(), again.as_str());
    }

    #[tokio::test]
    async fn beyond_the_queue_the_answer_comes_at_once() {
        let hasher = Hasher::new();
        let _all = hasher.places.try_acquire_many(u32::try_from(AT_ONCE + WAITING_MAX).unwrap()).unwrap();
        assert_eq!(hasher.verify(Password::typed("x").unwrap(), None).await, Err(HashError::Busy));
    }

    #[test]
    fn a_password_has_a_least_and_a_greatest_length_and_shows_nothing() {
        assert_eq!(Password::chosen("elevenchars").err(), Some(PasswordError::Short));
        assert_eq!(Password::chosen(&"x".repeat(PASSWORD_MAX + 1)).err(), Some(PasswordError::Long));
        assert_eq!(format!("{:?}", Password::chosen("twelve chars").unwrap()), "Password(…)");
        assert_eq!(Password::generate().unwrap().reveal().len(), GENERATED_LEN);
    }
}
