//! The user whom a page is shown to.

use trueup_store::accounts::Account;
use trueup_store::users::User;

use super::formatting::PageClock;
use crate::auth_context::AuthContext;

/// Who is signed in, and how their pages look.
#[derive(Debug, Clone)]
pub struct Viewer {
    pub user: User,
    pub account: Account,
    pub csrf: String,
    pub theme: &'static str,
    pub notice: Option<&'static str>,
    pub clock: PageClock,
    /// Rows that wait for somebody, as the menu says it; empty if there are none.
    pub open_rows: String,
}

impl Viewer {
    /// As the API and the audit log know who did something.
    pub fn auth_context(&self) -> AuthContext {
        AuthContext {
            account: self.account.clone(),
            actor: self.actor_name(),
            zone: self.clock.time_zone(),
        }
    }

    pub fn actor_name(&self) -> String {
        self.user.email.clone()
    }

    pub fn account_currency(&self) -> &str {
        &self.account.currency
    }
}
