-- A replay of many rows is worked off by the workers, and goes on after any of them has ended. What one that
-- was begun before would still have replayed is not known: it is over, and a person begins it again.

ALTER TABLE bulk_replays
    ADD COLUMN event_ids     uuid[] NOT NULL DEFAULT '{}',     -- the oldest first (M10); none once it is over
    ADD COLUMN claim         uuid,                             -- whoever works at it now
    ADD COLUMN claimed_until timestamptz,
    ADD COLUMN tries         smallint NOT NULL DEFAULT 0;      -- of the row after those that are done
UPDATE bulk_replays SET finished_at = now() WHERE finished_at IS NULL;
-- One account has one at a time; and those that are to be worked at are found among all that ever were.
CREATE UNIQUE INDEX bulk_replays_one_at_a_time ON bulk_replays (account_id) WHERE finished_at IS NULL;
