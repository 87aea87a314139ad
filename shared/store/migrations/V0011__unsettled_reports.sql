-- The gateways tell how old the oldest report is that has no row yet: they live when no worker does. So the public
-- process may ask of ids that it gave out itself whether a row stands for them, and learns nothing else.
-- Bounded by its caller; each id is looked up in the one partition of its own time.

CREATE FUNCTION trueup_unsettled_reports(ids uuid[], lows timestamptz[], highs timestamptz[]) RETURNS uuid[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(array_agg(asked.id), '{}')
      FROM unnest(ids, lows, highs) AS asked (id, low, high)
     WHERE NOT EXISTS (SELECT FROM events e
                        WHERE e.id = asked.id AND e.received_at >= asked.low AND e.received_at < asked.high)
$$;

REVOKE ALL ON FUNCTION trueup_unsettled_reports FROM PUBLIC;
