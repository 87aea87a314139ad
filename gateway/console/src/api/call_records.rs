//! Records calls: one, an array, or one a line. Each copy is read and recorded for itself, so that one
//! bad call never spoils its neighbours; its faults are told by its index.

use std::fmt;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use trueup_domain::call_record::CallRecord;
use trueup_ops::metrics::{self, RecordingOutcome};
use utoipa::ToSchema;

use super::body;
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::operations::calls::{self as operations, CallBody, CallError, CallsRecorded, Copies};
use crate::problem::{FieldError, Problem};

/// Calls in one request (contract).
const MAX_CALLS: usize = 10_000;
/// Ten thousand calls of some 1,600 bytes (bytes).
const BODY_LIMIT: usize = 16 * 1024 * 1024;
/// One copy with its longest texts, escaped (bytes).
const MAX_COPY: usize = 16 * 1024;

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

#[utoipa::path(post, path = "/api/v1/calls", operation_id = "record_calls", summary = "Record calls", tag = "calls",
    request_body(description = "One call, an array, or one a line; at most 10,000", content(
        (CallBodies = "application/json"), (CallBody = "application/x-ndjson"))),
    responses((status = 200, description = "How many were recorded, and why the others were not; a single call that is \
        refused answers 422", body = CallsRecorded)))]
pub async fn record(
    State(app): State<App>,
    operator: AuthContext,
    request: Body,
) -> Result<Json<CallsRecorded>, Problem> {
    let bytes = body::read_body(request, BODY_LIMIT).await?;
    let is_single = is_single(&bytes);
    let reader = operator.clone();
    // Ten thousand copies take longer to read than a thread that answers others may be held.
    let (mut answer, copies) = body::run_blocking(move || read_copies(&bytes, &reader)).await??;
    operations::record_calls(&app, &operator, copies, &mut answer).await?;
    answer.errors.sort_by_key(|e| e.index);
    answer.accepted = answer.ids.iter().flatten().count();
    metrics::console()
        .calls
        .add(RecordingOutcome::Recorded, answer.accepted);
    let refused = answer.ids.len() - answer.accepted;
    metrics::console()
        .calls
        .add(RecordingOutcome::Refused, refused);
    if is_single && refused > 0 {
        let faults = answer.errors.into_iter();
        let faults = faults.map(|error| FieldError::new(error.field, error.message));
        return Err(Problem::invalid_fields(faults.collect(), Vec::new()));
    }
    Ok(Json(answer))
}

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

/// One object by itself, and not the first of several lines.
fn is_single(body: &[u8]) -> bool {
    let text = body.trim_ascii();
    text.first() == Some(&b'{') && serde_json::from_slice::<IgnoredAny>(text).is_ok()
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
    operations::read_call(item.get(), operator).map_err(|faults| {
        let error = |fault: FieldError| CallError {
            index,
            field: fault.field,
            message: fault.message,
        };
        faults.into_iter().map(error).collect()
    })
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
