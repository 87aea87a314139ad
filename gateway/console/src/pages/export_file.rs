//! A file that is written while it is read: part by part, never more than one ahead of the reader.
//!
//! A part has its connection to Postgres only while it is fetched, at most as long as one statement may
//! take; a reader who is slow, or does not read at all, holds a place of the account and nothing else.

use std::future::Future;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;
use trueup_store::StoreError;

use crate::work_shares::WorkPlace;

/// Parts that are written before the reader asks for them.
const PARTS_AHEAD: usize = 1;

/// What an export is made of.
pub trait ExportParts: Send + 'static {
    /// The next rows as text; `None` after the last.
    fn next_part(&mut self) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send;
}

/// Writes the file in a task of its own: if the reader leaves while a statement runs, the account's place
/// is kept until the statement is over.
pub fn stream_export(mut export: impl ExportParts, place: WorkPlace) -> Body {
    let (parts, written) = mpsc::channel(PARTS_AHEAD);
    tokio::spawn(async move {
        while let Some(part) = export.next_part().await.transpose() {
            // The file breaks off where the database did: an error ends the transfer, visibly.
            let broken = part.is_err();
            if let Err(error) = &part {
                tracing::warn!(%error, "an export broke off");
            }
            if parts.send(part).await.is_err() || broken {
                break;
            }
        }
        drop(place);
    });
    Body::from_stream(stream::unfold(written, |mut written| async move {
        written.recv().await.map(|part| (part, written))
    }))
}
