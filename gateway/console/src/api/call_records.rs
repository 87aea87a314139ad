//! Records calls: one, an array, or one a line. Each copy is read and recorded for itself, so that one
//! bad call never spoils its neighbours; its faults are told by its index.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use jiff::SignedDuration;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use trueup_domain::call_record::{CallRecord, Caller, derive_call_id};
use trueup_domain::phone;
use trueup_ops::metrics;
use trueup_settlement::call_recording;
use trueup_store::run_tx;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body;
use super::calls::{MAX_CALLER, MAX_REF_ID};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::{FieldError, Problem};
use crate::request_fields::{
    Cents, RequestFields, Text, Time, Whole, clearable, kind_of, not_null,
};

/// Calls in one request (contract).
const MAX_CALLS: usize = 10_000;
/// Ten thousand calls of some 1,600 bytes (bytes).
const BODY_LIMIT: usize = 16 * 1024 * 1024;
/// One copy with its longest texts, escaped (bytes).
const MAX_COPY: usize = 16 * 1024;
const MAX_TRACKING_NUMBER: usize = 64;

/// One copy of a call. Recording it again changes what the copy names and keeps the rest; what a
/// webhook reported is never undone.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CallCopy)]
pub struct CallBody {
    /// Any UUID of yours. Left out, it is made from ref_id, caller, tracking number and start: the same call
    /// sent twice is one call.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    id: Option<Uuid>,
    /// What buyers echo back.
    #[serde(default, deserialize_with = "clearable")]
    #[schema(inline, value_type = Option<RefId>)]
    ref_id: Option<Option<RefId>>,
    /// In any form; null or withheld is fine.
    #[serde(default, deserialize_with = "clearable")]
    #[schema(inline, value_type = Option<GivenCaller>)]
    caller: Option<Option<GivenCaller>>,
    #[serde(default, deserialize_with = "clearable")]
    #[schema(inline, value_type = Option<TrackingNumber>)]
    tracking_number: Option<Option<TrackingNumber>>,
    #[schema(inline)]
    duration_seconds: Whole<0, 86_400>,
    #[schema(value_type = jiff::Timestamp)]
    started_at: Time,
    /// By default `started_at` + `duration_seconds`.
    #[schema(value_type = Option<jiff::Timestamp>)]
    ended_at: Option<Time>,
    #[serde(default, deserialize_with = "clearable")]
    #[schema(value_type = Option<Uuid>)]
    buyer_id: Option<Option<Uuid>>,
    /// Cannot change once money was posted for the call.
    #[serde(default, deserialize_with = "clearable")]
    #[schema(value_type = Option<Uuid>)]
    assignment_id: Option<Option<Uuid>>,
    /// The estimated value; it credits the publisher if the call is qualified.
    #[serde(default, deserialize_with = "clearable")]
    #[schema(inline, value_type = Option<Cents>)]
    value_cents: Option<Option<Cents>>,
    #[serde(default, deserialize_with = "clearable")]
    #[schema(value_type = Option<bool>)]
    qualified: Option<Option<bool>>,
}

type RefId = Text<MAX_REF_ID>;
type GivenCaller = Text<MAX_CALLER>;
type TrackingNumber = Text<MAX_TRACKING_NUMBER>;

/// One call, or an array of them.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = CallCopies)]
#[expect(dead_code, reason = "only its description is used")]
pub enum CallBodies {
    #[schema(title = "One")]
    One(CallBody),
    #[schema(title = "Many")]
    Many(Vec<CallBody>),
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CallsRecorded {
    /// How many were recorded.
    pub accepted: usize,
    /// Why the others were not.
    pub errors: Vec<CallError>,
    /// The id of each, in the order given; null for those that were not recorded.
    pub ids: Vec<Option<Uuid>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CallError {
    /// Counted from 0.
    pub index: usize,
    /// Empty if the whole is meant.
    pub field: String,
    pub message: String,
}

#[utoipa::path(post, path = "/api/v1/calls", tag = "calls",
    request_body(description = "One call, an array, or one a line; at most 10,000", content(
        (CallBodies = "application/json"), (CallBody = "application/x-ndjson"))),
    responses((status = 200, description = "How many were recorded, and why the others were not", body = CallsRecorded)))]
pub async fn record(
    State(app): State<App>,
    operator: AuthContext,
    request: Body,
) -> Result<Json<CallsRecorded>, Problem> {
    let bytes = body::read_body(request, BODY_LIMIT).await?;
    let reader = operator.clone();
    // Ten thousand copies take longer to read than a thread that answers others may be held.
    let (mut answer, copies) = body::run_blocking(move || read_copies(&bytes, &reader)).await??;
    record_copies(&app, &operator, copies, &mut answer).await?;
    answer.errors.sort_by_key(|e| e.index);
    answer.accepted = answer.ids.iter().flatten().count();
    metrics::console()
        .calls
        .add(&["recorded"], u64::try_from(answer.accepted).unwrap_or(0));
    let refused = answer.ids.len() - answer.accepted;
    metrics::console()
        .calls
        .add(&["refused"], u64::try_from(refused).unwrap_or(0));
    Ok(Json(answer))
}

