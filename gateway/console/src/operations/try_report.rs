//! Tries a sample request against a webhook: how it would be read and matched. Nothing is stored and
//! no money moves; it is settled for real and rolled back, so it cannot differ from what would happen.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trueup_domain::batch_decision::SettleResult;
use trueup_domain::reason_text::explain_reason;
use trueup_event::batch::{self, BatchSplit};
use trueup_event::raw_event::{RawEvent, RawRequest};
use trueup_event::{ids, limits};
use trueup_settlement::dry_run;
use trueup_store::{calls, webhooks};
use utoipa::ToSchema;
use uuid::Uuid;

use super::events::{CandidateResponse, MatchedCallResponse, SlotResponse, note_codes};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;
use crate::request_fields::{BoundedText, kind_of};

/// Elements of a batch that are tried: the first ones show what the rest will do.
const ELEMENTS: usize = 20;
const MAX_CONTENT_TYPE: usize = 256;

/// A sample of a report.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TryBody)]
pub struct Sample {
    /// By default POST with a body and GET without.
    #[schema(value_type = Option<String>, example = "POST")]
    pub method: Option<Method>,
    /// Percent-encoded, as in a URL.
    #[schema(value_type = Option<String>, example = "caller_id=%2B13055551234&duration=90&payout=50")]
    pub query: Option<BoundedText<{ limits::URL_BYTES }>>,
    #[schema(value_type = Option<String>)]
    pub content_type: Option<BoundedText<MAX_CONTENT_TYPE>>,
    /// The body's text; an object or an array is taken as the JSON that it is.
    #[serde(default, deserialize_with = "read_body")]
    #[schema(value_type = Option<String>)]
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Head,
}

impl Method {
    fn text(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Head => "HEAD",
        }
    }
}

fn read_body<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let body = match Value::deserialize(deserializer)? {
        Value::Null => Vec::new(),
        Value::String(text) => text.into_bytes(),
        json @ (Value::Object(_) | Value::Array(_)) => json.to_string().into_bytes(),
        other => {
            let message = format!("must be text, not {}", kind_of(&other));
            return Err(D::Error::custom(message));
        }
    };
    let limit = limits::body_bytes(batch::first_significant(&body));
    if body.len() > limit {
        let message = format!("is over {limit} bytes; the gateway would answer 413");
        return Err(D::Error::custom(message));
    }
    Ok(body)
}

