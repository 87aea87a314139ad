-- People who sign in to the console, and their sessions. A person belongs to one account.

CREATE TABLE users (
    id                  uuid PRIMARY KEY,
    account_id          uuid NOT NULL REFERENCES accounts,
    email               text NOT NULL,
    password_hash       text NOT NULL,              -- argon2id, PHC text
    role                text NOT NULL CHECK (role IN ('owner', 'operator', 'viewer')),
    created_at          timestamptz NOT NULL DEFAULT now(),
    last_signed_in_at   timestamptz,
    disabled_at         timestamptz
);
CREATE UNIQUE INDEX users_by_email ON users (lower(email));
CREATE INDEX users_by_account ON users (account_id, id);

CREATE TABLE sessions (
    digest              bytea PRIMARY KEY,          -- SHA-256 of a random id that only the browser has
    user_id             uuid NOT NULL REFERENCES users,
    created_at          timestamptz NOT NULL DEFAULT now(),
    last_seen_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sessions_by_user ON sessions (user_id);

-- A person's replay of many rows: what was asked, and how far it is.
CREATE TABLE bulk_replays (
    id                  uuid PRIMARY KEY,
    account_id          uuid NOT NULL REFERENCES accounts,
    webhook_id          uuid,
    actor               text NOT NULL,
    filter              text NOT NULL,              -- the panel's query string
    total               integer NOT NULL,
    done                integer NOT NULL DEFAULT 0,
    matched             integer NOT NULL DEFAULT 0,
    refused             integer NOT NULL DEFAULT 0, -- rows that no replay may touch
    failed              integer NOT NULL DEFAULT 0,
    created_at          timestamptz NOT NULL DEFAULT now(),
    advanced_at         timestamptz NOT NULL DEFAULT now(),
    finished_at         timestamptz
);
CREATE INDEX bulk_replays_by_account ON bulk_replays (account_id, id);

-- The panel's filters over a webhook with millions of rows. A plainly matched row has no reason and
-- costs nothing here; every other row is found by its reason, and a status is the union of its reasons.
CREATE INDEX events_by_reason ON events (webhook_id, reason, received_at, id) WHERE reason IS NOT NULL;
-- One caller or one id among all rows: a few kilobytes a range of blocks instead of a tree over random
-- text, and nothing is written to it until a range is full and vacuumed.
CREATE INDEX events_by_text ON events USING brin (caller text_bloom_ops, ref_id text_bloom_ops, call_id text_bloom_ops)
    WITH (pages_per_range = 64, autosummarize = on);
