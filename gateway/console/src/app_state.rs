//! What every handler of the console may use.

use std::sync::Arc;

use secrecy::SecretString;
use trueup_store::Pool;

use crate::passwords::Attempts;

/// The console as its handlers see it.
pub struct Console {
    pub pool: Pool,
    /// Without a slash at its end.
    pub public_url: String,
    pub admin_key: Option<SecretString>,
    pub attempts: Attempts,
}

pub type App = Arc<Console>;
