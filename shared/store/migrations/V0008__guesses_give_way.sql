-- A guess gives way to an id, a report that leaves its call takes what it moved back with it, and a person
-- can undo. What that asks of the tables, and what it makes of books that are there already.

-- Names say what a thing does.
ALTER TABLE call_notes RENAME TO call_recorded_outbox;
ALTER FUNCTION assignments_publisher_is_fixed() RENAME TO refuse_publisher_change;
ALTER FUNCTION webhooks_stamp_change() RENAME TO stamp_webhook_change;
ALTER FUNCTION webhook_secrets_touch_webhook() RENAME TO touch_webhook_of_secret;
ALTER FUNCTION postings_only_grow() RENAME TO refuse_posting_change;
ALTER FUNCTION calls_are_kept() RENAME TO refuse_call_removal;
ALTER FUNCTION publishers_are_kept() RENAME TO refuse_publisher_removal;
ALTER FUNCTION books_are_never_truncated() RENAME TO refuse_truncate;

-- A report's call was not named beyond doubt: it gives way to a report or a call that does (M9, M14).
ALTER TABLE call_reports ADD COLUMN guess boolean NOT NULL DEFAULT false;
UPDATE call_reports SET guess = true WHERE strategy = 'caller_duration' AND NOT by_person;
-- One that a person has moved to another call is not kept with the one that it left.
DELETE FROM call_reports r USING events e
 WHERE r.role = 'displaced' AND e.received_at = r.received_at AND e.id = r.event_id
   AND e.matched_call_id IS DISTINCT FROM r.call_id;

-- Why a waiting report is tried next (0: the schedule, 1: a call was recorded, 2: a copy has changed its call),
-- and the last round of waking in which it was: a recorded call wakes at most 100 of a key in a round, and the
-- rest in the next ones, but none that was woken since its own first round, when it could be seen already (M7).
CREATE SEQUENCE wake_rounds;
ALTER TABLE call_recorded_outbox ADD COLUMN first_round bigint;
UPDATE call_recorded_outbox SET seen_before = NULL, seen_at = NULL;
ALTER TABLE pending_reports ADD COLUMN cause smallint NOT NULL DEFAULT 0, ADD COLUMN woken_in bigint NOT NULL DEFAULT 0;
DROP INDEX pending_by_ref_id, pending_by_call_id, pending_by_caller;
CREATE INDEX pending_by_ref_id ON pending_reports (account_id, ref_id, woken_in, received_at) WHERE ref_id IS NOT NULL;
CREATE INDEX pending_by_call_id ON pending_reports (account_id, call_id, woken_in, received_at) WHERE call_id IS NOT NULL;
CREATE INDEX pending_by_caller ON pending_reports (account_id, caller, woken_in, received_at) WHERE caller IS NOT NULL;

-- Calls of one ref_id are told apart by their caller (M1), however many there are.
CREATE INDEX calls_by_ref_id_and_caller ON calls (account_id, ref_id, caller) WHERE ref_id IS NOT NULL;
DROP INDEX calls_by_ref_id;