type Copies = Vec<(usize, CallRecord)>;

fn read_copies(body: &[u8], operator: &AuthContext) -> Result<(CallsRecorded, Copies), Problem> {
    let items = split_items(body)?;
    let mut answer = CallsRecorded {
        accepted: 0,
        errors: Vec::new(),
        ids: vec![None; items.len()],
    };
    let mut copies = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        match item.and_then(|item| read_copy(item, index, operator)) {
            Ok(copy) => copies.push((index, copy)),
            Err(errors) => answer
                .errors
                .extend(errors.into_iter().map(|e| CallError { index, ..e })),
        }
    }
    Ok((answer, copies))
}

async fn record_copies(
    app: &App,
    operator: &AuthContext,
    copies: Copies,
    answer: &mut CallsRecorded,
) -> Result<(), Problem> {
    for chunk in copies.chunks(call_recording::CHUNK) {
        let batch: Arc<[CallRecord]> = chunk.iter().map(|(_, copy)| copy.clone()).collect();
        let (account_id, actor) = (operator.account_id(), operator.actor.clone());
        let refused = run_tx(&app.pool, "calls.record", move |tx| {
            let (batch, actor) = (Arc::clone(&batch), actor.clone());
            Box::pin(
                async move { call_recording::record_calls(tx, account_id, &actor, &batch).await },
            )
        })
        .await
        .map_err(|e| {
            let done = answer.ids.iter().flatten().count();
            let again = "send all of them again: no call is recorded twice";
            Problem::from(e).with_detail(&format!("{done} calls were recorded before; {again}"))
        })?;
        for (index, copy) in chunk {
            answer.ids[*index] = Some(copy.id);
        }
        for (at, why) in refused {
            let index = chunk[at].0;
            answer.ids[index] = None;
            let (field, message) = (why.field().to_owned(), why.to_string());
            answer.errors.push(CallError {
                index,
                field,
                message,
            });
        }
    }
    Ok(())
}

/// The text of one copy, not yet taken apart, or why there is none.
type Item<'a> = Result<&'a RawValue, Vec<CallError>>;

fn error_of_whole(message: String) -> Vec<CallError> {
    vec![CallError {
        index: 0,
        field: String::new(),
        message,
    }]
}

/// One object, an array, or one object a line. They are counted before any is taken apart: a small text
/// becomes a hundred times its bytes.
fn split_items(body: &[u8]) -> Result<Vec<Item<'_>>, Problem> {
    let text = body.trim_ascii();
    if text.first() == Some(&b'[') {
        let Elements(elements) = serde_json::from_slice(text)
            .map_err(|e| Problem::malformed(format!("the body is not JSON: {e}")))?;
        return elements
            .map(|elements| elements.into_iter().map(Ok).collect())
            .ok_or_else(too_many);
    }
    if let Ok(one) = serde_json::from_slice::<&RawValue>(text) {
        return Ok(vec![Ok(one)]);
    }
    split_lines(text)
}

fn too_many() -> Problem {
    Problem::too_large(format!(
        "these are too many calls; at most {MAX_CALLS} in one request"
    ))
}

/// The elements of an array, or `None` if they are too many.
struct Elements<'a>(Option<Vec<&'a RawValue>>);

impl<'de: 'a, 'a> Deserialize<'de> for Elements<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ReadElements;
        impl<'de> Visitor<'de> for ReadElements {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an array of calls")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = array.next_element::<&RawValue>()? {
                    if elements.len() == MAX_CALLS {
                        while array.next_element::<IgnoredAny>()?.is_some() {}
                        return Ok(Elements(None));
                    }
                    elements.push(element);
                }
                Ok(Elements(Some(elements)))
            }
        }
        deserializer.deserialize_seq(ReadElements)
    }
}

fn split_lines(text: &[u8]) -> Result<Vec<Item<'_>>, Problem> {
    let lines: Vec<&[u8]> = text
        .split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .take(MAX_CALLS + 1)
        .collect();
    if lines.len() > MAX_CALLS {
        return Err(too_many());
    }
    let items: Vec<Item> = lines
        .into_iter()
        .map(|line| {
            serde_json::from_slice(line)
                .map_err(|e| error_of_whole(format!("this line is not JSON: {e}")))
        })
        .collect();
    // A lone broken object is a broken body, not a list of broken lines.
    if items
        .iter()
        .any(|item| item.as_ref().is_ok_and(|raw| raw.get().starts_with('{')))
    {
        return Ok(items);
    }
    match serde_json::from_slice::<IgnoredAny>(text) {
        Err(e) => Err(Problem::malformed(format!(
            "the body is neither JSON nor one JSON object a line: {e}"
        ))),
        Ok(_) => Err(Problem::malformed(
            "the body must be a call, an array of calls, or one call a line",
        )),
    }
}

