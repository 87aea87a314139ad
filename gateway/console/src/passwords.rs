//! Passwords: argon2id, one at a time on a thread of its own, behind a queue that is bounded; and how often
//! one may be tried.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::sync::mpsc::{SyncSender, sync_channel};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use governor::{DefaultKeyedRateLimiter, Quota};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;
use trueup_ops::metrics::{self, LimitedWork};

/// As long as a person can remember, as short as is still hard to guess (characters).
pub const MIN_CHARS: usize = 12;
/// Argon2 reads it all; nobody's password is longer (bytes).
pub const MAX_BYTES: usize = 1_024;
/// Passwords that wait for the one that is being hashed, each for a tenth of a second: the last for two.
/// More are told to come again.
const WAITING: usize = 20;
/// Attempts for one e-mail address: this many at once, then one every twelve seconds.
const ATTEMPTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(5).expect("not 0");
const ATTEMPTS_AT_ONCE: NonZeroU32 = NonZeroU32::new(10).expect("not 0");
/// Attempts from one network, for whatever addresses: an office signs in at nine.
const NETWORK_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).expect("not 0");
const NETWORK_AT_ONCE: NonZeroU32 = NonZeroU32::new(60).expect("not 0");
/// Addresses that are remembered before the idle ones are forgotten.
const REMEMBERED: usize = 10_000;

/// What one hash works in. The allocator keeps such blocks when they are freed and does not give them out
/// again: ten hashes would hold ten times as much.
type HashMemory = Vec<Block>;
type Job = Box<dyn FnOnce(&mut HashMemory) + Send>;

/// One password at a time, on a thread of its own: each costs 19 MiB and a tenth of a second of a core.
static JOBS: LazyLock<SyncSender<Job>> = LazyLock::new(|| {
    let (jobs, queue) = sync_channel::<Job>(WAITING);
    std::thread::Builder::new()
        .name("passwords".to_owned())
        .spawn(move || {
            let mut memory = HashMemory::new();
            for job in queue {
                // Whoever waits for it sees that there is no result; the next has its turn.
                let _ = catch_unwind(AssertUnwindSafe(|| job(&mut memory)));
            }
        })
        .expect("the process may have one more thread");
    jobs
});
/// Compared with where nobody is known, so that the answer takes as long as for a wrong password.
static NOBODY: LazyLock<String> = LazyLock::new(|| {
    hash_now("nobody has this password", &mut HashMemory::new()).unwrap_or_default()
});

fn compute_digest(
    argon2: &Argon2<'_>,
    password: &str,
    salt: &[u8],
    memory: &mut HashMemory,
) -> Result<Output, DigestError> {
    let blocks = argon2.params().block_count();
    if memory.len() < blocks {
        memory.resize(blocks, Block::new());
    }
    let length = argon2.params().output_len();
    let mut digest = vec![0; length.unwrap_or(Params::DEFAULT_OUTPUT_LEN)];
    argon2.hash_password_into_with_memory(password.as_bytes(), salt, &mut digest, memory)?;
    Ok(Output::new(&digest)?)
}

fn hash_now(password: &str, memory: &mut HashMemory) -> Result<String, DigestError> {
    let (algorithm, version) = (Algorithm::default(), Version::default());
    let argon2 = Argon2::new(algorithm, version, Params::default());
    let mut salt = [0; Salt::RECOMMENDED_LENGTH];
    rand::fill(&mut salt);
    let digest = compute_digest(&argon2, password, &salt, memory)?;
    let hash = PasswordHash {
        algorithm: algorithm.ident(),
        version: Some(version.into()),
        params: ParamsString::try_from(argon2.params())?,
        salt: Some(Salt::new(&salt)?),
        hash: Some(digest),
    };
    Ok(hash.to_string())
}

/// Is it the hash of this password? Not if it is no hash.
fn is_hash_of(hash: &str, password: &str, memory: &mut HashMemory) -> bool {
    let Some((argon2, salt, known)) = parse_hash(hash) else {
        return false;
    };
    compute_digest(&argon2, password, &salt, memory)
        .is_ok_and(|digest| bool::from(digest.as_bytes().ct_eq(known.as_bytes())))
}

