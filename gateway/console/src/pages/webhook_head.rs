//! The head of every page about one webhook.

use axum::http::StatusCode;
use uuid::Uuid;

use super::formatting::LocalTime;
use super::layout::PageError;
use super::viewer::Viewer;
use crate::operations::webhooks::ShownWebhook;
use crate::problem::Problem;

/// What the head shows.
pub struct Head {
    pub id: Uuid,
    pub name: String,
    pub enabled: bool,
    pub archived: Option<LocalTime>,
    /// The tab that is shown.
    pub tab: &'static str,
}

impl Head {
    pub fn from_webhook(webhook: &ShownWebhook, viewer: &Viewer, tab: &'static str) -> Head {
        Head {
            id: webhook.id,
            name: webhook.settings.name.clone(),
            enabled: webhook.settings.enabled,
            archived: webhook.archived_at.map(|at| viewer.clock.local_time(at)),
            tab,
        }
    }
}

/// Another account's webhook is as good as none.
pub fn not_found(problem: Problem) -> PageError {
    if problem.status() == StatusCode::NOT_FOUND {
        PageError::NotFound("webhook")
    } else {
        problem.into()
    }
}