/// How a sample would be read and matched.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tried)]
pub struct TryResponse {
    #[serde(flatten)]
    pub first: TriedReport,
    /// Of a batch: each element, the first 20; else empty.
    pub elements: Vec<TriedReport>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TriedReport {
    pub ref_id: Option<String>,
    pub call_id: Option<String>,
    pub caller: Option<String>,
    pub caller_raw: Option<String>,
    pub duration_seconds: Option<u32>,
    pub payout_raw: Option<String>,
    pub payout_cents: Option<i64>,
    pub currency: Option<String>,
    pub rejection_word: Option<String>,
    /// How each slot was read.
    pub reading: Vec<SlotResponse>,
    /// What was taken off, mended or decoded before the request could be read: codes of a closed set.
    pub reading_notes: Vec<String>,
    pub status: String,
    pub reason: Option<String>,
    pub reason_text: String,
    pub strategy: Option<String>,
    pub matched_call: Option<MatchedCallResponse>,
    /// What would be posted.
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
    pub candidates: Vec<CandidateResponse>,
}

impl Sample {
    fn into_request(self) -> RawRequest {
        let default = if self.body.is_empty() {
            Method::Get
        } else {
            Method::Post
        };
        let query = self.query.map(BoundedText::into_text).unwrap_or_default();
        let query = query
            .strip_prefix('?')
            .map_or_else(|| query.clone(), str::to_owned);
        RawRequest {
            method: self.method.unwrap_or(default).text().to_owned(),
            query: query.into(),
            content_type: self
                .content_type
                .and_then(BoundedText::into_option)
                .map(Into::into),
            body: self.body,
            ..RawRequest::default()
        }
    }
}

/// What the gateway would make of it: one event, or one for each element of a batch.
fn events_of(sample: RawRequest) -> Result<Vec<RawRequest>, Problem> {
    match batch::split_batch(&sample.body, sample.content_type.as_deref()) {
        BatchSplit::NotABatch | BatchSplit::Empty | BatchSplit::Unparseable => Ok(vec![sample]),
        BatchSplit::TooMany => {
            let limit = limits::BATCH_ELEMENTS;
            Err(Problem::invalid_field(
                "body",
                format!("has more than {limit} reports; the gateway would answer 413"),
            ))
        }
        BatchSplit::Elements(ranges) => Ok(ranges
            .into_iter()
            .take(ELEMENTS)
            .map(|range| RawRequest {
                body: sample.body[range].to_vec(),
                element: true,
                ..sample.clone()
            })
            .collect()),
    }
}

/// How a sample would be read and matched; nothing is stored, no money moves.
pub async fn try_sample(
    app: &App,
    operator: &AuthContext,
    id: Uuid,
    sample: Sample,
) -> Result<TryResponse, Problem> {
    if webhooks::get_webhook(&app.pool.get().await?, operator.account_id(), id)
        .await?
        .is_none()
    {
        return Err(Problem::not_found("webhook"));
    }
    let requests = events_of(sample.into_request())?;
    let is_batch = requests.iter().any(|request| request.element);
    let mut tried = Vec::with_capacity(requests.len());
    for request in requests {
        let received_at = ids::to_microseconds(Timestamp::now());
        let event = RawEvent {
            id: Uuid::now_v7(),
            received_at,
            account_id: operator.account_id(),
            webhook_id: id,
            position: 0,
            source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            request: Some(request),
            refusal: None,
        };
        let settled = dry_run::try_sample(&app.pool, event).await?;
        tried.push(describe_result(app, operator, settled).await?);
    }
    let first = tried.first().cloned().ok_or_else(Problem::internal)?;
    Ok(TryResponse {
        first,
        elements: if is_batch { tried } else { Vec::new() },
    })
}

async fn describe_result(
    app: &App,
    operator: &AuthContext,
    settled: SettleResult,
) -> Result<TriedReport, Problem> {
    let Some(decision) = settled.decision else {
        tracing::error!("a sample came out as settled before");
        return Err(Problem::internal());
    };
    let matched_call = match decision.call_id {
        None => None,
        Some(call_id) => {
            let found =
                calls::get_call(&app.pool.get().await?, operator.account_id(), call_id, 0).await?;
            found.map(|c| MatchedCallResponse {
                id: c.id,
                caller: c.caller,
                tracking_number: c.tracking_number,
            })
        }
    };
    let report = settled.report;
    Ok(TriedReport {
        ref_id: report.ref_id,
        call_id: report.call_id,
        caller: report.caller,
        caller_raw: report.caller_raw,
        duration_seconds: report.duration_seconds,
        payout_raw: report.payout_raw,
        payout_cents: report.payout.cents(),
        currency: report.currency,
        rejection_word: report.rejection_word,
        reading: settled.slots.into_iter().map(Into::into).collect(),
        reading_notes: note_codes(&decision.detail.reading_notes),
        status: decision.status().code().to_owned(),
        reason: decision.reason().map(|r| r.code().to_owned()),
        reason_text: explain_reason(&decision.detail, &operator.account.currency),
        strategy: decision.strategy.map(|s| s.code().to_owned()),
        matched_call,
        revenue_delta_cents: decision
            .postings
            .iter()
            .map(|p| p.revenue_delta_cents)
            .sum(),
        credit_delta_cents: decision.postings.iter().map(|p| p.credit_delta_cents).sum(),
        candidates: decision
            .detail
            .candidates()
            .iter()
            .cloned()
            .map(Into::into)
            .collect(),
    })
}