fn read_copy(
    item: &RawValue,
    index: usize,
    operator: &AuthContext,
) -> Result<CallRecord, Vec<CallError>> {
    if item.get().len() > MAX_COPY {
        return Err(error_of_whole(format!(
            "a call is at most {MAX_COPY} bytes"
        )));
    }
    read_body(item.get(), index)?
        .into_record(operator)
        .map_err(|fault| errors_of(vec![fault], index))
}

/// Reads a copy as it is; only one that is not right is taken apart to say why.
fn read_body(text: &str, index: usize) -> Result<CallBody, Vec<CallError>> {
    if let Ok(body) = serde_json::from_str(text) {
        return Ok(body);
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(values)) => RequestFields::of_object(values)
            .read()
            .map_err(|bad| errors_of(bad.faults, index)),
        Ok(other) => Err(error_of_whole(format!(
            "must be an object, not {}",
            kind_of(&other)
        ))),
        Err(e) => Err(error_of_whole(format!("is not JSON: {e}"))),
    }
}

fn errors_of(faults: Vec<FieldError>, index: usize) -> Vec<CallError> {
    faults
        .into_iter()
        .map(|fault| CallError {
            index,
            field: fault.field,
            message: fault.message,
        })
        .collect()
}

impl CallBody {
    fn into_record(self, operator: &AuthContext) -> Result<CallRecord, FieldError> {
        let region = &operator.account.default_region;
        let (duration, started_at) = (self.duration_seconds.get(), self.started_at.0);
        let ended_at = self.ended_at.map(|at| at.0);
        if ended_at.is_some_and(|ended_at| ended_at < started_at) {
            return Err(FieldError::new("ended_at", "is before started_at"));
        }
        let by_duration = started_at
            .checked_add(SignedDuration::from_secs(duration))
            .unwrap_or(started_at);
        let ref_id = none_if_blank(self.ref_id);
        let tracking_number = none_if_blank(self.tracking_number);
        let caller = none_if_blank(self.caller).map(|raw| {
            raw.map(|raw| Caller {
                e164: phone::normalise_caller(&raw, region).ok(),
                raw,
            })
        });
        let id = self.id.unwrap_or_else(|| {
            derive_call_id(
                operator.account_id(),
                ref_id.as_ref().and_then(Option::as_deref),
                caller.as_ref().and_then(Option::as_ref),
                tracking_number.as_ref().and_then(Option::as_deref),
                started_at,
            )
        });
        Ok(CallRecord {
            id,
            ref_id,
            caller,
            tracking_number,
            duration_seconds: i32::try_from(duration).expect("a day's seconds are below 2^31"),
            started_at,
            ended_at: ended_at.unwrap_or(by_duration),
            buyer_id: self.buyer_id,
            assignment_id: self.assignment_id,
            value_cents: self.value_cents.map(|value| value.map(Cents::get)),
            qualified: self.qualified,
        })
    }
}

/// What a copy says of a text: nothing, that it is empty, or a value.
fn none_if_blank<const MAX: usize>(given: Option<Option<Text<MAX>>>) -> Option<Option<String>> {
    given.map(|text| text.and_then(Text::into_option))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(body: &str) -> Result<Vec<bool>, Problem> {
        split_items(body.as_bytes()).map(|items| items.iter().map(Result::is_ok).collect())
    }

    #[test]
    fn one_an_array_or_one_a_line() {
        assert_eq!(shapes("{\n \"a\": 1\n}").expect("one"), [true]);
        assert_eq!(shapes("[{}, 7, {}]").expect("an array"), [true, true, true]);
        assert_eq!(shapes("{}\r\n\n{}\n").expect("lines"), [true, true]);
        assert_eq!(
            shapes("{}\n{\"a\":\n{}").expect("lines"),
            [true, false, true]
        );
        assert_eq!(shapes("[]").expect("none"), [] as [bool; 0]);
        for bad in [
            "",
            "{\"a\":",
            "[{}",
            "{\n\"a\": 1,\n",
            "nonsense",
            "{} trailing",
        ] {
            assert!(shapes(bad).is_err(), "{bad:?}");
        }
        let many = vec!["{}"; MAX_CALLS + 1].join("\n");
        assert!(shapes(&many).is_err());
    }
}
