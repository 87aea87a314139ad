//! The buttons that archive what is no longer used, and bring it back; and what lists leave out because of it.

use axum::extract::State;
use trueup_store::archive::{Archivable, archived_ids};
use trueup_store::assignments::Assignment;
use trueup_store::buyers::Buyer;
use trueup_store::campaigns::Campaign;
use trueup_store::publishers::Publisher;
use trueup_store::{Client, StoreError};
use uuid::Uuid;

use super::layout::{PageError, PageResult, redirect_to};
use super::viewer::Viewer;
use crate::api::Id;
use crate::app_state::App;
use crate::operations::archive::set_archived;

/// A kind of record that can be archived, and the address of its list.
pub trait Archived {
    const WHAT: Archivable;
    const LIST: &'static str;
}

macro_rules! archived {
    ($($record:ident: $what:ident in $list:literal,)*) => {$(
        impl Archived for $record {
            const WHAT: Archivable = Archivable::$what;
            const LIST: &'static str = $list;
        }
    )*};
}

archived! {
    Buyer: Buyer in "/buyers",
    Campaign: Campaign in "/campaigns",
    Publisher: Publisher in "/publishers",
    Assignment: Assignment in "/assignments",
}

async fn set<R: Archived>(app: &App, viewer: &Viewer, id: Uuid, archived: bool) -> PageResult {
    let result = set_archived(app, &viewer.auth_context(), R::WHAT, id, archived).await;
    match result {
        Ok(()) if archived => redirect_to(&format!("{}?done=out-of-use", R::LIST)),
        Ok(()) => redirect_to(&format!("{}?done=restored", R::LIST)),
        Err(problem) => Err(PageError::from(problem)),
    }
}

pub async fn archive<R: Archived>(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
) -> PageResult {
    set::<R>(&app, &viewer, id, true).await
}

pub async fn restore<R: Archived>(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
) -> PageResult {
    set::<R>(&app, &viewer, id, false).await
}

/// Leaves out of a choice what is archived, but for what is chosen already.
pub async fn retain_in_use(
    client: &Client,
    account_id: Uuid,
    what: Archivable,
    names: &mut Vec<(Uuid, String)>,
    chosen: Option<Uuid>,
) -> Result<(), StoreError> {
    let archived = archived_ids(client, what, account_id).await?;
    names.retain(|(id, _)| Some(*id) == chosen || !archived.contains(id));
    Ok(())
}
