//! What every handler of the console may use.

use std::sync::Arc;

use secrecy::SecretString;
use trueup_store::Pool;

use crate::ceilings::Ceilings;
use crate::passwords::Attempts;
use crate::work_shares::WorkShares;

/// The console as its handlers see it.
pub struct Console {
    /// For quick work: pages, settings, actions.
    pub pool: Pool,
    /// For reads of what an account has kept.
    pub long_pool: Pool,
    /// What each account has of the two.
    pub shares: WorkShares,
    /// Without a slash at its end.
    pub public_url: String,
    pub admin_key: Option<SecretString>,
    pub attempts: Attempts,
    /// What the operator lets an account have.
    pub ceilings: Ceilings,
}

pub type App = Arc<Console>;