fn parse_hash(text: &str) -> Option<(Argon2<'static>, Salt, Output)> {
    let hash = PasswordHash::new(text).ok()?;
    let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
    let version = Version::try_from(hash.version?).ok()?;
    let params = Params::try_from(&hash).ok()?;
    Some((
        Argon2::new(algorithm, version, params),
        hash.salt?,
        hash.hash?,
    ))
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

/// Why a password was not hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// As many wait as may: come again.
    #[error("too many passwords are being checked just now; wait some seconds and try again")]
    Busy,
    /// A fault of ours, for the log.
    #[error(transparent)]
    Failed(#[from] DigestError),
}

/// What stood in the way of a digest.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    #[error("it ended without a result")]
    NoResult,
    #[error(transparent)]
    Argon2(#[from] argon2::Error),
    #[error(transparent)]
    Parameters(#[from] argon2::password_hash::Error),
    #[error(transparent)]
    Encoding(#[from] argon2::password_hash::phc::Error),
}

/// Runs the work when its turn has come, unless whoever asked has left by then.
async fn run_in_turn<T: Send + 'static>(
    work: impl FnOnce(&mut HashMemory) -> T + Send + 'static,
) -> Result<T, HashError> {
    let (answer, result) = oneshot::channel();
    let job = move |memory: &mut HashMemory| {
        if !answer.is_closed() {
            let _ = answer.send(work(memory));
        }
    };
    if JOBS.try_send(Box::new(job)).is_err() {
        metrics::console().refused_busy.inc(LimitedWork::Password);
        return Err(HashError::Busy);
    }
    result.await.map_err(|_| DigestError::NoResult.into())
}

pub async fn hash(password: String) -> Result<String, HashError> {
    let hashed = run_in_turn(move |memory| hash_now(&password, memory)).await?;
    Ok(hashed?)
}

/// Does the password belong to the hash? Without a hash: no, after as long.
pub async fn verify_password(password: String, hash: Option<String>) -> Result<bool, HashError> {
    if password.len() > MAX_BYTES {
        return Ok(false);
    }
    run_in_turn(move |memory| {
        let known = hash.is_some();
        let text = hash.unwrap_or_else(|| NOBODY.clone());
        is_hash_of(&text, &password, memory) && known
    })
    .await
}

/// Who tries to sign in.
pub enum SignInAttempt<'a> {
    /// From a browser in which this user has signed in before, by its id.
    Known {
        browser: &'a str,
    },
    Stranger {
        network: IpAddr,
        email: &'a str,
    },
}

/// How often a sign-in was tried. Who knows an e-mail address cannot guess for long, from however many places,
/// nor try many addresses from one place; and neither keeps anybody out of a browser that knows them.
pub struct Attempts {
    by_browser: DefaultKeyedRateLimiter<[u8; 32]>,
    by_email: DefaultKeyedRateLimiter<[u8; 32]>,
    by_network: DefaultKeyedRateLimiter<IpAddr>,
}

impl Default for Attempts {
    fn default() -> Self {
        let of_one = Quota::per_minute(ATTEMPTS_PER_MINUTE).allow_burst(ATTEMPTS_AT_ONCE);
        let of_network = Quota::per_minute(NETWORK_PER_MINUTE).allow_burst(NETWORK_AT_ONCE);
        Attempts {
            by_browser: DefaultKeyedRateLimiter::keyed(of_one),
            by_email: DefaultKeyedRateLimiter::keyed(of_one),
            by_network: DefaultKeyedRateLimiter::keyed(of_network),
        }
    }
}

fn digest_of(text: &str) -> [u8; 32] {
    Sha256::digest(text.trim().to_lowercase().as_bytes()).into()
}

/// True if there may be one more. What has been idle is forgotten where too much is remembered.
fn take_attempt<K: Hash + Eq + Clone>(limiter: &DefaultKeyedRateLimiter<K>, key: &K) -> bool {
    if limiter.len() > REMEMBERED {
        limiter.retain_recent();
    }
    limiter.check_key(key).is_ok()
}

impl Attempts {
    pub fn check_rate(&self, attempt: &SignInAttempt<'_>) -> bool {
        match attempt {
            SignInAttempt::Known { browser } => {
                take_attempt(&self.by_browser, &Sha256::digest(browser.as_bytes()).into())
            }
            SignInAttempt::Stranger { network, email } => {
                take_attempt(&self.by_network, network)
                    && take_attempt(&self.by_email, &digest_of(email))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHasher, PasswordVerifier};

    use super::*;

    /// Made by the argon2 crate's own hasher: what is stored stays valid.
    #[test]
    fn a_hash_fits_its_password_alone_whoever_made_it() {
        let mut memory = HashMemory::new();
        let stored = Argon2::default().hash_password(b"four random words");
        let stored = stored.expect("hashes").to_string();
        let ours = hash_now("four random words", &mut memory).expect("hashes");
        for hash in [&stored, &ours] {
            assert!(is_hash_of(hash, "four random words", &mut memory));
            assert!(!is_hash_of(hash, "four other words", &mut memory));
        }
        let checked = Argon2::default().verify_password(b"four random words", ours.as_str());
        assert!(checked.is_ok());
        assert!(!is_hash_of("no hash", "four random words", &mut memory));
        assert_eq!(memory.len(), Params::default().block_count());
    }

    #[test]
    fn an_address_and_a_network_are_slowed_down_and_no_known_browser() {
        let attempts = Attempts::default();
        let try_from = |last: u8, email: &str| {
            let network = IpAddr::from([203, 0, 113, last]);
            attempts.check_rate(&SignInAttempt::Stranger { network, email })
        };
        let passed = (0..50).filter(|_| try_from(1, "Ann@example.test")).count();
        assert!((10..=11).contains(&passed), "{passed}");
        assert!(
            !try_from(2, " ann@EXAMPLE.test "),
            "case, spaces and another network are no way around it"
        );
        assert!(try_from(2, "bob@example.test"));
        assert!(attempts.check_rate(&SignInAttempt::Known { browser: "of-ann" }));
        let sprayed = (0..100)
            .filter(|n| try_from(3, &format!("user-{n}@example.test")))
            .count();
        assert!((60..=61).contains(&sprayed), "{sprayed}");
    }
}
