//! One request, from its head to its answer, in the order of the contract:
//!
//! method and token → the limits, in one question → 429 for the address → paused → 401 → 429 for the
//! token → body → durable → 200.
//!
//! So a stranger with the URL and no secret can never use up the buyer's 200, and a flood that is
//! being refused costs no Redis. Nothing of a report is looked at but whether it is a batch (X3).

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::webhook_cache::query::IngestWebhook;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName};
use hyper::{Method, Request, Response};
use jiff::Timestamp;
use trueup_event::batch::{BatchSplit, is_line_delimited, split_batch};
use trueup_event::raw_event::{RawEvent, RawRequest, Refusal};
use trueup_event::reason::RefusalReason;
use trueup_event::{ids, limits};
use trueup_ops::connections::ConnectionActivity;
use trueup_ops::metrics::{self, EventKind, ResponseOutcome};
use trueup_ops::network::network_of;

use crate::app_state::GatewayState;
use crate::body::{self, BodyError, BodyLimit};
use crate::body_shares::BodyOwner;
use crate::content_encoding::{self, DecodeError, Encoding};
use crate::limits::{LimitCheck, LimitDecision};
use crate::publish::{EncodedEvents, PublishError};
use crate::refusals::event_id;
use crate::request_head;
use crate::responses::{BROKER_AWAY, BUSY, IngestResponse, LIMITS_UNKNOWN, LimitedBy, STARTING};
use crate::secret_check::{self, SecretCheck};
use crate::webhook_cache::WebhookLookup;
use trueup_event::limits::URL_BYTES;

/// A whole head may have 24 KiB; the values that are kept of it this each.
const KEPT_VALUE_BYTES: usize = 256;

/// One request at one webhook.
struct RequestContext<'a> {
    gateway: &'a GatewayState,
    webhook: &'a IngestWebhook,
    source: IpAddr,
    received_at: Timestamp,
    admission: SecretCheck,
    activity: &'a ConnectionActivity,
}

/// What is left of a request's body when its answer is known.
enum UnreadBody {
    Nothing,
    Some,
    All(Incoming),
}

/// What a body came to.
enum ParsedBody {
    One(Box<RawEvent>),
    Batch(Vec<RawEvent>),
}

impl GatewayState {
    /// The answer, and whether some of the request was left unread.
    pub async fn handle(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        activity: &ConnectionActivity,
    ) -> (Response<Full<Bytes>>, bool) {
        let began = Instant::now();
        let waits = request.headers().contains_key(EXPECT);
        let (answer, rest) = self.answer_request(request, peer, activity).await;
        let unread = match rest {
            UnreadBody::Nothing => false,
            UnreadBody::Some => true,
            // A refusal does not cost the sender its connection, if what it sent was small.
            UnreadBody::All(body) => !body::discard_body(body, waits).await,
        };
        let figures = metrics::gateway();
        figures.answers.inc(answer.kind());
        let accepted = matches!(
            answer,
            IngestResponse::Accepted(_) | IngestResponse::AcceptedBatch(_)
        );
        let outcome = match accepted {
            true => ResponseOutcome::Accepted,
            false => ResponseOutcome::Other,
        };
        figures.answer_seconds.since(outcome, began);
        (answer.to_response(unread), unread)
    }