-- What a row that waits for a person says, in one id, so that its repeats are known (M11); and what a
-- person has closed (M12). Kept for a day.
CREATE TABLE open_reports (
    digest              uuid PRIMARY KEY,           -- of the report (a UUID v5 under its webhook's)
    event_id            uuid NOT NULL,
    received_at         timestamptz NOT NULL,
    position            integer NOT NULL,
    reason              text,
    ignored             boolean NOT NULL DEFAULT false
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
CREATE INDEX open_reports_by_time ON open_reports (received_at);

-- Who last decided about a row (M8): assigned, applied, ignored or undid.
ALTER TABLE events ADD COLUMN decided_by text;
ALTER TABLE event_actions DROP CONSTRAINT event_actions_action_check;
ALTER TABLE event_actions ADD CONSTRAINT event_actions_action_check
    CHECK (action IN ('replay', 'assign', 'apply', 'ignore', 'unignore', 'undo'));

-- The ledger: what a report brought, and what was taken back when it left (M13). One event posts at most
-- once on one call for one cause; where a person assigns, undoes and assigns again, each is a round.
ALTER TABLE postings DROP CONSTRAINT postings_kind_check;
ALTER TABLE postings ADD CONSTRAINT postings_kind_check CHECK
    (kind IN ('estimate', 'report', 'apply', 'displaced', 'moved', 'undone', 'refolded', 'assignment'));
ALTER TABLE postings ADD COLUMN round smallint NOT NULL DEFAULT 0;
ALTER TABLE postings DISABLE TRIGGER postings_only_grow;
UPDATE postings p SET round = twice.round
  FROM (SELECT seq, row_number() OVER (PARTITION BY account_id, event_id, call_id, kind ORDER BY seq) - 1 AS round
          FROM postings WHERE event_id IS NOT NULL) twice
 WHERE twice.seq = p.seq AND twice.round > 0;
ALTER TABLE postings ENABLE TRIGGER postings_only_grow;
CREATE UNIQUE INDEX postings_once ON postings (account_id, event_id, call_id, kind, round) WHERE event_id IS NOT NULL;
-- A report that comes to its call a second time (moved away and back, undone and assigned again) finds all taken
-- back that it stood for there: no report is paid twice, whatever round the program names.
CREATE FUNCTION refuse_second_payment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM postings
      WHERE account_id = NEW.account_id AND event_id = NEW.event_id AND call_id = NEW.call_id
     HAVING sum(revenue_delta_cents) <> 0 OR sum(credit_delta_cents) <> 0;
    IF FOUND THEN
        RAISE EXCEPTION 'event % stands for money on call % already', NEW.event_id, NEW.call_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'postings_paid_once';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER postings_paid_once BEFORE INSERT ON postings FOR EACH ROW
    WHEN (NEW.round > 0 AND NEW.kind IN ('report', 'apply')) EXECUTE FUNCTION refuse_second_payment();

-- A displaced report left its postings on the call that was taken from it, and the report that took it
-- posted the difference. From now on a row without a call has no money under its name: what it holds
-- there is taken back, and stands under the migration's own name instead. No balance and no call changes.
DO $$
DECLARE
    stray record; balance bigint;
BEGIN
    FOR stray IN
        SELECT p.account_id, p.call_id, p.event_id, sum(p.revenue_delta_cents) AS revenue, sum(p.credit_delta_cents) AS credit,
               (array_agg(p.publisher_id) FILTER (WHERE p.publisher_id IS NOT NULL))[1] AS publisher_id,
               c.terms_kind, c.terms_amount_cents, c.terms_percent_e4
          FROM postings p
          JOIN events e ON e.id = p.event_id
          JOIN calls c ON c.account_id = p.account_id AND c.id = p.call_id
         WHERE e.status <> 'matched' OR e.matched_call_id IS DISTINCT FROM p.call_id
            OR (e.reason = 'replaced_heuristic_match' AND e.detail ->> 'displaced' = 'true')
         GROUP BY p.account_id, p.call_id, p.event_id, c.terms_kind, c.terms_amount_cents, c.terms_percent_e4
        HAVING sum(p.revenue_delta_cents) <> 0 OR sum(p.credit_delta_cents) <> 0
         ORDER BY p.event_id
    LOOP
        SELECT pending_balance_cents INTO balance FROM publishers WHERE id = stray.publisher_id;
        INSERT INTO postings (id, account_id, call_id, publisher_id, event_id, actor, kind, revenue_delta_cents,
                              credit_delta_cents, balance_after_cents, terms_kind, terms_amount_cents, terms_percent_e4)
        VALUES (gen_random_uuid(), stray.account_id, stray.call_id, stray.publisher_id, stray.event_id, NULL, 'displaced',
                -stray.revenue, -stray.credit, balance - stray.credit, stray.terms_kind, stray.terms_amount_cents, stray.terms_percent_e4),
               (gen_random_uuid(), stray.account_id, stray.call_id, stray.publisher_id, NULL, 'migration V0008', 'refolded',
                stray.revenue, stray.credit, balance, stray.terms_kind, stray.terms_amount_cents, stray.terms_percent_e4);
    END LOOP;
END $$;
UPDATE events SET status = 'held', revenue_delta_cents = 0, credit_delta_cents = 0
 WHERE status = 'matched' AND reason = 'replaced_heuristic_match' AND detail ->> 'displaced' = 'true';

-- What the elements of a batch have in common is stored once, with the first of them (X3).
ALTER TABLE event_requests ADD COLUMN batch_of uuid;

-- What one worker does for all now and then: when it was begun last, and how it last ended.
CREATE TABLE scheduled_runs (
    name                text PRIMARY KEY,
    started_at          timestamptz NOT NULL,
    succeeded_at        timestamptz,
    breaches            integer NOT NULL DEFAULT 0
);

-- What the program checks, the database checks too.
ALTER TABLE calls
    ADD CHECK (ended_at >= started_at),
    ADD CHECK (terms_amount_cents >= 0),
    ADD CHECK (terms_percent_e4 BETWEEN 0 AND 1000000),
    ADD CHECK ((terms_kind IS NULL) = (terms_publisher_id IS NULL)),
    ADD CHECK ((terms_kind IS NOT DISTINCT FROM 'flat') = (terms_amount_cents IS NOT NULL)),
    ADD CHECK ((terms_kind IS NOT DISTINCT FROM 'rev_share') = (terms_percent_e4 IS NOT NULL));
ALTER TABLE postings
    ADD CHECK (terms_kind IN ('flat', 'rev_share')),
    ADD CHECK ((terms_kind IS NOT DISTINCT FROM 'flat') = (terms_amount_cents IS NOT NULL)),
    ADD CHECK ((terms_kind IS NOT DISTINCT FROM 'rev_share') = (terms_percent_e4 IS NOT NULL));
ALTER TABLE call_reports ADD CHECK (strategy IN ('ref_id', 'call_id', 'caller_duration', 'person'));
ALTER TABLE events
    ADD CHECK (strategy IN ('ref_id', 'call_id', 'caller_duration', 'person')),
    ADD CHECK (reason IN (
        'no_change', 'no_payout', 'matched_late', 'reversal', 'no_assignment', 'replaced_heuristic_match', 'moved_to_its_call',
        'same_payout_within_15m', 'repeat_of_matched_report', 'repeat_of_open_report', 'older_than_applied', 'undone',
        'ambiguous', 'negative_payout', 'payout_over_cap', 'currency_mismatch', 'status_says_rejected', 'too_many_reports',
        'processing_failed', 'ref_id_not_found', 'call_id_not_found', 'caller_not_found', 'outside_window', 'duration_mismatch',
        'no_caller', 'no_duration', 'already_reported', 'other_buyer', 'payout_unparseable', 'unparseable_body',
        'unparseable_element', 'empty_batch', 'nothing_to_match', 'endpoint_disabled', 'secret_missing', 'secret_mismatch',
        'rate_limited_ip', 'rate_limited_token', 'body_too_large'));

CREATE FUNCTION refuse_account_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.default_region <> OLD.default_region OR NEW.currency <> OLD.currency THEN
        RAISE EXCEPTION 'an account''s region and currency cannot change: its callers and amounts were read by them; make a new account'
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER accounts_region_and_currency_are_fixed BEFORE UPDATE ON accounts
    FOR EACH ROW EXECUTE FUNCTION refuse_account_change();
