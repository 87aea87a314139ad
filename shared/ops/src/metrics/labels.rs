//! The values of every label: a type for each, so that no caller can name a value that the table of
//! metrics does not have. A row's status and reason are the wire's own ([`trueup_event::reason`]).

use std::sync::OnceLock;

use trueup_event::reason::{Reason, RefusalReason, Status};

/// A closed set of values.
pub trait Label: Copy {
    /// Each value as Prometheus sees it; the same as long as the process lives.
    fn codes() -> &'static [&'static str];

    /// The place of this value in [`Label::codes`].
    fn index(self) -> usize;
}

/// The labels that a metric has: one, or a pair.
pub trait LabelSet: Copy {
    /// The place among all combinations, those of the last label following each other.
    fn place(self) -> usize;
}

impl<L: Label> LabelSet for L {
    fn place(self) -> usize {
        self.index()
    }
}

impl<A: Label, B: Label> LabelSet for (A, B) {
    fn place(self) -> usize {
        self.0.index() * B::codes().len() + self.1.index()
    }
}

macro_rules! labels {
    ($( $(#[$doc:meta])* $name:ident { $($variant:ident = $code:literal),+ $(,)? } )+) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            pub const fn code(self) -> &'static str {
                match self { $($name::$variant => $code),+ }
            }
        }

        impl Label for $name {
            fn codes() -> &'static [&'static str] {
                &[$($code),+]
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    )+ };
}

labels! {
    /// Which of ours this is.
    ProcessName {
        Gateway = "trueup-gateway",
        Console = "trueup-console",
        Worker = "trueup-worker",
    }

    /// What a process depends on.
    DependencyName {
        Postgres = "postgres",
        Redis = "redis",
        Broker = "broker",
        Snapshot = "snapshot",
        Spool = "spool",
    }

    /// What the door answered.
    ResponseKind {
        Accepted = "accepted",
        Paused = "paused",
        Preflight = "preflight",
        Unauthorized = "unauthorized",
        NotFound = "not_found",
        MethodNotAllowed = "method_not_allowed",
        Malformed = "malformed",
        TooSlow = "too_slow",
        BodyTooLarge = "body_too_large",
        UnknownEncoding = "unknown_encoding",
        UriTooLong = "uri_too_long",
        HeadTooLarge = "head_too_large",
        LimitedAddress = "limited_address",
        LimitedToken = "limited_token",
        Unavailable = "unavailable",
        Aborted = "aborted",
    }

    /// Whether the door took a report.
    ResponseOutcome { Accepted = "accepted", Other = "other" }

    /// What an event stands for.
    EventKind { Report = "report", Refusal = "refusal" }

    /// Why a connection was closed at once.
    AdmissionRefusal { Total = "total", Address = "address", Descriptors = "descriptors" }

    /// What was there of a request when its connection had to make room.
    RequestPhase { Idle = "idle", Head = "head", Body = "body" }

    /// Whose share of the room for bodies was used up.
    BodyShareKind { Webhook = "webhook", Network = "network", Account = "account", All = "all" }

    /// Who decided about a limit.
    LimitDecider { Redis = "redis", Local = "local", Remembered = "remembered", None = "none" }

    /// How a call to Redis ended.
    RedisCallOutcome { Ok = "ok", Slow = "slow", Error = "error" }

    /// What the broker said to an envelope.
    BrokerReply {
        Confirmed = "confirmed",
        Nacked = "nacked",
        Returned = "returned",
        NoConfirm = "no_confirm",
        Error = "error",
    }

    /// How an attempt ended.
    AttemptOutcome { Ok = "ok", Failed = "failed" }

    /// What became of events at the spool.
    SpoolOperation { Written = "written", Drained = "drained", Full = "full", Failed = "failed" }

    /// The class of an answer's status.
    StatusClass {
        Success = "2xx",
        Redirection = "3xx",
        ClientError = "4xx",
        ServerError = "5xx",
    }

    /// What became of a call copy.
    RecordingOutcome { Recorded = "recorded", Refused = "refused" }

    /// The console's work of which an account may have only so much at once.
    LimitedWork { Quick = "quick", Long = "long", Replay = "replay", Password = "password" }

    /// What became of an envelope.
    EnvelopeOutcome { Acked = "acked", Unreadable = "unreadable", Redelivered = "redelivered" }

    /// What made a settling fail.
    FailureKind { Postgres = "postgres", Event = "event" }

    /// What became of waiting reports.
    RetryOutcome { Tried = "tried", Matched = "matched" }

    /// The broker's queues.
    QueueName { Events = "events", Overflow = "overflow", Parked = "parked", Dead = "dead" }

    /// Connections that are used, and all that are open.
    ConnectionUse { InUse = "in_use", Open = "open" }

    /// What was done with partitions.
    PartitionOperation { Made = "made", Dropped = "dropped" }

    /// A transaction that is retried and measured.
    TransactionName {
        AccountsCreate = "accounts.create",
        AccountsSetTimeZone = "accounts.set_time_zone",
        ApiKeysCreate = "api_keys.create",
        ApiKeysRevoke = "api_keys.revoke",
        AssignmentsCreate = "assignments.create",
        AssignmentsUpdate = "assignments.update",
        BuyersCreate = "buyers.create",
        BuyersRename = "buyers.rename",
        CallsAssign = "calls.assign",
        CallsRecord = "calls.record",
        CampaignsCreate = "campaigns.create",
        CampaignsRename = "campaigns.rename",
        LateSettle = "late_settle",
        LateWake = "late_wake",
        LateWakeAgain = "late_wake_again",
        PersonApply = "person_apply",
        PersonAssign = "person_assign",
        PersonIgnore = "person_ignore",
        PersonReplay = "person_replay",
        PersonUndo = "person_undo",
        PersonUnignore = "person_unignore",
        PublishersCreate = "publishers.create",
        PublishersRename = "publishers.rename",
        RecordsSetArchived = "records.set_archived",
        Settle = "settle",
        UsersAdd = "users.add",
        UsersSetPassword = "users.set_password",
        UsersSetRoleOrDisabled = "users.set_role_or_disabled",
        UsersSignIn = "users.sign_in",
        WebhooksArchive = "webhooks.archive",
        WebhooksRestore = "webhooks.restore",
        WebhooksCreate = "webhooks.create",
        WebhooksNewToken = "webhooks.new_token",
        WebhooksRemoveSecret = "webhooks.remove_secret",
        WebhooksRotateSecret = "webhooks.rotate_secret",
        WebhooksUpdate = "webhooks.update",
        Other = "other",
    }

    /// How a transaction ended.
    TransactionOutcome { Committed = "committed", Failed = "failed", Retried = "retried" }

    /// What a worker does again and again.
    PeriodicJobName {
        LateMatching = "late_matching",
        BulkReplay = "bulk_replay",
        Maintenance = "maintenance",
        Figures = "figures",
        Reconcile = "reconcile",
    }

    /// How a run of it ended.
    JobOutcome { Ok = "ok", Failed = "failed", Panicked = "panicked" }
}

