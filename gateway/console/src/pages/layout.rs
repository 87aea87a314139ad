//! What is around every page: its frame, its headers, and how a page that cannot be shown says so.

use askama::Template;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Redirect, Response};
use trueup_store::StoreError;
use trueup_store::users::UserRole;

use super::assets::ADDRESSES;
use super::viewer::Viewer;
use crate::client_network::over_tls;
use crate::passwords::HashError;
use crate::problem::{Problem, retry_after};
use crate::request_fields::BadFields;

/// Nothing from elsewhere, nothing inline: a payload that got past the escaping would still not run.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// A year in which a browser that came by TLS comes by nothing else.
const ONLY_TLS: &str = "max-age=31536000";

pub struct SignedInUser {
    pub account: String,
    pub email: String,
    pub role: &'static str,
}

impl SignedInUser {
    /// What stands where a face would.
    pub fn first_letter(&self) -> String {
        self.account
            .chars()
            .find(|c| c.is_alphanumeric())
            .unwrap_or('T')
            .to_string()
    }
}

pub struct MenuItem {
    pub href: &'static str,
    pub name: &'static str,
    /// The path of its picture, in a square of 16.
    pub icon: &'static str,
    /// What waits there.
    pub count: String,
}

pub struct MenuGroup {
    pub name: &'static str,
    pub items: Vec<MenuItem>,
}

/// The frame's own contents; every template has one as `look`.
pub struct PageLayout {
    pub title: String,
    /// The address of the navigation's entry that this page is of.
    pub nav: &'static str,
    pub user: Option<SignedInUser>,
    pub role: UserRole,
    pub csrf: String,
    pub theme: &'static str,
    /// The zone of every time on the page, and the account's.
    pub zone: String,
    pub account_zone: String,
    /// Rows that wait in the inbox.
    pub open_rows: String,
    pub notice: Option<&'static str>,
    pub css: &'static str,
    pub js: &'static str,
    pub icon: &'static str,
}

/// Address, name, and the path of its picture.
type MenuEntry = (&'static str, &'static str, &'static str);

/// The menu's entry that says how much waits there.
const INBOX: &str = "/inbox";

const GROUPS: [(&str, &[MenuEntry]); 4] = [
    (
        "Monitor",
        &[
            (
                INBOX,
                "Inbox",
                "M2 9.5 4 3h8l2 6.5v3.5H2zM2 9.5h3.5c0 1.4 1.1 2.2 2.5 2.2s2.5-.8 2.5-2.2H14",
            ),
            ("/events", "Recent events", "M1.5 8h3l2-5 3 10 2-5h3"),
            (
                "/calls",
                "Calls",
                "M3.2 2.5h2.3l1.2 3-1.6 1.2a8 8 0 0 0 4.2 4.2l1.2-1.6 3 1.2v2.3a1 1 0 0 1-1 1A10.3 10.3 0 0 1 2.2 3.5a1 1 0 0 1 1-1z",
            ),
            (
                "/revenue",
                "Revenue",
                "M2.5 13.5v-4M6.2 13.5v-8M9.8 13.5v-6M13.5 13.5v-11",
            ),
        ],
    ),
    (
        "Network",
        &[
            (
                "/publishers",
                "Publishers",
                "M6 7.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5zM1.5 13.5c0-2.5 2-4 4.5-4s4.5 1.5 4.5 4M10.8 2.8a2.5 2.5 0 0 1 0 4.4M12.2 9.9c1.5.5 2.3 1.8 2.3 3.6",
            ),
            (
                "/buyers",
                "Buyers",
                "M2 5h12v8.5H2zM5.5 5V3.2a.7.7 0 0 1 .7-.7h3.6a.7.7 0 0 1 .7.7V5M2 8.8h12",
            ),
            (
                "/campaigns",
                "Campaigns",
                "M2.5 6.5v3l8.5 3.5V3zM11 6.2a2 2 0 0 1 2 1.8 2 2 0 0 1-2 1.8M4.5 10.4l.8 3.1h1.9l-.9-2.4",
            ),
            (
                "/assignments",
                "Assignments",
                "M2.5 4.5h6M11.8 4.5h1.7M2.5 11.5h1.7M7.8 11.5h5.7M10.2 2.9v3.2M6 9.9v3.2",
            ),
        ],
    ),
    (
        "API & Webhooks",
        &[
            (
                "/webhooks",
                "Webhooks",
                "M9.5 2.5h3a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1h-3M2.5 8h7M6.8 5.2 9.6 8l-2.8 2.8",
            ),
            (
                "/try",
                "Try a report",
                "M6 2.5h4M6.8 2.5v4L3 12.2a.9.9 0 0 0 .8 1.3h8.4a.9.9 0 0 0 .8-1.3L9.2 6.5v-4M4.8 10h6.4",
            ),
            (
                "/keys",
                "API keys",
                "M9.8 8.2a3.2 3.2 0 1 0-2-2L2.5 11.5v2h2.2v-1.7h1.7v-1.7h1.5zM11 5h.01",
            ),
        ],
    ),
    (
        "Account",
        &[
            (
                "/users",
                "Users",
                "M8 8a2.8 2.8 0 1 0 0-5.6A2.8 2.8 0 0 0 8 8zM2.8 13.8c.4-2.7 2.5-4 5.2-4s4.8 1.3 5.2 4",
            ),
            (
                "/audit",
                "Audit log",
                "M8 14a6 6 0 1 0 0-12 6 6 0 0 0 0 12zM8 4.8V8l2.2 1.6",
            ),
            (
                "/account",
                "Your account",
                "M8 10.2a2.2 2.2 0 1 0 0-4.4 2.2 2.2 0 0 0 0 4.4zM8 1.8v1.6M8 12.6v1.6M1.8 8h1.6M12.6 8h1.6M3.6 3.6l1.2 1.2M11.2 11.2l1.2 1.2M3.6 12.4l1.2-1.2M11.2 4.8l1.2-1.2",
            ),
        ],
    ),
];

impl PageLayout {
    pub fn signed_out(title: impl Into<String>, theme: &'static str) -> PageLayout {
        PageLayout {
            title: title.into(),
            nav: "",
            user: None,
            role: UserRole::Viewer,
            csrf: String::new(),
            theme,
            zone: String::new(),
            account_zone: String::new(),
            open_rows: String::new(),
            notice: None,
            css: &ADDRESSES.css,
            js: &ADDRESSES.js,
            icon: &ADDRESSES.icon,
        }
    }

    pub fn signed_in(viewer: &Viewer, title: impl Into<String>, nav: &'static str) -> PageLayout {
        let user = SignedInUser {
            account: viewer.account.name.clone(),
            email: viewer.user.email.clone(),
            role: viewer.user.role.code(),
        };
        PageLayout {
            nav,
            user: Some(user),
            role: viewer.user.role,
            csrf: viewer.csrf.clone(),
            notice: viewer.notice,
            zone: viewer.clock.name().to_owned(),
            account_zone: viewer.account.time_zone.clone(),
            open_rows: viewer.open_rows.clone(),
            ..PageLayout::signed_out(title, viewer.theme)
        }
    }

    pub fn menu_groups(&self) -> Vec<MenuGroup> {
        let item = |(href, name, icon): &MenuEntry| MenuItem {
            href,
            name,
            icon,
            count: match *href {
                INBOX => self.open_rows.clone(),
                _ => String::new(),
            },
        };
        GROUPS
            .iter()
            .map(|(name, items)| MenuGroup {
                name,
                items: items.iter().map(item).collect(),
            })
            .collect()
    }

    /// May this user change things? Buttons that would only answer "no" are not shown.
    pub fn can_operate(&self) -> bool {
        self.role >= UserRole::Operator
    }

    pub fn is_owner(&self) -> bool {
        self.role >= UserRole::Owner
    }
}

pub type PageResult = Result<Response, PageError>;

pub fn page(template: &impl Template) -> PageResult {
    match template.render() {
        Ok(html) => Ok(Html(html).into_response()),
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            Err(PageError::from(Problem::internal()))
        }
    }
}

