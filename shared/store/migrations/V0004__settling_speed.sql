-- What a settled report costs the database. Three foreign keys took a fifth of a batch's time, for rows
-- that the same transaction holds locked or has just read: a call's report, the ledger's publisher, a
-- call's recorded publisher. What they promised is kept from the other side, where it costs nothing: a
-- call or a publisher that the books name cannot be removed or renamed. `reconcile` checks it, too.

ALTER TABLE call_reports DROP CONSTRAINT call_reports_account_id_call_id_fkey;
ALTER TABLE postings DROP CONSTRAINT postings_publisher_id_fkey;
ALTER TABLE calls DROP CONSTRAINT calls_terms_publisher_id_fkey;

CREATE FUNCTION calls_are_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM call_reports WHERE account_id = OLD.account_id AND call_id = OLD.id)
       OR EXISTS (SELECT FROM postings WHERE account_id = OLD.account_id AND call_id = OLD.id) THEN
        RAISE EXCEPTION 'a call that was reported or posted is kept as long as the ledger'
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER calls_are_kept BEFORE DELETE OR UPDATE OF account_id, id ON calls
    FOR EACH ROW EXECUTE FUNCTION calls_are_kept();

CREATE FUNCTION publishers_are_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM postings WHERE publisher_id = OLD.id)
       OR EXISTS (SELECT FROM calls WHERE account_id = OLD.account_id AND terms_publisher_id = OLD.id) THEN
        RAISE EXCEPTION 'a publisher that the ledger or a call names is kept'
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER publishers_are_kept BEFORE DELETE OR UPDATE OF id ON publishers
    FOR EACH ROW EXECUTE FUNCTION publishers_are_kept();

CREATE FUNCTION books_are_never_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger names the rows of %', TG_TABLE_NAME USING ERRCODE = 'foreign_key_violation';
END $$;
CREATE TRIGGER calls_never_truncated BEFORE TRUNCATE ON calls
    FOR EACH STATEMENT EXECUTE FUNCTION books_are_never_truncated();
CREATE TRIGGER publishers_never_truncated BEFORE TRUNCATE ON publishers
    FOR EACH STATEMENT EXECUTE FUNCTION books_are_never_truncated();

-- Calls and balances are updated in place all day; nothing that changes there is indexed, so a page is
-- tidied by the next writer (HOT) and vacuum only has to come by now and then. The tables through which
-- rows merely pass are another matter: they are small if vacuumed often, and a scan of the dead if not.
ALTER TABLE calls SET (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE publishers SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);
ALTER TABLE pending_reports SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER TABLE call_notes SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000);
ALTER TABLE event_attempts SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);

-- A note is kept until every transaction has ended that had begun when a worker first saw it: one of them
-- may be settling a report that waits for this very call (M7). Null: not seen yet.
ALTER TABLE call_notes ADD COLUMN seen_before xid8;
ALTER TABLE call_notes ADD COLUMN seen_at timestamptz;

-- These are looked up by equality alone, and bytes are compared several times faster than a language's
-- letters.
ALTER TABLE calls ALTER COLUMN ref_id TYPE text COLLATE "C", ALTER COLUMN caller TYPE text COLLATE "C";
ALTER TABLE call_reports ALTER COLUMN caller TYPE text COLLATE "C";
ALTER TABLE pending_reports ALTER COLUMN ref_id TYPE text COLLATE "C", ALTER COLUMN caller TYPE text COLLATE "C";
