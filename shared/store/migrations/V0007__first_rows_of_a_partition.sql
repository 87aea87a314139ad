-- A BRIN index that is made on an empty table begins with a summary of its first range of blocks. Every
-- row that comes into a summarised range rewrites the range's filter (kilobytes, compressed anew), so
-- that the first some 4,300 rows of each month were settled at a tenth of the usual speed. A range that
-- has no summary costs nothing; it gets one when it is full and vacuumed, like all that follow.

CREATE FUNCTION trueup_leave_first_range(partition regclass) RETURNS void
LANGUAGE sql AS $$
    SELECT brin_desummarize_range(i.indexrelid, 0)
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
     WHERE i.indrelid = partition AND a.amname = 'brin'
$$;

CREATE OR REPLACE FUNCTION trueup_make_partitions(now_at timestamptz DEFAULT now()) RETURNS integer
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

-- Those that are there and still in their first range (128 blocks).
SELECT trueup_leave_first_range(inhrelid::regclass) FROM pg_inherits
 WHERE inhparent = 'events'::regclass AND pg_relation_size(inhrelid) < 128 * current_setting('block_size')::bigint;
