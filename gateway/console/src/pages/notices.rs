//! What a page says after a change: a closed set of sentences, asked for by `?done=` in its address, so
//! that no text of an address is ever shown.

use axum::http::Uri;

const SENTENCES: &[(&str, &str)] = &[
    ("saved", "Saved."),
    ("buyer-created", "Buyer created."),
    ("campaign-created", "Campaign created."),
    ("publisher-created", "Publisher created."),
    ("assignment-created", "Assignment created."),
    (
        "out-of-use",
        "Archived. It stays where it was used, and is offered no more.",
    ),
    (
        "call-recorded",
        "Call recorded. Report its payout with one of the lines below, as a buyer would.",
    ),
    (
        "call-assigned",
        "The call has its assignment. What it moved stands below.",
    ),
    ("restored", "Restored."),
    (
        "webhook-restored",
        "Restored. Its URL takes reports again, within 2 seconds at every gateway.",
    ),
    (
        "paused",
        "Paused. Reports are answered 200 \"endpoint disabled\" from now on, and kept to be replayed.",
    ),
    (
        "resumed",
        "Switched on. Reports are taken again, within 2 seconds at every gateway.",
    ),
    (
        "archived",
        "Archived. Its URL answers 404 from now on; its history stays.",
    ),
    (
        "secret-removed",
        "The secret is removed. Requests need none any more.",
    ),
    (
        "new-url",
        "The webhook has a new URL. The old one answers 404 from now on: give the buyer the new one.",
    ),
    (
        "revoked",
        "Revoked. Requests with this key are refused from now on.",
    ),
    ("replayed", "Replayed under the rules as they stand now."),
    ("assigned", "Assigned to the call."),
    (
        "assigned-in-vain",
        "Assigned to the call, but it moves no money there: the reason stands above.",
    ),
    (
        "applied",
        "Applied. A new event of yours carries the amount.",
    ),
    ("ignored", "Ignored. It is looked at no more."),
    (
        "unignored",
        "Open again, and decided under the rules as they stand now.",
    ),
    (
        "undone",
        "Taken back. The call and its publisher's balance are as they would be without it.",
    ),
    (
        "override",
        "The field name is set. Reports from now on are read with it; replay the ones that failed.",
    ),
    ("user-added", "They can sign in now."),
    ("standing", "Changed."),
    (
        "password",
        "Your password is changed; you stay signed in here and are signed out everywhere else.",
    ),
];

pub fn from_query(uri: &Uri) -> Option<&'static str> {
    let query = uri.query()?;
    let (_, code) = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "done")?;
    SENTENCES
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, sentence)| *sentence)
}