    /// The answer, and what is left of the body.
    async fn answer_request(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        activity: &ConnectionActivity,
    ) -> (IngestResponse, UnreadBody) {
        let url = request
            .uri()
            .path_and_query()
            .map_or(0, |url| url.as_str().len());
        if url > URL_BYTES {
            return (
                IngestResponse::UriTooLong,
                UnreadBody::All(request.into_body()),
            );
        }
        let Some(token) = request_head::token_of(request.uri().path()) else {
            return (
                IngestResponse::NotFound,
                UnreadBody::All(request.into_body()),
            );
        };
        if !is_allowed(request.method()) {
            return (
                IngestResponse::MethodNotAllowed,
                UnreadBody::All(request.into_body()),
            );
        }
        let webhook = match self.webhooks.find(&token) {
            WebhookLookup::Webhook(_) if request.method() == Method::OPTIONS => {
                return (
                    IngestResponse::Preflight,
                    UnreadBody::All(request.into_body()),
                );
            }
            WebhookLookup::Webhook(webhook) => webhook,
            WebhookLookup::NoSuchToken => {
                return (
                    IngestResponse::NotFound,
                    UnreadBody::All(request.into_body()),
                );
            }
            WebhookLookup::NotKnownYet => {
                return (
                    IngestResponse::Unavailable(STARTING),
                    UnreadBody::All(request.into_body()),
                );
            }
        };
        let source = request_head::source_address(peer, request.headers(), &self.proxies);
        if let Some(limited) = self.cached_refusal(&webhook, source) {
            return (limited, UnreadBody::All(request.into_body()));
        }
        let received_at = ids::to_microseconds(Timestamp::now());
        let parameter = webhook.secret_query_param.as_deref();
        let secret = request_head::secret_of(
            request.headers(),
            request.uri().query().unwrap_or_default(),
            parameter,
        );
        let visit = RequestContext {
            gateway: self,
            webhook: &webhook,
            source,
            received_at,
            admission: secret_check::check_secret(&webhook, secret.as_deref(), received_at),
            activity,
        };
        let verdict = self.limits.decide(&visit.limit_check()).await;
        if let LimitDecision::AddressOver { limit, retry_after } = verdict {
            visit.count_refusal(RefusalReason::RateLimitedIp);
            return (
                IngestResponse::Limited {
                    by: LimitedBy::Address,
                    limit,
                    retry_after,
                },
                UnreadBody::All(request.into_body()),
            );
        }
        if verdict == LimitDecision::Unknown {
            return (
                IngestResponse::Unavailable(LIMITS_UNKNOWN),
                UnreadBody::All(request.into_body()),
            );
        }
        if !webhook.enabled {
            let rest = visit
                .answer_paused(request, verdict == LimitDecision::Pass { keep: true })
                .await;
            return (IngestResponse::Paused, rest);
        }
        match visit.admission {
            SecretCheck::Missing => {
                visit.count_refusal(RefusalReason::SecretMissing);
                return (
                    IngestResponse::SecretMissing,
                    UnreadBody::All(request.into_body()),
                );
            }
            SecretCheck::Wrong => {
                visit.count_refusal(RefusalReason::SecretMismatch);
                return (
                    IngestResponse::SecretWrong,
                    UnreadBody::All(request.into_body()),
                );
            }
            SecretCheck::By(secret) => self.uses.record_use(secret, received_at),
            SecretCheck::Open => {}
        }
        if let LimitDecision::TokenOver { limit, retry_after } = verdict {
            visit.count_refusal(RefusalReason::RateLimitedToken);
            return (
                IngestResponse::Limited {
                    by: LimitedBy::Token,
                    limit,
                    retry_after,
                },
                UnreadBody::All(request.into_body()),
            );
        }
        visit.accept_report(request).await
    }
}

impl GatewayState {
    /// An address that is known to be over its limit is told so before a secret is hashed for it. Where the
    /// webhook has a limit of its own, it matters who knows the secret.
    fn cached_refusal(&self, webhook: &IngestWebhook, source: IpAddr) -> Option<IngestResponse> {
        if webhook.ip_limit_per_minute.is_some() {
            return None;
        }
        let limit = self.policy.address(source);
        let retry_after = self.limits.recall_limit(&limit)?;
        self.refusals
            .count(webhook, RefusalReason::RateLimitedIp, source);
        Some(IngestResponse::Limited {
            by: LimitedBy::Address,
            limit: limit.per_minute,
            retry_after,
        })
    }
}

fn is_allowed(method: &Method) -> bool {
    [
        Method::POST,
        Method::GET,
        Method::PUT,
        Method::PATCH,
        Method::HEAD,
        Method::OPTIONS,
    ]
    .contains(method)
}

fn kept_value(headers: &HeaderMap, name: HeaderName) -> Option<Arc<str>> {
    let value = headers.get(name)?.as_bytes();
    let value = value.get(..KEPT_VALUE_BYTES).unwrap_or(value);
    Some(String::from_utf8_lossy(value).into())
}

