//! Buyers and campaigns: things that have a name and nothing else to set.

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use jiff::Timestamp;
use trueup_store::archive::archived_ids;
use trueup_store::buyers::{self, Buyer};
use trueup_store::campaigns::{self, Campaign};
use trueup_store::{Client, IdPage, StoreError};
use uuid::Uuid;

use super::archive::Archived;
use super::form::Form;
use super::formatting::LocalTime;
use super::layout::{PageError, PageLayout, PageResult, page, page_with, redirect_to};
use super::viewer::Viewer;
use crate::api::Id;
use crate::app_state::App;
use crate::operations::named_records::{NamedRecord, create_record, rename_record};

const MOST: i64 = 500;

struct NamedRow {
    id: Uuid,
    name: String,
    made: LocalTime,
}

/// A name that was typed and not taken, and why.
#[derive(Default)]
pub struct RefusedName {
    pub fault: Option<String>,
    pub name: String,
    /// Only because there is one of this name: it may be made all the same.
    pub twin: bool,
}

impl RefusedName {
    fn of(name: &str, fault: String) -> RefusedName {
        RefusedName {
            fault: Some(fault),
            name: name.to_owned(),
            twin: false,
        }
    }
}

#[derive(Template)]
#[template(path = "named.html")]
struct NamedList {
    look: PageLayout,
    /// As in the address: `buyers`, `campaigns`.
    path: &'static str,
    one: &'static str,
    hint: &'static str,
    rows: Vec<NamedRow>,
    archived: bool,
    refused: RefusedName,
}

const PAGE: IdPage = IdPage {
    below: None,
    limit: MOST,
};

/// How the pages list one kind of named record.
trait Listed: NamedRecord + Archived {
    const TITLE: &'static str;
    const HINT: &'static str;
    const CREATED: &'static str;

    fn list(
        client: &Client,
        account_id: Uuid,
    ) -> impl Future<Output = Result<Vec<(Uuid, String, Timestamp)>, StoreError>> + Send;
}

impl Listed for Buyer {
    const TITLE: &'static str = "Buyers";
    const HINT: &'static str = "Who takes the calls and reports what was paid for them. A webhook that names a buyer matches only calls sold to them.";
    const CREATED: &'static str = "/buyers?done=buyer-created";

    async fn list(
        client: &Client,
        account_id: Uuid,
    ) -> Result<Vec<(Uuid, String, Timestamp)>, StoreError> {
        let found = buyers::list_buyers(client, account_id, PAGE).await?;
        Ok(found
            .into_iter()
            .map(|b| (b.id, b.name, b.created_at))
            .collect())
    }
}

impl Listed for Campaign {
    const TITLE: &'static str = "Campaigns";
    const HINT: &'static str =
        "What publishers send calls for. What each earns is set in an assignment.";
    const CREATED: &'static str = "/campaigns?done=campaign-created";

    async fn list(
        client: &Client,
        account_id: Uuid,
    ) -> Result<Vec<(Uuid, String, Timestamp)>, StoreError> {
        let found = campaigns::list_campaigns(client, account_id, PAGE).await?;
        Ok(found
            .into_iter()
            .map(|c| (c.id, c.name, c.created_at))
            .collect())
    }
}

async fn build_list<R: Listed>(
    app: &App,
    viewer: &Viewer,
    archived: bool,
    refused: RefusedName,
) -> Result<NamedList, PageError> {
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let gone = archived_ids(&client, R::WHAT, account).await?;
    let rows = R::list(&client, account)
        .await?
        .into_iter()
        .filter(|(id, ..)| gone.contains(id) == archived)
        .map(|(id, name, made)| NamedRow {
            id,
            name,
            made: viewer.clock.local_time(made),
        });
    Ok(NamedList {
        look: PageLayout::signed_in(viewer, R::TITLE, R::LIST),
        path: R::LIST.trim_start_matches('/'),
        one: R::NOUN,
        hint: R::HINT,
        rows: rows.collect(),
        archived,
        refused,
    })
}

