-- What is no longer used leaves the lists and stays where it was used.
ALTER TABLE buyers ADD COLUMN archived_at timestamptz;
ALTER TABLE publishers ADD COLUMN archived_at timestamptz;
ALTER TABLE campaigns ADD COLUMN archived_at timestamptz;
ALTER TABLE assignments ADD COLUMN archived_at timestamptz;

-- What waits for somebody to decide it, however old it is: the inbox, and its count on every page. A row that
-- was matched without a payout is among them; whether its call has got one since, its reports say.
CREATE INDEX events_open ON events (account_id, webhook_id, received_at, id) INCLUDE (status)
    WHERE ignored_at IS NULL AND (status IN ('held', 'unmatched') OR (status = 'matched' AND reason = 'no_payout'));

-- Browsers in which a user has signed in before: nobody who knows the e-mail address can keep them out.
CREATE TABLE known_browsers (
    digest              bytea PRIMARY KEY,          -- SHA-256 of a random id that only the browser has
    user_id             uuid NOT NULL REFERENCES users,
    last_used_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX known_browsers_by_user ON known_browsers (user_id, last_used_at);
