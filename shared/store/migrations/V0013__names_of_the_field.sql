-- Names that a reader who knows Postgres and payments understands. No table is rewritten, and no process
-- names any of these: two versions run side by side.

ALTER INDEX call_reports_by_signature RENAME TO call_reports_by_fingerprint;

-- A function's text names the function that it calls: it is made anew with the other name.
ALTER FUNCTION trueup_leave_first_range(regclass) RENAME TO trueup_desummarize_first_range;
DO $$
BEGIN
    EXECUTE replace(
        pg_get_functiondef('trueup_make_partitions(timestamptz)'::regprocedure),
        'trueup_leave_first_range', 'trueup_desummarize_first_range');
END $$;
