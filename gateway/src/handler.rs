//! One request, from its head to its answer, in the order of the contract:
//!
//! method and token → the limits, in one question → 429 for the address → paused → 401 → 429 for the
//! token → body → durable → 200.
//!
//! So a stranger with the URL and no secret can never use up the buyer's 200, and a flood that is
//! being refused costs no Redis. Nothing of a report is looked at but whether it is a batch (X3).

use std::net::IpAddr;
use std::time::Instant;

use crate::webhook_cache::query::IngestWebhook;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, EXPECT};
use hyper::{Method, Request, Response};
use jiff::Timestamp;
use trueup_event::batch::{Split, split};
use trueup_event::raw_event::{RawEvent, RawRequest, Refusal};
use trueup_event::reason::Reason;
use trueup_event::{ids, limits};
use trueup_ops::metrics;

use crate::app_state::Door;
use crate::body::{self, Failed};
use crate::limits::{Question, Verdict};
use crate::publish::{Events, NotTaken};
use crate::refusals::event_id;
use crate::request_head;
use crate::responses::{Answer, BROKER_AWAY, BUSY, LIMITS_UNKNOWN, LimitedBy, STARTING};
use crate::secret_check::{self, Admission};
use crate::webhook_cache::Found;
use trueup_event::limits::URL_BYTES;

/// A whole head may have 24 KiB; its values (a signature, a cookie of a proxy) this each.
const CONTENT_TYPE_BYTES: usize = 256;

/// One request at one webhook.
struct Visit<'a> {
    door: &'a Door,
    webhook: &'a IngestWebhook,
    source: IpAddr,
    received_at: Timestamp,
    admission: Admission,
}

/// What is left of a request's body when its answer is known.
enum Rest {
    Nothing,
    Some,
    All(Incoming),
}

/// What a body came to.
enum Taken {
    One(Box<RawEvent>),
    Batch(Vec<RawEvent>),
}