pub fn page_with(status: StatusCode, template: &impl Template) -> PageResult {
    page(template).map(|response| (status, response).into_response())
}

/// After a change: look at what it made, so that going back does not send the form again.
pub fn redirect_to(path: &str) -> PageResult {
    Ok(Redirect::to(path).into_response())
}

/// Why a page is not shown.
#[derive(Debug)]
pub enum PageError {
    NotFound(&'static str),
    Forbidden(&'static str),
    Expired,
    TooMany,
    Said(StatusCode, String),
}

impl From<Problem> for PageError {
    fn from(problem: Problem) -> Self {
        PageError::Said(problem.status(), problem.detail().to_owned())
    }
}

impl From<BadFields> for PageError {
    fn from(bad: BadFields) -> Self {
        Problem::from(bad).into()
    }
}

impl From<StoreError> for PageError {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

impl From<HashError> for PageError {
    fn from(error: HashError) -> Self {
        Problem::from(error).into()
    }
}

#[derive(Template)]
#[template(path = "fault.html")]
struct FaultPage {
    look: PageLayout,
    text: String,
}

/// What happened, in words for somebody who has never read of HTTP.
fn title_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST => "Not saved",
        StatusCode::CONFLICT => "Not possible now",
        StatusCode::PAYLOAD_TOO_LARGE => "Too much at once",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "Try again in a moment",
        _ => "It did not work",
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (status, title, text) = match self {
            PageError::NotFound(what) => {
                (StatusCode::NOT_FOUND, "Not found", format!("There is no such {what} in this account."))
            }
            PageError::Forbidden(text) => (StatusCode::FORBIDDEN, "Not allowed", text.to_owned()),
            PageError::Expired => (
                StatusCode::FORBIDDEN,
                "This form has expired",
                "It was made before you signed in (again), or not by this console. Go back, reload the page, and send it once more."
                    .to_owned(),
            ),
            PageError::TooMany => (
                StatusCode::TOO_MANY_REQUESTS,
                "Too many attempts",
                "Somebody tried to sign in too often. Wait a minute and try again.".to_owned(),
            ),
            PageError::Said(status, text) => (status, title_of(status), text),
        };
        let template = FaultPage {
            look: PageLayout::signed_out(title, ""),
            text,
        };
        let html = template.render().unwrap_or_else(|_| title.to_owned());
        let mut response = (status, Html(html)).into_response();
        if let Some(seconds) = retry_after(status) {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// Laid around all pages.
pub async fn add_security_headers(request: Request, next: Next) -> Response {
    let is_over_tls = over_tls(request.headers());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_over_tls {
        let value = HeaderValue::from_static(ONLY_TLS);
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    // What is shown is one account's: no cache may keep it.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
