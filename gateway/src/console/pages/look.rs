//! What is around every page: its frame, its headers, and how a page that cannot be shown says so.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use trueup_shared::store::StoreError;
use trueup_shared::store::people::Role;

use super::assets::ADDRESSES;
use super::session::Viewer;
use crate::console::api::Problem;

/// Nothing from elsewhere, nothing inline: a payload that got past the escaping would still not run.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

pub struct Person {
    pub account: String,
    pub email: String,
    pub role: &'static str,
}

pub struct Item {
    pub href: &'static str,
    pub name: &'static str,
}

pub struct Group {
    pub name: &'static str,
    pub items: Vec<Item>,
}

/// The frame's own contents; every template has one as `look`.
pub struct Look {
    pub title: String,
    /// The address of the navigation's entry that this page is of.
    pub nav: &'static str,
    pub person: Option<Person>,
    pub role: Role,
    pub csrf: String,
    pub theme: &'static str,
    pub notice: Option<&'static str>,
    pub css: &'static str,
    pub js: &'static str,
    pub icon: &'static str,
}

const GROUPS: [(&str, &[(&str, &str)]); 4] = [
    ("Monitor", &[("/events", "Recent events"), ("/calls", "Calls"), ("/revenue", "Revenue")]),
    (
        "Network",
        &[
            ("/publishers", "Publishers"),
            ("/buyers", "Buyers"),
            ("/campaigns", "Campaigns"),
            ("/assignments", "Assignments"),
        ],
    ),
    ("API & Webhooks", &[("/webhooks", "Webhooks"), ("/try", "Try a report"), ("/keys", "API keys")]),
    ("Account", &[("/people", "People"), ("/audit", "Audit log"), ("/account", "Your account")]),
];

impl Look {
    pub fn bare(title: impl Into<String>, theme: &'static str) -> Look {
        Look {
            title: title.into(),
            nav: "",
            person: None,
            role: Role::Viewer,
            csrf: String::new(),
            theme,
            notice: None,
            css: &ADDRESSES.css,
            js: &ADDRESSES.js,
            icon: &ADDRESSES.icon,
        }
    }

    pub fn of(viewer: &Viewer, title: impl Into<String>, nav: &'static str) -> Look {
        let person = Person {
            account: viewer.account.name.clone(),
            email: viewer.user.email.clone(),
            role: viewer.user.role.code(),
        };
        Look {
            nav,
            person: Some(person),
            role: viewer.user.role,
            csrf: viewer.csrf.clone(),
            notice: viewer.notice,
            ..Look::bare(title, viewer.theme)
        }
    }

    pub fn groups(&self) -> Vec<Group> {
        let item = |(href, name): &(&'static str, &'static str)| Item { href, name };
        GROUPS.iter().map(|(name, items)| Group { name, items: items.iter().map(item).collect() }).collect()
    }

    /// May this person change things? Buttons that would only answer "no" are not shown.
    pub fn operates(&self) -> bool {
        self.role >= Role::Operator
    }

    pub fn owns(&self) -> bool {
        self.role >= Role::Owner
    }
}

pub type Shown = Result<Response, Fault>;

pub fn page(template: &impl Template) -> Shown {
    match template.render() {
        Ok(html) => Ok(Html(html).into_response()),
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            Err(Fault::from(Problem::internal()))
        }
    }
}

pub fn page_with(status: StatusCode, template: &impl Template) -> Shown {
    page(template).map(|response| (status, response).into_response())
}

/// After a change: look at what it made, so that going back does not send the form again.
pub fn go(path: &str) -> Shown {
    Ok(Redirect::to(path).into_response())
}

/// Why a page is not shown.
#[derive(Debug)]
pub enum Fault {
    NotFound(&'static str),
    Forbidden(&'static str),
    Expired,
    TooMany,
    Said(StatusCode, String),
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Fault::Said(problem.status(), problem.detail().to_owned())
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

#[derive(Template)]
#[template(path = "fault.html")]
struct FaultPage {
    look: Look,
    text: String,
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let (status, title, text) = match self {
            Fault::NotFound(what) => {
                (StatusCode::NOT_FOUND, "Not found", format!("There is no such {what} in this account."))
            }
            Fault::Forbidden(text) => (StatusCode::FORBIDDEN, "Not allowed", text.to_owned()),
            Fault::Expired => (
                StatusCode::FORBIDDEN,
                "This form has expired",
                "It was made before you signed in (again), or not by this console. Go back, reload the page, and send it once more."
                    .to_owned(),
            ),
            Fault::TooMany => (
                StatusCode::TOO_MANY_REQUESTS,
                "Too many attempts",
                "Somebody tried to sign in too often. Wait a minute and try again.".to_owned(),
            ),
            Fault::Said(status, text) => (status, status.canonical_reason().unwrap_or("Error"), text),
        };
        let template = FaultPage { look: Look::bare(title, ""), text };
        let html = template.render().unwrap_or_else(|_| title.to_owned());
        (status, Html(html)).into_response()
    }
}

/// Laid around all pages.
pub async fn headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What is shown is one account's: no cache may keep it.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
