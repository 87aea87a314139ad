//! A report: what one request says about a call, once it has been read.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use trueup_event::reason::ReadingNote;
use uuid::Uuid;

/// The five things that a report can say (seed, "Recognized Field Names").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    RefId,
    CallId,
    Caller,
    Duration,
    Payout,
}

/// What governs the reading of one webhook's requests.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadSettings {
    /// Configured names, which win over the aliases (X4); may be dotted paths (X2).
    pub field_names: BTreeMap<Slot, String>,
    /// The account's default region for numbers without a `+` (X9), ISO 3166 such as `US`.
    pub default_region: String,
    /// The account's currency, ISO 4217 such as `USD` (X7, V8).
    pub currency: String,
    pub duration_unit: DurationUnit,
    pub payout_unit: PayoutUnit,
}

impl Default for ReadSettings {
    fn default() -> Self {
        ReadSettings {
            field_names: BTreeMap::new(),
            default_region: "US".into(),
            currency: "USD".into(),
            duration_unit: DurationUnit::Seconds,
            payout_unit: PayoutUnit::Dollars,
        }
    }
}

/// The unit of a bare number in the duration slot: a setting of the webhook, never a guess (X8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DurationUnit {
    #[default]
    Seconds,
    Milliseconds,
    Minutes,
}

/// The unit of a bare number in the payout slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayoutUnit {
    #[default]
    Dollars,
    Cents,
}

/// What a request says, slot by slot.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Trimmed text, case kept (X6).
    pub ref_id: Option<String>,
    /// The text as reported; whether it is one of our UUIDs is [`Report::call_uuid`]'s to say.
    pub call_id: Option<String>,
    /// E.164 (X9).
    pub caller: Option<String>,
    /// The caller's text as sent, also where it could not be read.
    pub caller_raw: Option<String>,
    pub duration_seconds: Option<u32>,
    pub payout: Payout,
    /// The payout's text as sent, also where it could not be read.
    pub payout_raw: Option<String>,
    /// A `currency` field's text, upper case; absent if there was none.
    pub currency: Option<String>,
    /// The word of rejection beside the amount (V8), such as `rejected` or `reverse=1`.
    pub rejection_word: Option<String>,
}

impl Report {
    /// The `call_id` slot as a UUID; a text that is none is simply no hit (X6).
    pub fn call_uuid(&self) -> Option<Uuid> {
        self.call_id
            .as_deref()
            .and_then(|t| Uuid::try_parse(t).ok())
    }

    /// It names a caller with a duration (M4).
    pub(crate) fn has_fingerprint(&self) -> bool {
        self.caller.is_some() && self.duration_seconds.is_some()
    }
}

/// What a report says, in one id: two reports of a webhook that say the same have the same one (M11). Nothing
/// for one that names neither a call nor a caller with a duration: strangers say the same.
pub fn report_digest(webhook_id: Uuid, report: &Report) -> Option<Uuid> {
    let is_known = report.ref_id.is_some() || report.call_id.is_some() || report.has_fingerprint();
    is_known.then(|| digest_of(webhook_id, report, own_ids(report), ""))
}

/// Under which digests rows are found that this report may be a repeat of (M11, M12): its own first; then,
/// if it has a fingerprint, those of closed rows that name fewer ids, or more.
pub fn repeat_keys(webhook_id: Uuid, report: &Report) -> Vec<Uuid> {
    let mut keys = own_and_lesser_keys(webhook_id, report, "");
    if report.has_fingerprint() {
        keys.push(digest_of(webhook_id, report, own_ids(report), NAMES_MORE));
    }
    keys
}

/// The digests of a row that a person closes: its own, and those of its repeats that name fewer ids (M12).
pub fn closing_keys(webhook_id: Uuid, report: &Report) -> Vec<Uuid> {
    own_and_lesser_keys(webhook_id, report, NAMES_MORE)
}

/// Its own digest; then, if it has a fingerprint, those of each lesser part of its ids, under `mark`.
fn own_and_lesser_keys(webhook_id: Uuid, report: &Report, mark: &str) -> Vec<Uuid> {
    let mut keys: Vec<Uuid> = report_digest(webhook_id, report).into_iter().collect();
    if report.has_fingerprint() {
        let fewer = fewer_ids(report).into_iter();
        keys.extend(fewer.map(|ids| digest_of(webhook_id, report, ids, mark)));
    }
    keys
}

/// Before the text of a digest of a row that names more ids than the digest says.
const NAMES_MORE: &str = "more;";

/// `ref_id` and `call_id`.
type Ids<'r> = (Option<&'r str>, Option<&'r str>);

fn own_ids(report: &Report) -> Ids<'_> {
    (report.ref_id.as_deref(), report.call_id.as_deref())
}

/// Each lesser part of the ids that it names.
fn fewer_ids(report: &Report) -> Vec<Ids<'_>> {
    let own = own_ids(report);
    let mut fewer = Vec::new();
    for ids in [(own.0, None), (None, own.1), (None, None)] {
        if ids != own && !fewer.contains(&ids) {
            fewer.push(ids);
        }
    }
    fewer
}

fn digest_of(webhook_id: Uuid, report: &Report, ids: Ids<'_>, mark: &str) -> Uuid {
    // Each text is preceded by its length, so that no two lists of texts are one text.
    let mut text = mark.to_owned();
    let mut add = |part: Option<&str>| match part {
        Some(part) => _ = write!(text, "{}:{part}", part.len()),
        None => text.push('-'),
    };
    add(ids.0);
    add(ids.1);
    add(report.caller.as_deref());
    add(report.duration_seconds.map(|d| d.to_string()).as_deref());
    add(report.payout.cents().map(|c| c.to_string()).as_deref());
    add(report.currency.as_deref());
    add(report.rejection_word.as_deref());
    Uuid::new_v5(&webhook_id, text.as_bytes())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Payout {
    /// No payout name held a value: the buyer said nothing about money (V6).
    #[default]
    Absent,
    Cents(i64),
    /// A payout name held something that is no amount: the search stopped there (X5).
    Unparseable,
}

impl Payout {
    pub fn cents(self) -> Option<i64> {
        match self {
            Payout::Cents(cents) => Some(cents),
            Payout::Absent | Payout::Unparseable => None,
        }
    }
}

/// A request that holds no report at all (X1, X3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadError {
    /// JSON that does not parse; the position of the first bad byte, from 0.
    UnparseableBody { byte: usize },
    /// A field of the query that should hold a report, and does not parse; the position in the query.
    UnparseableQuery { byte: usize },
    /// An element of a batch that is no object.
    UnparseableElement,
    /// `[]`.
    EmptyBatch,
}

/// How one slot was read, for the row's detail view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotReading {
    pub slot: Slot,
    /// The name whose value was taken, as it stood in the request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The text of the value that was taken (or that stopped the search).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub raw: Option<String>,
    /// What it was read as, in words: `+13055551234`, `90 s`, `5000 cents`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
    /// Names that were looked at first, and why each was passed over.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub passed_over: Vec<RejectedCandidate>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RejectedCandidate {
    pub name: String,
    pub raw: String,
    /// Such as `blank`, `null word`, `unresolved macro`, `withheld`, `letters`, `over 24 hours`.
    pub why: String,
}

/// The whole result of reading a request.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedRequest {
    pub report: Result<Report, ReadError>,
    /// One entry for each slot that had any name in the request, in the order of [`Slot`].
    pub slots: Vec<SlotReading>,
    /// What was taken off, mended or decoded first (X1b).
    pub notes: Vec<ReadingNote>,
}
