-- Partitions are made ahead and dropped by retention through functions of the owner, so that the
-- worker's role needs no right to create or drop a table. Rows are kept by month, raw requests by
-- day. What has no partition of its own (a clock far off) goes to the DEFAULT one and stays there.

CREATE FUNCTION trueup_make_partitions(now_at timestamptz DEFAULT now()) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    made integer := 0;
    parent text; step interval; ahead integer; low timestamptz; high timestamptz; name text;
BEGIN
    FOR parent, step, ahead IN VALUES ('events', interval '1 month', 3), ('event_requests', interval '1 day', 7) LOOP
        FOR i IN -1..ahead LOOP
            low := date_trunc(CASE parent WHEN 'events' THEN 'month' ELSE 'day' END, now_at) + i * step;
            high := low + step;
            name := parent || '_' || to_char(low, CASE parent WHEN 'events' THEN 'YYYYMM' ELSE 'YYYYMMDD' END);
            IF to_regclass(name) IS NULL THEN
                BEGIN
                    -- Attaching takes a lighter lock on the parent than PARTITION OF does.
                    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
                    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, low, high);
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

CREATE FUNCTION trueup_drop_partitions(keep_rows_days integer, keep_requests_days integer, now_at timestamptz DEFAULT now()) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    dropped integer := 0;
    part record; high timestamptz; keep interval;
BEGIN
    IF keep_rows_days < 1 OR keep_requests_days < 1 THEN
        RAISE EXCEPTION 'retention must be at least 1 day';
    END IF;
    FOR part IN
        SELECT c.relname AS name, p.relname AS parent, pg_get_expr(c.relpartbound, c.oid) AS bound
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
         WHERE p.relname IN ('events', 'event_requests') AND p.relnamespace = 'public'::regnamespace
    LOOP
        keep := make_interval(days => CASE part.parent WHEN 'events' THEN keep_rows_days ELSE keep_requests_days END);
        IF part.bound = 'DEFAULT' THEN
            EXECUTE format('DELETE FROM %I WHERE received_at < %L', part.name, now_at - keep);
            CONTINUE;
        END IF;
        high := (regexp_match(part.bound, 'TO \(''([^'']+)''\)'))[1]::timestamptz;
        IF high <= now_at - keep THEN
            BEGIN
                EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', part.parent, part.name);
                EXECUTE format('DROP TABLE %I', part.name);
                dropped := dropped + 1;
            EXCEPTION WHEN lock_not_available THEN NULL;     -- the next run tries again
            END;
        END IF;
    END LOOP;
    RETURN dropped;
END $$;

SELECT trueup_make_partitions();