impl Label for Status {
    fn codes() -> &'static [&'static str] {
        Status::CODES
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for RefusalReason {
    fn codes() -> &'static [&'static str] {
        RefusalReason::CODES
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// A row's reason, if it has one.
pub type RowReason = Option<Reason>;

impl Label for RowReason {
    fn codes() -> &'static [&'static str] {
        const {
            &{
                let mut codes = ["none"; Reason::CODES.len() + 1];
                let (_, reasons) = codes.split_at_mut(1);
                reasons.copy_from_slice(Reason::CODES);
                codes
            }
        }
    }

    fn index(self) -> usize {
        self.map_or(0, |reason| reason as usize + 1)
    }
}

/// The label of a route's template: the console's own ([`close_console_routes`]), or `other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleRoute(usize);

/// Any route that has no label of its own.
const OTHER_ROUTE: &str = "other";

static CONSOLE_ROUTES: OnceLock<Vec<&'static str>> = OnceLock::new();

/// Says once, before the first figure of a request, which templates the console's router counts by name. From
/// then on the set is closed: whoever comes later is `other`.
pub fn close_console_routes(templates: impl IntoIterator<Item = String>) {
    let known = templates
        .into_iter()
        .map(|template| &*template.leak())
        .chain([OTHER_ROUTE]);
    CONSOLE_ROUTES.get_or_init(|| known.collect());
}

impl Label for ConsoleRoute {
    fn codes() -> &'static [&'static str] {
        CONSOLE_ROUTES.get_or_init(|| vec![OTHER_ROUTE])
    }

    fn index(self) -> usize {
        self.0
    }
}

pub fn console_route(template: &str) -> ConsoleRoute {
    let routes = ConsoleRoute::codes();
    let known = routes.iter().position(|known| *known == template);
    // The last is that of any other template.
    ConsoleRoute(known.unwrap_or(routes.len() - 1))
}
