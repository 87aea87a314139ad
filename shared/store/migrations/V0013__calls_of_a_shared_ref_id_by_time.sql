-- Of the calls that share a ref_id and a caller the latest are looked at, without sorting all of them (V13).
CREATE INDEX calls_by_ref_id_caller_and_end ON calls (account_id, ref_id, caller, ended_at DESC) WHERE ref_id IS NOT NULL;
DROP INDEX calls_by_ref_id_and_caller;
