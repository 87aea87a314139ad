-- Raw requests were two fifths of what a settled report took: one row each, of text that is nearly the same
-- from row to row. Those of a settled batch are now kept together, in one compressed row (ADR 0036), and an
-- event says where its request lies in it. What is in event_requests stays there, is read from there, and goes
-- with its retention; what is read anew later is written there as before, and outranks the block.

CREATE TABLE event_request_blocks (
    received_at         timestamptz NOT NULL,       -- of its last request; all are of one UTC day
    number              bigint NOT NULL,
    rows                smallint NOT NULL,
    content             bytea NOT NULL,             -- compressed by the program
    PRIMARY KEY (number, received_at)
) PARTITION BY RANGE (received_at);
ALTER TABLE event_request_blocks ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE TABLE event_request_blocks_default PARTITION OF event_request_blocks DEFAULT;

CREATE OR REPLACE FUNCTION trueup_make_partitions(now_at timestamptz DEFAULT now()) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    made integer := 0;
    parent text; unit text; ahead integer; step interval; low timestamptz; high timestamptz; name text;
BEGIN
    FOR parent, unit, ahead IN
        VALUES ('events', 'month', 3), ('event_requests', 'day', 7), ('event_request_blocks', 'day', 7)
    LOOP
        step := ('1 ' || unit)::interval;
        FOR i IN -1..ahead LOOP
            low := date_trunc(unit, now_at) + i * step;
            high := low + step;
            name := parent || '_' || to_char(low, CASE unit WHEN 'month' THEN 'YYYYMM' ELSE 'YYYYMMDD' END);
            IF to_regclass(name) IS NULL THEN
                BEGIN
                    -- Attaching takes a lighter lock on the parent than PARTITION OF does.
                    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)', name, parent);
                    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, low, high);
                    PERFORM trueup_leave_first_range(name::regclass);
                    made := made + 1;
                EXCEPTION
                    -- Stragglers of this range already sit in the DEFAULT partition, or a lock was busy,
                    -- or another worker was first: DEFAULT goes on serving, and the next run tries again.
                    WHEN check_violation OR lock_not_available OR duplicate_table OR unique_violation THEN NULL;
                END;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

CREATE OR REPLACE FUNCTION trueup_drop_partitions(keep_rows_days integer, keep_requests_days integer, now_at timestamptz DEFAULT now()) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    part record; high timestamptz; keep interval;
BEGIN
    IF keep_rows_days < 1 OR keep_requests_days < 1 THEN
        RAISE EXCEPTION 'retention must be at least 1 day';
    END IF;
    FOR part IN
        SELECT c.relname AS name, p.relname AS parent, pg_get_expr(c.relpartbound, c.oid) AS bound
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
         WHERE p.relname IN ('events', 'event_requests', 'event_request_blocks') AND p.relnamespace = 'public'::regnamespace
           AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
         ORDER BY c.relname
    LOOP
        keep := make_interval(days => CASE part.parent WHEN 'events' THEN keep_rows_days ELSE keep_requests_days END);
        high := (regexp_match(part.bound, 'TO \(''([^'']+)''\)'))[1]::timestamptz;
        IF high <= now_at - keep THEN
            BEGIN
                EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', part.parent, part.name);
                EXECUTE format('DROP TABLE %I', part.name);
                RETURN 1;
            EXCEPTION
                -- Somebody reads it, or another worker was first: the next run tries again. Not the next
                -- partition at once: each wait for a lock is a wait for everybody behind it.
                WHEN lock_not_available OR undefined_table THEN RETURN 0;
            END;
        END IF;
    END LOOP;
    RETURN 0;
END $$;

CREATE OR REPLACE FUNCTION trueup_trim_default_partitions(keep_rows_days integer, keep_requests_days integer, at_most integer, now_at timestamptz DEFAULT now()) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    gone integer; more integer; blocks integer;
BEGIN
    IF keep_rows_days < 1 OR keep_requests_days < 1 THEN
        RAISE EXCEPTION 'retention must be at least 1 day';
    END IF;
    DELETE FROM events_default WHERE (received_at, id) IN
        (SELECT received_at, id FROM events_default WHERE received_at < now_at - make_interval(days => keep_rows_days) LIMIT at_most);
    GET DIAGNOSTICS gone = ROW_COUNT;
    DELETE FROM event_requests_default WHERE (received_at, id) IN
        (SELECT received_at, id FROM event_requests_default WHERE received_at < now_at - make_interval(days => keep_requests_days) LIMIT at_most);
    GET DIAGNOSTICS more = ROW_COUNT;
    DELETE FROM event_request_blocks_default WHERE (received_at, number) IN
        (SELECT received_at, number FROM event_request_blocks_default WHERE received_at < now_at - make_interval(days => keep_requests_days) LIMIT at_most);
    GET DIAGNOSTICS blocks = ROW_COUNT;
    RETURN gone + more + blocks;
END $$;

-- The number of its block and, in the last nine bits, its row there. The column costs nothing to add; the lock on
-- the whole event table is waited for as briefly as every lock of a migration (migrate.rs).
ALTER TABLE events ADD COLUMN request_place bigint;

SELECT trueup_make_partitions();
