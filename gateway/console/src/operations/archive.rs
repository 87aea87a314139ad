//! Buyers, publishers, campaigns and assignments that are no longer used: archived, and brought back.

use serde_json::json;
use trueup_store::archive::{self, Archivable};
use trueup_store::{TransactionName, audit_log};
use uuid::Uuid;

use super::commit_change;
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;

fn noun_of(what: Archivable) -> &'static str {
    match what {
        Archivable::Buyer => "buyer",
        Archivable::Publisher => "publisher",
        Archivable::Campaign => "campaign",
        Archivable::Assignment => "assignment",
    }
}

pub async fn set_archived(
    app: &App,
    operator: &AuthContext,
    what: Archivable,
    id: Uuid,
    archived: bool,
) -> Result<(), Problem> {
    let name = TransactionName::RecordsSetArchived;
    commit_change(&app.pool, name, operator.clone(), move |tx, operator| {
        Box::pin(async move {
            let account_id = operator.account_id();
            if !archive::set_archived(tx, what, account_id, id, archived).await? {
                return Err(Problem::not_found(noun_of(what)).into());
            }
            let action = if archived { "archive" } else { "restore" };
            let change = operator.change(action, noun_of(what), id, json!({}));
            audit_log::record_change(tx, change).await?;
            Ok(())
        })
    })
    .await
}