impl Door {
    /// The answer, and whether some of the request was left unread.
    pub async fn handle(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> (Response<Full<Bytes>>, bool) {
        let began = Instant::now();
        let waits = request.headers().contains_key(EXPECT);
        let (answer, rest) = self.answer(request, peer).await;
        let unread = match rest {
            Rest::Nothing => false,
            Rest::Some => true,
            // A refusal does not cost the sender its connection, if what it sent was small.
            Rest::All(body) => !body::discard(body, waits).await,
        };
        let figures = metrics::gateway();
        figures.answers.inc(&[answer.label()]);
        let accepted = matches!(answer, Answer::Accepted(_) | Answer::AcceptedBatch(_));
        figures
            .answer_seconds
            .since(&[if accepted { "accepted" } else { "other" }], began);
        (answer.response(unread), unread)
    }

    /// The answer, and what is left of the body.
    async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> (Answer, Rest) {
        let url = request
            .uri()
            .path_and_query()
            .map_or(0, |url| url.as_str().len());
        if url > URL_BYTES {
            return (Answer::UriTooLong, Rest::All(request.into_body()));
        }
        let Some(token) = request_head::token(request.uri().path()) else {
            return (Answer::NotFound, Rest::All(request.into_body()));
        };
        if !is_allowed(request.method()) {
            return (Answer::MethodNotAllowed, Rest::All(request.into_body()));
        }
        let webhook = match self.snapshot.find(token) {
            Found::Webhook(webhook) => webhook,
            Found::NoSuchToken => return (Answer::NotFound, Rest::All(request.into_body())),
            Found::NotKnownYet => {
                return (
                    Answer::Unavailable(STARTING),
                    Rest::All(request.into_body()),
                );
            }
        };
        let source = request_head::source(peer, request.headers(), &self.proxies);
        if let Some(limited) = self.known_flood(&webhook, source) {
            return (limited, Rest::All(request.into_body()));
        }
        let received_at = ids::to_microseconds(Timestamp::now());
        let parameter = webhook.secret_query_param.as_deref();
        let secret = request_head::secret(
            request.headers(),
            request.uri().query().unwrap_or_default(),
            parameter,
        );
        let visit = Visit {
            door: self,
            webhook: &webhook,
            source,
            received_at,
            admission: secret_check::check(&webhook, secret.as_deref(), received_at),
        };
        let verdict = self.limits.decide(&visit.question()).await;
        if let Verdict::AddressOver { limit, retry_after } = verdict {
            visit.refused(Reason::RateLimitedIp);
            return (
                Answer::Limited {
                    by: LimitedBy::Address,
                    limit,
                    retry_after,
                },
                Rest::All(request.into_body()),
            );
        }
        if verdict == Verdict::Unknown {
            return (
                Answer::Unavailable(LIMITS_UNKNOWN),
                Rest::All(request.into_body()),
            );
        }
        if !webhook.enabled {
            let rest = visit
                .paused(request, verdict == Verdict::Pass { keep: true })
                .await;
            return (Answer::Paused, rest);
        }
        match visit.admission {
            Admission::Missing => {
                visit.refused(Reason::SecretMissing);
                return (Answer::SecretMissing, Rest::All(request.into_body()));
            }
            Admission::Wrong => {
                visit.refused(Reason::SecretMismatch);
                return (Answer::SecretWrong, Rest::All(request.into_body()));
            }
            Admission::By(secret) => self.uses.note(secret, received_at),
            Admission::Open => {}
        }
        if let Verdict::TokenOver { limit, retry_after } = verdict {
            visit.refused(Reason::RateLimitedToken);
            return (
                Answer::Limited {
                    by: LimitedBy::Token,
                    limit,
                    retry_after,
                },
                Rest::All(request.into_body()),
            );
        }
        visit.accept(request).await
    }
}

impl Door {
    /// An address that is known to be over its limit is told so before a secret is hashed for it. Where the
    /// webhook has a limit of its own, it matters who knows the secret.
    fn known_flood(&self, webhook: &IngestWebhook, source: IpAddr) -> Option<Answer> {
        if webhook.ip_limit_per_minute.is_some() {
            return None;
        }
        let limit = self.policy.address(source);
        let retry_after = self.limits.recall_limit(&limit)?;
        self.refusals.count(webhook, Reason::RateLimitedIp, source);
        Some(Answer::Limited {
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
    ]
    .contains(method)
}

impl Visit<'_> {
    fn question(&self) -> Question {
        let webhook = self.webhook;
        let own = (webhook.limit_per_minute, webhook.ip_limit_per_minute);
        self.door.policy.question(
            self.source,
            webhook.webhook_id,
            own,
            self.admission.is_granted(),
            webhook.enabled,
        )
    }

    fn refused(&self, reason: Reason) {
        self.door.refusals.count(self.webhook, reason, self.source);
    }

    /// Body → durable → 200.
    async fn accept(&self, request: Request<Incoming>) -> (Answer, Rest) {
        let (raw, body) = self.raw(request);
        let held = match body::read(body).await {
            Ok(held) => held,
            Err(failed) => return (self.no_body(failed), Rest::Some),
        };
        let (bytes, _share) = held.into_parts();
        match self.events(&bytes, raw) {
            Ok(Taken::One(event)) => {
                let id = event.id;
                (
                    self.take(vec![*event], Answer::Accepted(id)).await,
                    Rest::Nothing,
                )
            }
            Ok(Taken::Batch(events)) => {
                let ids = events.iter().map(|event| event.id).collect();
                (
                    self.take(events, Answer::AcceptedBatch(ids)).await,
                    Rest::Nothing,
                )
            }
            Err(answer) => {
                self.refused(Reason::BodyTooLarge);
                (answer, Rest::Nothing)
            }
        }
    }

    /// One event for each element of a batch (X3), one for any other body.
    fn events(&self, bytes: &Bytes, raw: RawRequest) -> Result<Taken, Answer> {
        match split(bytes) {
            Split::NotABatch if bytes.len() > body::REPORT_BYTES => Err(Answer::BodyTooLarge {
                limit_kib: body::REPORT_BYTES / 1024,
            }),
            Split::TooMany => Err(Answer::BatchTooLong {
                limit: limits::BATCH_ELEMENTS,
            }),
            Split::NotABatch | Split::Empty | Split::Unparseable => {
                Ok(Taken::One(Box::new(self.event(
                    0,
                    RawRequest {
                        body: bytes.to_vec(),
                        ..raw
                    },
                ))))
            }
            Split::Elements(places) => {
                let element = |(at, place): (usize, std::ops::Range<usize>)| {
                    let body = bytes.get(place).unwrap_or_default().to_vec();
                    let position = u16::try_from(at).unwrap_or(u16::MAX);
                    self.event(
                        position,
                        RawRequest {
                            body,
                            element: true,
                            ..raw.clone()
                        },
                    )
                };
                Ok(Taken::Batch(
                    places.into_iter().enumerate().map(element).collect(),
                ))
            }
        }
    }

    async fn take(&self, events: Vec<RawEvent>, accepted: Answer) -> Answer {
        let count = events.len();
        match self.door.durable.take(Events::of(&events)).await {
            Ok(()) => {
                metrics::gateway().events.add(&["report"], count as u64);
                accepted
            }
            Err(NotTaken::Away) => Answer::Unavailable(BROKER_AWAY),
            Err(NotTaken::Full) => Answer::Unavailable(BUSY),
        }
    }

    /// A paused webhook's request is kept whole if its sender was let in and is within the webhook's
    /// limit; else it is counted. The answer is the same.
    async fn paused(&self, request: Request<Incoming>, keep: bool) -> Rest {
        if !keep {
            self.refused(Reason::EndpointDisabled);
            return Rest::All(request.into_body());
        }
        let (raw, body) = self.raw(request);
        let Ok(held) = body::read(body).await else {
            self.refused(Reason::EndpointDisabled);
            return Rest::Some;
        };
        let (bytes, _share) = held.into_parts();
        let mut events = match self.events(&bytes, raw) {
            Ok(Taken::One(event)) => vec![*event],
            Ok(Taken::Batch(events)) => events,
            Err(_) => Vec::new(),
        };
        for event in &mut events {
            event.refusal = Some(Refusal {
                reason: Reason::EndpointDisabled,
                count: 1,
            });
        }
        if !events.is_empty() && self.door.durable.take(Events::of(&events)).await.is_ok() {
            let count = events.len() as u64;
            metrics::gateway().events.add(&["refusal"], count);
            metrics::gateway()
                .refusals
                .add(&[Reason::EndpointDisabled.code()], count);
        } else {
            self.refused(Reason::EndpointDisabled);
        }
        Rest::Nothing
    }

    fn no_body(&self, failed: Failed) -> Answer {
        match failed {
            Failed::TooLarge { limit } => {
                self.refused(Reason::BodyTooLarge);
                Answer::BodyTooLarge {
                    limit_kib: limit / 1024,
                }
            }
            Failed::TooSlow => Answer::BodyTooSlow,
            Failed::Full => Answer::Unavailable(BUSY),
            Failed::Broken => {
                Answer::Malformed("the body ended before its announced end, or is no valid body")
            }
        }
    }

    /// What is kept of the request, its body apart; without the secret.
    fn raw(&self, request: Request<Incoming>) -> (RawRequest, Incoming) {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        let content_type = head.headers.get(CONTENT_TYPE).map(|value| {
            let value = &value.as_bytes()[..value.len().min(CONTENT_TYPE_BYTES)];
            String::from_utf8_lossy(value).into_owned()
        });
        let raw = RawRequest {
            method: head.method.as_str().to_owned(),
            query: request_head::redacted(query, self.webhook.secret_query_param.as_deref()),
            content_type,
            body: Vec::new(),
            element: false,
        };
        (raw, body)
    }

    /// Id and time come from one reading of the clock.
    fn event(&self, position: u16, raw: RawRequest) -> RawEvent {
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