/// Is `?archived=1` in the address?
pub fn wants_archived(uri: &Uri) -> bool {
    Form::parse(uri.query().unwrap_or_default().as_bytes()).is_on("archived")
}

async fn list_page<R: Listed>(app: &App, viewer: &Viewer, uri: &Uri) -> PageResult {
    let archived = wants_archived(uri);
    page(&build_list::<R>(app, viewer, archived, RefusedName::default()).await?)
}

pub async fn list_buyers(State(app): State<App>, viewer: Viewer, uri: Uri) -> PageResult {
    list_page::<Buyer>(&app, &viewer, &uri).await
}

pub async fn list_campaigns(State(app): State<App>, viewer: Viewer, uri: Uri) -> PageResult {
    list_page::<Campaign>(&app, &viewer, &uri).await
}

/// Names are no keys: two may be alike, but not by an oversight.
pub fn twin_of<'a>(
    form: &Form,
    noun: &str,
    mut names: impl Iterator<Item = &'a str>,
) -> Option<RefusedName> {
    let name = form.text("name");
    let known =
        !form.is_on("twin") && names.any(|known| known.to_lowercase() == name.to_lowercase());
    known.then(|| RefusedName {
        twin: true,
        ..RefusedName::of(name, format!("There is a {noun} of this name already"))
    })
}

/// Makes it, or says why the name is not taken.
pub async fn create_named<R: NamedRecord>(
    app: &App,
    viewer: &Viewer,
    form: &Form,
) -> Result<Result<R, RefusedName>, PageError> {
    let name = form.text("name");
    let result = match form.read_fields(&["name"]) {
        Ok(body) => create_record::<R>(app, &viewer.auth_context(), body).await,
        Err(bad) => Err(bad.into()),
    };
    match result {
        Ok(made) => Ok(Ok(made)),
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            Ok(Err(RefusedName::of(name, problem.detail().to_owned())))
        }
        Err(problem) => Err(problem.into()),
    }
}

async fn create<R: Listed>(app: &App, viewer: &Viewer, form: &Form) -> PageResult {
    let known = R::list(&app.pool.get().await?, viewer.account.id).await?;
    let names = known.iter().map(|(_, name, _)| name.as_str());
    let refused = match twin_of(form, R::NOUN, names) {
        Some(refused) => refused,
        None => match create_named::<R>(app, viewer, form).await? {
            Ok(_) => return redirect_to(R::CREATED),
            Err(refused) => refused,
        },
    };
    let list = build_list::<R>(app, viewer, false, refused).await?;
    page_with(StatusCode::UNPROCESSABLE_ENTITY, &list)
}

pub async fn create_buyer(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    create::<Buyer>(&app, &viewer, &form).await
}

pub async fn create_campaign(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    create::<Campaign>(&app, &viewer, &form).await
}

async fn rename<R: Listed>(app: &App, viewer: &Viewer, id: Uuid, form: &Form) -> PageResult {
    let result = match form.read_fields(&["name"]) {
        Ok(body) => rename_record::<R>(app, &viewer.auth_context(), id, body).await,
        Err(bad) => Err(bad.into()),
    };
    match result {
        Ok(_) => redirect_to(&format!("{}?done=saved", R::LIST)),
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            let fault = format!("Not renamed: {}", problem.detail());
            let refused = RefusedName {
                fault: Some(fault),
                ..RefusedName::default()
            };
            let list = build_list::<R>(app, viewer, false, refused).await?;
            page_with(StatusCode::UNPROCESSABLE_ENTITY, &list)
        }
        Err(problem) => Err(problem.into()),
    }
}

pub async fn rename_buyer(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    rename::<Buyer>(&app, &viewer, id, &form).await
}

pub async fn rename_campaign(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    rename::<Campaign>(&app, &viewer, id, &form).await
}
