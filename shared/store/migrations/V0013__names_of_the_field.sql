-- Names that a reader who knows Postgres and payments understands. No table is rewritten, and no process
-- names any of these: two versions run side by side.

ALTER INDEX call_reports_by_signature RENAME TO call_reports_by_fingerprint;

-- Trigger functions say what they do.
ALTER FUNCTION assignments_publisher_is_fixed() RENAME TO forbid_publisher_change;
ALTER FUNCTION books_are_never_truncated() RENAME TO forbid_truncate;
ALTER FUNCTION calls_are_kept() RENAME TO forbid_call_delete;
ALTER FUNCTION postings_only_grow() RENAME TO forbid_posting_change;
ALTER FUNCTION publishers_are_kept() RENAME TO forbid_publisher_delete;
ALTER FUNCTION refuse_account_change() RENAME TO forbid_account_change;
ALTER FUNCTION refuse_second_payment() RENAME TO forbid_second_payment;
ALTER FUNCTION webhook_secrets_touch_webhook() RENAME TO stamp_webhook_of_secret;
ALTER FUNCTION webhooks_stamp_change() RENAME TO stamp_webhook_change;

-- A function's text names the function that it calls: it is made anew with the other name.
ALTER FUNCTION trueup_leave_first_range(regclass) RENAME TO trueup_desummarize_first_range;
DO $$
BEGIN
    EXECUTE replace(
        pg_get_functiondef('trueup_make_partitions(timestamptz)'::regprocedure),
        'trueup_leave_first_range', 'trueup_desummarize_first_range');
END $$;
