-- Trueup's books. Money is whole cents (bigint). Times are timestamptz with microseconds.
-- Every table that belongs to a customer carries account_id, and every key starts with it where
-- the id was chosen outside, so that one account's ids can never collide with another's.

CREATE TABLE accounts (
    id              uuid PRIMARY KEY,
    name            text NOT NULL,
    default_region  text NOT NULL DEFAULT 'US',
    currency        text NOT NULL DEFAULT 'USD',
    time_zone       text NOT NULL DEFAULT 'UTC',
    created_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id              uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts,
    name            text NOT NULL DEFAULT 'default',
    digest          bytea NOT NULL UNIQUE,          -- SHA-256 of a random key
    prefix          text NOT NULL,                  -- first characters, to recognise it by
    created_at      timestamptz NOT NULL DEFAULT now(),
    last_used_at    timestamptz,
    revoked_at      timestamptz
);
CREATE INDEX api_keys_by_account ON api_keys (account_id, created_at);

CREATE TABLE buyers (
    id              uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts,
    name            text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX buyers_by_account ON buyers (account_id, id);

CREATE TABLE publishers (
    id                      uuid PRIMARY KEY,
    account_id              uuid NOT NULL REFERENCES accounts,
    name                    text NOT NULL,
    -- The sum of the publisher's postings, kept beside them in the same transaction (V10).
    pending_balance_cents   bigint NOT NULL DEFAULT 0,
    created_at              timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
CREATE INDEX publishers_by_account ON publishers (account_id, id);

CREATE TABLE campaigns (
    id              uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts,
    name            text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX campaigns_by_account ON campaigns (account_id, id);

-- The single source of truth for what a publisher earns (seed).
CREATE TABLE assignments (
    id              uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts,
    campaign_id     uuid NOT NULL REFERENCES campaigns,
    publisher_id    uuid NOT NULL REFERENCES publishers,
    kind            text NOT NULL CHECK (kind IN ('flat', 'rev_share')),
    amount_cents    bigint CHECK (amount_cents >= 0),
    percent_e4      integer CHECK (percent_e4 BETWEEN 0 AND 1000000),   -- percent x 10^4
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CHECK ((kind = 'flat') = (amount_cents IS NOT NULL)),
    CHECK ((kind = 'rev_share') = (percent_e4 IS NOT NULL))
);
CREATE INDEX assignments_by_account ON assignments (account_id, id);

CREATE FUNCTION assignments_publisher_is_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.publisher_id <> OLD.publisher_id THEN
        RAISE EXCEPTION 'an assignment''s publisher cannot change (V9); make a new assignment'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER assignments_publisher_is_fixed BEFORE UPDATE ON assignments
    FOR EACH ROW EXECUTE FUNCTION assignments_publisher_is_fixed();

CREATE TABLE webhooks (
    id                          uuid PRIMARY KEY,
    account_id                  uuid NOT NULL REFERENCES accounts,
    name                        text NOT NULL,
    token                       text NOT NULL UNIQUE,
    buyer_id                    uuid REFERENCES buyers,
    enabled                     boolean NOT NULL DEFAULT true,
    require_secret              boolean NOT NULL DEFAULT false,
    secret_query_param          text,               -- a query parameter that may carry the secret
    field_names                 jsonb NOT NULL DEFAULT '{}',
    duration_tolerance_seconds  integer NOT NULL DEFAULT 60 CHECK (duration_tolerance_seconds BETWEEN 0 AND 86400),
    match_window_hours          integer NOT NULL DEFAULT 24 CHECK (match_window_hours BETWEEN 1 AND 8760),
    limit_per_minute            integer CHECK (limit_per_minute BETWEEN 1 AND 1000000),
    ip_limit_per_minute         integer CHECK (ip_limit_per_minute BETWEEN 1 AND 1000000),
    payout_cap_cents            bigint NOT NULL DEFAULT 1000000 CHECK (payout_cap_cents > 0),
    duration_unit               text NOT NULL DEFAULT 'seconds' CHECK (duration_unit IN ('seconds', 'milliseconds', 'minutes')),
    payout_unit                 text NOT NULL DEFAULT 'dollars' CHECK (payout_unit IN ('dollars', 'cents')),
    on_currency_mismatch        text NOT NULL DEFAULT 'hold' CHECK (on_currency_mismatch IN ('hold', 'trust')),
    on_rejection_word           text NOT NULL DEFAULT 'hold' CHECK (on_rejection_word IN ('hold', 'trust')),
    created_at                  timestamptz NOT NULL DEFAULT now(),
    updated_at                  timestamptz NOT NULL DEFAULT now(),
    archived_at                 timestamptz,
    -- The transaction that last changed the row: a gateway re-reads what changed since its horizon.
    changed_xid                 bigint NOT NULL DEFAULT 0
);
CREATE INDEX webhooks_by_account ON webhooks (account_id, id);
CREATE INDEX webhooks_by_change ON webhooks (changed_xid);

CREATE FUNCTION webhooks_stamp_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_xid := pg_current_xact_id()::text::bigint;
    RETURN NEW;
END $$;
CREATE TRIGGER webhooks_stamp_change BEFORE INSERT OR UPDATE ON webhooks
    FOR EACH ROW EXECUTE FUNCTION webhooks_stamp_change();

CREATE TABLE webhook_secrets (
    id              uuid PRIMARY KEY,
    webhook_id      uuid NOT NULL REFERENCES webhooks,
    digest          bytea NOT NULL,                 -- SHA-256 of a random secret
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz,                    -- set when rotated: valid until then
    last_used_at    timestamptz
);
CREATE INDEX webhook_secrets_by_webhook ON webhook_secrets (webhook_id);

CREATE FUNCTION webhook_secrets_touch_webhook() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE webhooks SET updated_at = now() WHERE id = COALESCE(NEW.webhook_id, OLD.webhook_id);
    RETURN NULL;
END $$;
-- A use of a secret is no change of settings: last_used_at alone does not wake the gateways.
CREATE TRIGGER webhook_secrets_touch_webhook
    AFTER INSERT OR DELETE OR UPDATE OF digest, expires_at ON webhook_secrets
    FOR EACH ROW EXECUTE FUNCTION webhook_secrets_touch_webhook();

CREATE TABLE calls (
    account_id              uuid NOT NULL REFERENCES accounts,
    id                      uuid NOT NULL,
    ref_id                  text,
    caller                  text,                   -- E.164 (X9), null if withheld
    caller_raw              text,
    tracking_number         text,
    duration_seconds        integer NOT NULL CHECK (duration_seconds BETWEEN 0 AND 86400),
    started_at              timestamptz NOT NULL,
    ended_at                timestamptz NOT NULL,
    buyer_id                uuid REFERENCES buyers,
    assignment_id           uuid REFERENCES assignments,
    value_cents             bigint CHECK (value_cents >= 0),
    value_from_webhook      boolean NOT NULL DEFAULT false,
    qualified               boolean,
    publisher_payout_cents  bigint NOT NULL DEFAULT 0 CHECK (publisher_payout_cents >= 0),
    -- What the last copy said before the first report: the ground on which the reports are folded.
    estimate_value_cents    bigint CHECK (estimate_value_cents >= 0),
    estimate_qualified      boolean,
    -- The terms of the last posting; fixed once value_from_webhook is true (V9).
    terms_publisher_id      uuid REFERENCES publishers,
    terms_kind              text CHECK (terms_kind IN ('flat', 'rev_share')),
    terms_amount_cents      bigint,
    terms_percent_e4        integer,
    reported_by_webhook_id  uuid,                   -- whose report the value is
    created_at              timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, id)
) WITH (fillfactor = 80);
CREATE INDEX calls_by_ref_id ON calls (account_id, ref_id) WHERE ref_id IS NOT NULL;
CREATE INDEX calls_by_caller ON calls (account_id, caller, ended_at) WHERE caller IS NOT NULL;
CREATE INDEX calls_by_start ON calls (account_id, started_at, id);

-- Each report that was found to be about a call: what the call's money is folded from (V3), who
-- claimed it (M5), and the signature its retries are known by (M4).
CREATE TABLE call_reports (
    account_id          uuid NOT NULL,
    call_id             uuid NOT NULL,
    received_at         timestamptz NOT NULL,
    position            integer NOT NULL,           -- in its batch
    event_id            uuid NOT NULL,
    webhook_id          uuid NOT NULL,
    strategy            text NOT NULL,
    role                text NOT NULL CHECK (role IN ('folded', 'held', 'displaced')),
    exempt_from_v2      boolean NOT NULL DEFAULT false,     -- a person's apply (M8)
    by_person           boolean NOT NULL DEFAULT false,
    payout_cents        bigint NOT NULL,
    caller              text,
    duration_seconds    integer,
    ref_id              text,
    call_id_text        text,
    PRIMARY KEY (account_id, call_id, received_at, position, event_id),
    FOREIGN KEY (account_id, call_id) REFERENCES calls
);
CREATE INDEX call_reports_by_signature ON call_reports (webhook_id, caller, duration_seconds, received_at)
    WHERE caller IS NOT NULL AND duration_seconds IS NOT NULL;

-- The ledger only grows (V10): the triggers below refuse every other change, whoever asks.
CREATE TABLE postings (
    seq                     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id                      uuid NOT NULL,
    account_id              uuid NOT NULL,
    call_id                 uuid NOT NULL,
    publisher_id            uuid REFERENCES publishers,     -- null: a call without an assignment
    event_id                uuid,                           -- what caused it, or
    actor                   text,                           -- the person or key that did
    kind                    text NOT NULL CHECK (kind IN ('estimate', 'report', 'apply')),
    revenue_delta_cents     bigint NOT NULL,
    credit_delta_cents      bigint NOT NULL,
    balance_after_cents     bigint,
    terms_kind              text,
    terms_amount_cents      bigint,
    terms_percent_e4        integer,
    created_at              timestamptz NOT NULL DEFAULT now(),
    CHECK (event_id IS NOT NULL OR actor IS NOT NULL),
    CHECK (publisher_id IS NOT NULL OR credit_delta_cents = 0)
);
CREATE INDEX postings_by_publisher ON postings (publisher_id, seq) WHERE publisher_id IS NOT NULL;
CREATE INDEX postings_by_call ON postings (account_id, call_id);

CREATE FUNCTION postings_only_grow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger only grows: a posting is never changed or removed (V10); post the difference instead'
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER postings_only_grow BEFORE UPDATE OR DELETE ON postings
    FOR EACH ROW EXECUTE FUNCTION postings_only_grow();
CREATE TRIGGER postings_never_truncated BEFORE TRUNCATE ON postings
    FOR EACH STATEMENT EXECUTE FUNCTION postings_only_grow();

-- One row for every accepted report, and one for a bundle of refused requests. The id is a UUID v7
-- of received_at's millisecond, so an id finds its partition by its own time.
CREATE TABLE events (
    received_at         timestamptz NOT NULL,
    id                  uuid NOT NULL,
    account_id          uuid NOT NULL,
    webhook_id          uuid NOT NULL,
    position            integer NOT NULL DEFAULT 0,
    source_ip           inet,
    caller              text,
    caller_raw          text,
    duration_seconds    integer,
    ref_id              text,
    call_id             text,                       -- as reported, never the match's
    payout_raw          text,
    payout_cents        bigint,
    currency            text,
    rejection_word      text,
    status              text NOT NULL CHECK (status IN ('matched', 'duplicate', 'superseded', 'held', 'unmatched', 'refused')),
    reason              text,
    detail              json,                       -- the figures of the reason's sentence
    strategy            text,
    matched_call_id     uuid,
    revenue_delta_cents bigint NOT NULL DEFAULT 0,
    credit_delta_cents  bigint NOT NULL DEFAULT 0,
    count               integer NOT NULL DEFAULT 1, -- how many requests a refused row stands for
    retry_until         timestamptz,                -- an unmatched report is tried again until then (M7)
    applied_from        uuid,                       -- a person's apply: the row it was made from (M8)
    ignored_at          timestamptz,
    ignored_by          text,
    processed_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (received_at, id)
) PARTITION BY RANGE (received_at);
CREATE INDEX events_by_webhook ON events (webhook_id, received_at, id);
CREATE TABLE events_default PARTITION OF events DEFAULT;

-- The request as it came (secrets redacted) and how it was read; kept for a shorter time.
CREATE TABLE event_requests (
    received_at         timestamptz NOT NULL,
    id                  uuid NOT NULL,
    request             text NOT NULL,              -- JSON: method, query, content_type, body
    reading             text,                       -- JSON: how each slot was read
    PRIMARY KEY (received_at, id)
) PARTITION BY RANGE (received_at);
CREATE TABLE event_requests_default PARTITION OF event_requests DEFAULT;

-- Unmatched reports that may still find their call (M7).
CREATE TABLE pending_reports (
    event_id            uuid PRIMARY KEY,
    received_at         timestamptz NOT NULL,
    account_id          uuid NOT NULL,
    ref_id              text,
    call_id             uuid,
    caller              text,
    since               timestamptz NOT NULL DEFAULT now(),     -- the schedule is counted from here
    next_try_at         timestamptz NOT NULL
);
CREATE INDEX pending_by_ref_id ON pending_reports (account_id, ref_id) WHERE ref_id IS NOT NULL;
CREATE INDEX pending_by_call_id ON pending_reports (account_id, call_id) WHERE call_id IS NOT NULL;
CREATE INDEX pending_by_caller ON pending_reports (account_id, caller) WHERE caller IS NOT NULL;
CREATE INDEX pending_by_time ON pending_reports (next_try_at);

-- "This call was recorded": written in the recording's transaction, taken by a worker (M7).
CREATE TABLE call_notes (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id          uuid NOT NULL,
    call_id             uuid NOT NULL,
    ref_id              text,
    caller              text
);

-- What persons did with a row (M8).
CREATE TABLE event_actions (
    id                  uuid PRIMARY KEY,
    account_id          uuid NOT NULL,
    event_id            uuid NOT NULL,
    action              text NOT NULL CHECK (action IN ('replay', 'assign', 'apply', 'ignore')),
    actor               text NOT NULL,
    detail              json,
    outcome             text,
    created_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX event_actions_by_event ON event_actions (account_id, event_id, created_at);

-- How often a redelivered event was begun: five failures park it, even if it kills the worker (V12).
CREATE TABLE event_attempts (
    event_id            uuid PRIMARY KEY,
    attempts            integer NOT NULL,
    last_at             timestamptz NOT NULL DEFAULT now()
);

-- Every change of a setting, with who made it.
CREATE TABLE audit_log (
    id                  uuid PRIMARY KEY,
    account_id          uuid NOT NULL,
    actor               text NOT NULL,
    action              text NOT NULL,
    object_kind         text NOT NULL,
    object_id           uuid,
    detail              jsonb,
    created_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_by_account ON audit_log (account_id, created_at);

-- The only thing the public process may read: no payout, no caller, no balance is in it.
CREATE VIEW webhook_ingest AS
    SELECT w.id AS webhook_id, w.account_id, w.token, w.enabled, w.require_secret, w.secret_query_param,
           w.limit_per_minute, w.ip_limit_per_minute, w.archived_at IS NOT NULL AS archived, w.changed_xid,
           ARRAY(SELECT s.id FROM webhook_secrets s WHERE s.webhook_id = w.id ORDER BY s.id) AS secret_ids,
           ARRAY(SELECT s.digest FROM webhook_secrets s WHERE s.webhook_id = w.id ORDER BY s.id) AS secret_digests,
           ARRAY(SELECT s.expires_at FROM webhook_secrets s WHERE s.webhook_id = w.id ORDER BY s.id) AS secret_expiries
      FROM webhooks w;