impl RequestContext<'_> {
    fn limit_check(&self) -> LimitCheck {
        let webhook = self.webhook;
        let own = (webhook.limit_per_minute, webhook.ip_limit_per_minute);
        self.gateway.policy.limit_check(
            self.source,
            webhook.webhook_id,
            own,
            self.admission.is_granted(),
            webhook.enabled,
        )
    }

    fn count_refusal(&self, reason: RefusalReason) {
        self.gateway
            .refusals
            .count(self.webhook, reason, self.source);
    }

    /// Body → durable → 200.
    async fn accept_report(&self, request: Request<Incoming>) -> (IngestResponse, UnreadBody) {
        let Ok(layers) = content_encoding::parse_header(request.headers()) else {
            return (
                IngestResponse::UnknownEncoding,
                UnreadBody::All(request.into_body()),
            );
        };
        let parsed = match self.read_events(request, &layers).await {
            Ok(parsed) => parsed,
            Err(failed) => return (self.no_body(failed), UnreadBody::Some),
        };
        let answer = match parsed {
            Ok(ParsedBody::One(event)) => {
                let id = event.id;
                self.persist_events(vec![*event], IngestResponse::Accepted(id))
                    .await
            }
            Ok(ParsedBody::Batch(events)) => {
                let ids = events.iter().map(|event| event.id).collect();
                self.persist_events(events, IngestResponse::AcceptedBatch(ids))
                    .await
            }
            Err(answer) => {
                self.count_refusal(RefusalReason::BodyTooLarge);
                answer
            }
        };
        (answer, UnreadBody::Nothing)
    }

    /// The body's own bytes end here: while the events wait for the broker, they are held once.
    async fn read_events(
        &self,
        request: Request<Incoming>,
        layers: &[Encoding],
    ) -> Result<Result<ParsedBody, IngestResponse>, BodyError> {
        let encoding = kept_value(request.headers(), CONTENT_ENCODING);
        let (raw, body) = self.raw_request(request);
        let owner = BodyOwner {
            account_id: self.webhook.account_id,
            webhook_id: self.webhook.webhook_id,
            network: network_of(self.source),
        };
        let is_lines = raw.content_type.as_deref().is_some_and(is_line_delimited);
        let limit = match is_lines || !layers.is_empty() {
            true => BodyLimit::Batch,
            false => BodyLimit::ByContent,
        };
        let bytes = body::read_body(body, owner, limit, self.activity).await?;
        if layers.is_empty() {
            return Ok(self.parse_events(&bytes, raw));
        }
        Ok(match content_encoding::decode_body(&bytes, layers) {
            Ok(Cow::Borrowed(plain)) => self.parse_events(plain, raw),
            Ok(Cow::Owned(decoded)) => {
                let raw = RawRequest {
                    content_encoding: encoding,
                    ..raw
                };
                self.parse_events(&decoded, raw)
            }
            Err(DecodeError::TooLarge) => Err(IngestResponse::DecodedTooLarge),
            Err(DecodeError::Damaged) => {
                let raw = RawRequest {
                    content_encoding: encoding,
                    encoded: true,
                    ..raw
                };
                self.one_event(&bytes, raw)
            }
        })
    }

    /// One event for each element of a batch (X3), one for any other body.
    fn parse_events(&self, bytes: &[u8], raw: RawRequest) -> Result<ParsedBody, IngestResponse> {
        match split_batch(bytes, raw.content_type.as_deref()) {
            BatchSplit::NotABatch => self.one_event(bytes, raw),
            BatchSplit::TooMany => Err(IngestResponse::BatchTooLong {
                limit: limits::BATCH_ELEMENTS,
            }),
            BatchSplit::Empty | BatchSplit::Unparseable => Ok(self.whole_event(bytes, raw)),
            BatchSplit::Elements(places) => {
                let mut events: Vec<RawEvent> = Vec::with_capacity(places.len());
                for (at, place) in places.into_iter().enumerate() {
                    let body = bytes.get(place).unwrap_or_default().to_vec();
                    let position = u16::try_from(at).unwrap_or(u16::MAX);
                    let request = RawRequest {
                        body,
                        element: true,
                        batch_of: events.first().map(|first| first.id),
                        ..raw.clone()
                    };
                    events.push(self.raw_event(position, request));
                }
                Ok(ParsedBody::Batch(events))
            }
        }
    }

    /// A body that is one report has a report's limit (X1).
    fn one_event(&self, bytes: &[u8], raw: RawRequest) -> Result<ParsedBody, IngestResponse> {
        if bytes.len() > limits::BODY_BYTES {
            return Err(IngestResponse::BodyTooLarge);
        }
        Ok(self.whole_event(bytes, raw))
    }

    fn whole_event(&self, bytes: &[u8], raw: RawRequest) -> ParsedBody {
        let body = bytes.to_vec();
        ParsedBody::One(Box::new(self.raw_event(0, RawRequest { body, ..raw })))
    }

    async fn persist_events(
        &self,
        events: Vec<RawEvent>,
        accepted: IngestResponse,
    ) -> IngestResponse {
        let (count, first) = (events.len(), events.first().map(|event| event.id));
        let encoded = EncodedEvents::from_events(&events);
        drop(events);
        match self.gateway.durable.persist_events(encoded).await {
            Ok(()) => {
                metrics::gateway().events.add(EventKind::Report, count);
                if let Some(id) = first {
                    self.gateway.unsettled.record_accepted(id, Instant::now());
                }
                accepted
            }
            Err(PublishError::Away) => IngestResponse::Unavailable(BROKER_AWAY),
            Err(PublishError::Full) => IngestResponse::Unavailable(BUSY),
        }
    }

    /// A paused webhook's request is kept whole if its sender was let in and is within the webhook's
    /// limit; else it is counted. The answer is the same.
    async fn answer_paused(&self, request: Request<Incoming>, keep: bool) -> UnreadBody {
        if !keep {
            self.count_refusal(RefusalReason::EndpointDisabled);
            return UnreadBody::All(request.into_body());
        }
        let Ok(layers) = content_encoding::parse_header(request.headers()) else {
            self.count_refusal(RefusalReason::EndpointDisabled);
            return UnreadBody::All(request.into_body());
        };
        let Ok(parsed) = self.read_events(request, &layers).await else {
            self.count_refusal(RefusalReason::EndpointDisabled);
            return UnreadBody::Some;
        };
        let mut events = match parsed {
            Ok(ParsedBody::One(event)) => vec![*event],
            Ok(ParsedBody::Batch(events)) => events,
            Err(_) => Vec::new(),
        };
        for event in &mut events {
            event.refusal = Some(Refusal {
                reason: RefusalReason::EndpointDisabled.into(),
                count: 1,
            });
        }
        if !events.is_empty()
            && self
                .gateway
                .durable
                .persist_events(EncodedEvents::from_events(&events))
                .await
                .is_ok()
        {
            let count = events.len();
            metrics::gateway().events.add(EventKind::Refusal, count);
            metrics::gateway()
                .refusals
                .add(RefusalReason::EndpointDisabled, count);
        } else {
            self.count_refusal(RefusalReason::EndpointDisabled);
        }
        UnreadBody::Nothing
    }

    fn no_body(&self, failed: BodyError) -> IngestResponse {
        match failed {
            BodyError::TooLarge => {
                self.count_refusal(RefusalReason::BodyTooLarge);
                IngestResponse::BodyTooLarge
            }
            BodyError::TooSlow => IngestResponse::BodyTooSlow,
            BodyError::Full => IngestResponse::Unavailable(BUSY),
            BodyError::Broken => IngestResponse::Malformed(
                "the body ended before its announced end, or is no valid body",
            ),
        }
    }

    /// What is kept of the request, its body apart; without the secret.
    fn raw_request(&self, request: Request<Incoming>) -> (RawRequest, Incoming) {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        let raw = RawRequest {
            method: head.method.as_str().to_owned(),
            query: request_head::redact_query(query, self.webhook.secret_query_param.as_deref())
                .into(),
            content_type: kept_value(&head.headers, CONTENT_TYPE),
            ..RawRequest::default()
        };
        (raw, body)
    }

    /// Id and time come from one reading of the clock.
    fn raw_event(&self, position: u16, raw: RawRequest) -> RawEvent {
        RawEvent {
            id: event_id(self.received_at),
            received_at: self.received_at,
            account_id: self.webhook.account_id,
            webhook_id: self.webhook.webhook_id,
            position,
            source_ip: self.source,
            request: Some(raw),
            refusal: None,
        }
    }
}
