//! Every metric's name, help, labels and buckets. The only place where a `trueup_…` name is written.
//!
//! Form: `/// help` `field: Kind = "name" ["label": Type, …] in BUCKETS;` (labels and buckets as
//! the kind needs them). Units last; counters end in `_total`. The labels' values: [`super::labels`].

use trueup_event::reason::{RefusalReason, Status};

use super::kinds::{Counter, Gauge, Histogram, Info, groups};
use super::labels::*;

/// From a fast answer to one that a sender gives up on (seconds).
const SHORT_TIMES: &[f64] = &[
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 5.0,
];
const COUNTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];
/// From a fast batch to a queue that has not moved for an hour (seconds).
const LONG_TIMES: &[f64] = &[
    0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0, 900.0,
    3600.0,
];

groups! {
    /// What every process tells of itself.
    Process process {
        /// 1, with the process, its version and the commit it was built from; every process tells of itself alone.
        build_info: Info = "trueup_build_info" ["process": ProcessName];
        /// Whether a dependency is as it should be: 2 ok, 1 degraded, 0 down, -1 not used by this process.
        dependency: Gauge = "trueup_dependency_state" ["dependency": DependencyName];
    }

    /// The public door.
    Gateway gateway {
        /// Requests by their answer.
        answers: Counter = "trueup_gateway_responses_total" ["result": ResponseKind];
        /// From the request's head to its answer.
        answer_seconds: Histogram = "trueup_gateway_response_duration_seconds" ["outcome": ResponseOutcome] in SHORT_TIMES;
        /// Events that were durably taken: reports, and bundles of refusals.
        events: Counter = "trueup_gateway_events_total" ["kind": EventKind];
        /// Age of the oldest report answered 200 by this gateway that has no row yet, to some seconds; 0 when all have one.
        oldest_unsettled: Gauge = "trueup_oldest_unsettled_seconds";
        /// Connections that are open now.
        connections: Gauge = "trueup_gateway_connections";
        /// Connections closed at once: too many in all, too many from one address, or no file descriptor left.
        connections_refused: Counter = "trueup_gateway_connections_refused_total" ["reason": AdmissionRefusal];
        /// Connections that were ended to make room for others, by what was there of a request: nothing, some of its head, or some of its body.
        connections_evicted: Counter = "trueup_gateway_connections_evicted_total" ["phase": RequestPhase];
        /// Bytes that are held of bodies that are arriving.
        body_bytes: Gauge = "trueup_gateway_body_bytes";
        /// Bodies for which no room was left, by whose share was used up: the webhook's, the network's, the account's, or that of all together.
        bodies_refused: Counter = "trueup_gateway_bodies_refused_total" ["share": BodyShareKind];
        /// Decisions about limits by who made them: Redis, this process while Redis is away, the memory of refusals, or none (refused with 503).
        limit_checks: Counter = "trueup_gateway_rate_limit_checks_total" ["decided_by": LimitDecider];
        /// Calls to Redis; one call decides many requests.
        limit_calls: Counter = "trueup_gateway_rate_limit_redis_calls_total" ["outcome": RedisCallOutcome];
        /// How long Redis took to answer.
        limit_seconds: Histogram = "trueup_gateway_rate_limit_redis_duration_seconds" in SHORT_TIMES;
        /// Envelopes by what the broker said to them.
        publishes: Counter = "trueup_gateway_publishes_total" ["outcome": BrokerReply];
        /// From handing an envelope to the broker to its confirm.
        confirm_seconds: Histogram = "trueup_gateway_confirm_seconds" in SHORT_TIMES;
        /// Events in one envelope.
        envelope_events: Histogram = "trueup_gateway_envelope_events" in COUNTS;
        /// Events that wait for the broker's confirm.
        in_flight: Gauge = "trueup_gateway_in_flight_events";
        /// Connections made to the broker, and attempts that failed.
        broker_connects: Counter = "trueup_gateway_broker_connects_total" ["outcome": AttemptOutcome];
        /// 1 while the broker has blocked this connection (memory or disk alarm).
        broker_blocked: Gauge = "trueup_gateway_broker_blocked";
        /// Webhooks in the snapshot.
        snapshot_webhooks: Gauge = "trueup_gateway_snapshot_webhooks";
        /// How old the snapshot is: since it was last known to be the database's state.
        snapshot_age_seconds: Gauge = "trueup_gateway_snapshot_age_seconds";
        /// How far this gateway's clock is ahead of Postgres's (below 0: behind), to the second.
        clock_skew_seconds: Gauge = "trueup_gateway_clock_skew_seconds";
        /// Reads of changed webhooks.
        snapshot_reads: Counter = "trueup_gateway_snapshot_reads_total" ["outcome": AttemptOutcome];
        /// Refused requests that a row stands for.
        refusals: Counter = "trueup_gateway_refusals_total" ["reason": RefusalReason];
        /// Refused requests that no row stands for: the memory for them was full, or they could not be published.
        refusals_dropped: Counter = "trueup_gateway_refusals_dropped_total";
        /// Bytes of the spool's reports on this disk.
        spool_bytes: Gauge = "trueup_gateway_spool_bytes";
        /// Events in the spool.
        spool_events: Gauge = "trueup_gateway_spool_depth_events";
        /// Events written to the spool, drained to the broker, or refused because it was full or failed.
        spooled: Counter = "trueup_gateway_spool_events_total" ["op": SpoolOperation];
    }

    /// The operator API and the pages.
    Console console {
        /// Requests by route and class of their answer. A route is its template in `openapi.json`.
        requests: Counter = "trueup_console_requests_total" ["route": ConsoleRoute, "class": StatusClass];
        /// From the request's head to its answer.
        request_seconds: Histogram = "trueup_console_request_seconds" ["class": StatusClass] in SHORT_TIMES;
        /// Calls that were recorded, and those that were refused.
        calls: Counter = "trueup_console_calls_total" ["outcome": RecordingOutcome];
        /// Requests told to come again: an account had as much quick or long work or as many replays under way as it may, or the queue of passwords was full.
        refused_busy: Counter = "trueup_console_refused_busy_total" ["work": LimitedWork];
    }

    /// Transactions of Postgres, in the process that runs them.
    Transactions transactions {
        /// Transactions by how they ended: committed, failed, or run again after a deadlock or a serialisation failure.
        ended: Counter = "trueup_transactions_total" ["transaction": TransactionName, "outcome": TransactionOutcome];
        /// From asking for a connection to the end, retries included.
        seconds: Histogram = "trueup_transaction_seconds" ["transaction": TransactionName] in SHORT_TIMES;
        /// How long a transaction waited for a connection of the pool.
        pool_wait_seconds: Histogram = "trueup_transaction_pool_wait_seconds" in SHORT_TIMES;
    }

    /// The worker.
    Worker worker {
        /// Events by the status their row was given.
        settled: Counter = "trueup_worker_settled_total" ["status": Status];
        /// Events by the reason their row was given.
        reasons: Counter = "trueup_worker_reasons_total" ["reason": RowReason];
        /// Events that came again and had been settled before.
        skipped: Counter = "trueup_worker_events_already_settled_total";
        /// From a report's reception to the commit of its row.
        lag_seconds: Histogram = "trueup_worker_lag_seconds" in LONG_TIMES;
        /// One transaction's settling, all statements and the commit.
        batch_seconds: Histogram = "trueup_worker_batch_seconds" in SHORT_TIMES;
        /// Events in one transaction.
        batch_events: Histogram = "trueup_worker_batch_events" in COUNTS;
        /// Events that stepped aside, because somebody else held their call for more than two seconds; they come again.
        stepped_aside: Counter = "trueup_worker_events_stepped_aside_total";
        /// Events moved to the overflow queue, because their account sent more than its part.
        overflowed: Counter = "trueup_worker_events_overflowed_total";
        /// Messages moved there whole, because all of their events are of such an account.
        overflowed_messages: Counter = "trueup_worker_messages_overflowed_total";
        /// Envelopes by what became of them: acked, set aside as unreadable, or come again.
        envelopes: Counter = "trueup_worker_envelopes_total" ["outcome": EnvelopeOutcome];
        /// Events that were set aside after five failures: somebody must look (runbook).
        parked: Counter = "trueup_worker_events_dead_lettered_total";
        /// Failed settlings by kind: Postgres away, or the event itself.
        failures: Counter = "trueup_worker_failures_total" ["kind": FailureKind];
        /// Waiting reports that were tried again, and those that found their call.
        late: Counter = "trueup_worker_pending_retries_total" ["outcome": RetryOutcome];
        /// Messages that are ready in the broker's queues, as the worker last saw them.
        queue_messages: Gauge = "trueup_worker_queue_messages" ["queue": QueueName];
        /// Postgres connections in use.
        connections: Gauge = "trueup_worker_postgres_connections" ["state": ConnectionUse];
        /// When the books were last proven (Unix time); 0 until they have been.
        reconciled_at: Gauge = "trueup_reconcile_last_success_timestamp_seconds";
        /// Breaches that the last proof of the books found: 0, or somebody must look (runbook).
        breaches: Gauge = "trueup_reconcile_breaches";
        /// Runs of what the worker does again and again, by how they ended.
        job_runs: Counter = "trueup_worker_job_runs_total" ["periodic_job": PeriodicJobName, "outcome": JobOutcome];
        /// When such a job last ended well (Unix time); 0 until it has.
        job_succeeded_at: Gauge = "trueup_worker_job_last_success_timestamp_seconds" ["periodic_job": PeriodicJobName];
        /// Partitions made ahead and dropped by retention.
        partitions: Counter = "trueup_worker_partitions_total" ["op": PartitionOperation];
    }
}
