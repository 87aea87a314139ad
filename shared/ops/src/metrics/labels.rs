//! The values of every label: a type for each, so that no caller can name a value that the table of
//! metrics does not have. A row's status and reason are the wire's own ([`trueup_event::reason`]).

use trueup_event::reason::{Reason, RefusalReason, Status};

/// A closed set of values.
pub trait Label: Copy {
    /// Each value as Prometheus sees it.
    const CODES: &'static [&'static str];

    /// The place of this value in [`Label::CODES`].
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
        self.0.index() * B::CODES.len() + self.1.index()
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
            const CODES: &'static [&'static str] = &[$($code),+];

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
        Unauthorized = "unauthorized",
        NotFound = "not_found",
        MethodNotAllowed = "method_not_allowed",
        Malformed = "malformed",
        TooSlow = "too_slow",
        BodyTooLarge = "body_too_large",
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
        Settle = "settle",
        UsersAdd = "users.add",
        UsersSetPassword = "users.set_password",
        UsersSetRoleOrDisabled = "users.set_role_or_disabled",
        UsersSignIn = "users.sign_in",
        WebhooksArchive = "webhooks.archive",
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
    const CODES: &'static [&'static str] = Status::CODES;

    fn index(self) -> usize {
        self as usize
    }
}

impl Label for RefusalReason {
    const CODES: &'static [&'static str] = RefusalReason::CODES;

    fn index(self) -> usize {
        self as usize
    }
}

/// A row's reason, if it has one.
pub type RowReason = Option<Reason>;

impl Label for RowReason {
    const CODES: &'static [&'static str] = &{
        let mut codes = ["none"; Reason::CODES.len() + 1];
        let (_, reasons) = codes.split_at_mut(1);
        reasons.copy_from_slice(Reason::CODES);
        codes
    };

    fn index(self) -> usize {
        self.map_or(0, |reason| reason as usize + 1)
    }
}

/// The console's routes by their templates; any other address is `other`.
pub const CONSOLE_ROUTES: &[&str] = &[
    "/api/v1/account",
    "/api/v1/accounts",
    "/api/v1/api-keys",
    "/api/v1/api-keys/{id}",
    "/api/v1/assignments",
    "/api/v1/assignments/{id}",
    "/api/v1/audit-log",
    "/api/v1/buyers",
    "/api/v1/buyers/{id}",
    "/api/v1/calls",
    "/api/v1/calls/{id}",
    "/api/v1/campaigns",
    "/api/v1/campaigns/{id}",
    "/api/v1/events/{id}",
    "/api/v1/events/{id}/apply",
    "/api/v1/events/{id}/assign",
    "/api/v1/events/{id}/ignore",
    "/api/v1/events/{id}/unignore",
    "/api/v1/events/{id}/undo",
    "/api/v1/events/{id}/replay",
    "/api/v1/openapi.json",
    "/api/v1/publishers",
    "/api/v1/publishers/{id}",
    "/api/v1/publishers/{id}/ledger",
    "/api/v1/reports/revenue",
    "/api/v1/webhooks",
    "/api/v1/webhooks/{id}",
    "/api/v1/webhooks/{id}/events",
    "/api/v1/webhooks/{id}/secret",
    "/api/v1/webhooks/{id}/token",
    "/api/v1/webhooks/{id}/try",
    "other",
];

/// The label of a route's template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleRoute(usize);

impl ConsoleRoute {
    pub const fn code(self) -> &'static str {
        CONSOLE_ROUTES[self.0]
    }
}

impl Label for ConsoleRoute {
    const CODES: &'static [&'static str] = CONSOLE_ROUTES;

    fn index(self) -> usize {
        self.0
    }
}

/// The last route is that of any other template.
pub fn console_route(template: &str) -> ConsoleRoute {
    let known = CONSOLE_ROUTES.iter().position(|known| *known == template);
    ConsoleRoute(known.unwrap_or(CONSOLE_ROUTES.len() - 1))
}
