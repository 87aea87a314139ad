-- One partition is dropped in one transaction: detaching locks the whole event table for a moment, and
-- a lock that is held while the next one is waited for would stop the settling. Rows of the DEFAULT
-- partitions go in small portions, in transactions of their own.

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
         WHERE p.relname IN ('events', 'event_requests') AND p.relnamespace = 'public'::regnamespace
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

-- At most so many rows that lie in a DEFAULT partition past their retention; returns how many went.
CREATE FUNCTION trueup_trim_default_partitions(keep_rows_days integer, keep_requests_days integer, at_most integer, now_at timestamptz DEFAULT now()) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    gone integer; more integer;
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
    RETURN gone + more;
END $$;
