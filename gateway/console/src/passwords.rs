//! Passwords: argon2id, off the runtime's threads, a few at a time; and how often one may be tried.

use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use governor::{DefaultKeyedRateLimiter, Quota};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

/// As long as a person can remember, as short as is still hard to guess (characters).
pub const MIN_CHARS: usize = 12;
/// Argon2 reads it all; nobody's password is longer (bytes).
pub const MAX_BYTES: usize = 1_024;
/// Each costs 19 MiB and a tenth of a second of a core: no flood of sign-ins may take the console down.
const AT_ONCE: usize = 2;
/// Attempts for one e-mail address: this many at once, then one every twelve seconds.
const ATTEMPTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(5).expect("not 0");
const ATTEMPTS_AT_ONCE: NonZeroU32 = NonZeroU32::new(10).expect("not 0");
/// Addresses that are remembered before the idle ones are forgotten.
const REMEMBERED: usize = 10_000;

static PERMITS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(AT_ONCE)));
/// Compared with where nobody is known, so that the answer takes as long as for a wrong password.
static NOBODY: LazyLock<String> =
    LazyLock::new(|| hash_now("nobody has this password").unwrap_or_default());

fn hash_now(password: &str) -> Result<String, String> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|e| e.to_string())
}

/// Why a new password is not taken.
pub fn password_fault(password: &str) -> Option<String> {
    if password.chars().count() < MIN_CHARS {
        return Some(format!(
            "a password has at least {MIN_CHARS} characters; four random words are a good one"
        ));
    }
    (password.len() > MAX_BYTES).then(|| format!("a password has at most {MAX_BYTES} bytes"))
}

pub async fn hash(password: String) -> Result<String, String> {
    let _permit = PERMITS.acquire().await;
    tokio::task::spawn_blocking(move || hash_now(&password))
        .await
        .map_err(|e| e.to_string())?
}

/// Does the password belong to the hash? Without a hash: no, after as long.
pub async fn verify_password(password: String, hash: Option<String>) -> bool {
    if password.len() > MAX_BYTES {
        return false;
    }
    let _permit = PERMITS.acquire().await;
    let checked = tokio::task::spawn_blocking(move || {
        let known = hash.is_some();
        let text = hash.unwrap_or_else(|| NOBODY.clone());
        let fits = PasswordHash::new(&text).is_ok_and(|hash| {
            Argon2::default()
                .verify_password(password.as_bytes(), &hash)
                .is_ok()
        });
        fits && known
    });
    checked.await.unwrap_or(false)
}

/// How often a sign-in was tried, by e-mail address: who knows the address cannot guess for long,
/// from however many places.
pub struct Attempts(DefaultKeyedRateLimiter<[u8; 32]>);

impl Default for Attempts {
    fn default() -> Self {
        let quota = Quota::per_minute(ATTEMPTS_PER_MINUTE).allow_burst(ATTEMPTS_AT_ONCE);
        Attempts(DefaultKeyedRateLimiter::keyed(quota))
    }
}

impl Attempts {
    pub fn check_rate(&self, email: &str) -> bool {
        if self.0.len() > REMEMBERED {
            self.0.retain_recent();
        }
        let key: [u8; 32] = Sha256::digest(email.trim().to_lowercase().as_bytes()).into();
        self.0.check_key(&key).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_slowed_down_and_no_other() {
        let attempts = Attempts::default();
        let passed = (0..50)
            .filter(|_| attempts.check_rate("Ann@example.test"))
            .count();
        assert!((10..=11).contains(&passed), "{passed}");
        assert!(
            !attempts.check_rate(" ann@EXAMPLE.test "),
            "case and spaces are no way around it"
        );
        assert!(attempts.check_rate("bob@example.test"));
    }
}
