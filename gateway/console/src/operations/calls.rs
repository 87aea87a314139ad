//! Calls: recorded by whoever takes them. Each copy is read and recorded for itself.

use std::sync::Arc;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trueup_domain::call_record::{CallRecord, Caller, derive_call_id};
use trueup_domain::phone;
use trueup_settlement::call_recording;
use trueup_store::{TransactionName, run_tx};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::{FieldError, Problem};
use crate::request_fields::{
    BoundedText, Cents, RequestFields, Time, Whole, clearable, kind_of, not_null,
};

/// A text that may hold a caller (characters).
pub const MAX_CALLER: usize = 256;
/// A reported id is no longer either (X6, characters).
pub const MAX_REF_ID: usize = 256;
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

type RefId = BoundedText<MAX_REF_ID>;
type GivenCaller = BoundedText<MAX_CALLER>;
type TrackingNumber = BoundedText<MAX_TRACKING_NUMBER>;

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

/// Calls that were read, each with its place in the request.
pub type Copies = Vec<(usize, CallRecord)>;

/// Reads a copy as it is; only one that is not right is taken apart to say why.
fn read_body(text: &str) -> Result<CallBody, Vec<FieldError>> {
    // An array would be taken by position.
    let is_object = text.trim_start().starts_with('{');
    if is_object && let Ok(body) = serde_json::from_str(text) {
        return Ok(body);
    }
    let of_whole = |message| vec![FieldError::new("", message)];
    match serde_json::from_str(text) {
        Ok(Value::Object(values)) => {
            let read = RequestFields::of_object(values).read();
            read.map_err(|bad| bad.faults)
        }
        Ok(other) => Err(of_whole(format!(
            "must be an object, not {}",
            kind_of(&other)
        ))),
        Err(e) => Err(of_whole(format!("is not JSON: {e}"))),
    }
}

/// The call that a copy's text is of.
pub fn read_call(text: &str, operator: &AuthContext) -> Result<CallRecord, Vec<FieldError>> {
    read_body(text)?
        .into_record(operator)
        .map_err(|fault| vec![fault])
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
fn none_if_blank<const MAX: usize>(
    given: Option<Option<BoundedText<MAX>>>,
) -> Option<Option<String>> {
    given.map(|text| text.and_then(BoundedText::into_option))
}

/// Records them in parts, each in a transaction of its own; what was refused is noted in the answer.
pub async fn record_calls(
    app: &App,
    operator: &AuthContext,
    copies: Copies,
    answer: &mut CallsRecorded,
) -> Result<(), Problem> {
    for chunk in copies.chunks(call_recording::CHUNK) {
        let batch: Arc<[CallRecord]> = chunk.iter().map(|(_, copy)| copy.clone()).collect();
        let (account_id, actor) = (operator.account_id(), operator.actor.clone());
        let refused = run_tx(&app.pool, TransactionName::CallsRecord, move |tx| {
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
