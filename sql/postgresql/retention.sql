-- Delete old rows by hand, beside running workers: one batch of executions and, once no old one is left,
-- one of ended runs.
--
--   psql -X -q -v days=90 -f sql/postgresql/retention.sql "postgresql://owner@host/fleet"
--
-- It prints what it deleted, and "run again" while more may be left. To repeat it until nothing is:
--
--   while psql -X -q -v days=90 -f sql/postgresql/retention.sql "postgresql://owner@host/fleet" |
--       grep 'run again'; do sleep 1; done
--
-- It deletes what a worker's --retention deletes: executions before runs, runs only if they have ended, rows
-- strictly older than so many days (90 without the variable, at least 30) by a time in stored form, at most
-- 10 000 in one transaction; a row that another transaction holds is left out. It goes by the server's clock,
-- and does not know how long the streams keep messages: a run that a stream still holds comes back when the
-- stream is read again. Prefer `projector upkeep --once`, which checks both, and use this if no broker can be
-- reached or the projector is not installed. Needs SELECT and DELETE on both tables, as projector_worker has.
\set ON_ERROR_STOP on
\if :{?days}
\else
\set days 90
\endif
SELECT coalesce(substring(:'days' FROM '^\d{2,5}$')::int NOT BETWEEN 30 AND 36500, true) AS refused \gset
\if :refused
DO $$ BEGIN RAISE EXCEPTION 'days must be a whole number from 30 to 36500'; END $$;
\endif

BEGIN;
SET LOCAL lock_timeout = '10s';
SET LOCAL enable_seqscan = off;
SELECT pg_advisory_xact_lock(hashtext('start-projector upkeep')) AS waited_for_the_upkeep_of_workers \gset
-- Whole seconds are the shortest form of their instant, so a row of that very second is not before it.
SELECT stored_instant(date_trunc('second', now() - make_interval(days => :days))) AS old_before \gset
WITH deleted AS (
    DELETE FROM executions
    WHERE exec_id IN (
        SELECT exec_id
        FROM executions
        WHERE initiated_at < :'old_before'
            AND is_stored_instant(initiated_at)
        LIMIT 10000
        FOR UPDATE SKIP LOCKED
    )
    RETURNING 1
)
SELECT count(*) AS executions, count(*) < 10000 AS was_last FROM deleted \gset
COMMIT;

-- Runs only once no old execution is left.
\set runs 0
\if :was_last
BEGIN;
SET LOCAL lock_timeout = '10s';
SET LOCAL enable_seqscan = off;
SELECT pg_advisory_xact_lock(hashtext('start-projector upkeep')) AS waited_for_the_upkeep_of_workers \gset
WITH deleted AS (
    DELETE FROM execution_results
    WHERE result_id IN (
        SELECT result_id
        FROM execution_results
        WHERE recorded_at < :'old_before'
            AND finished_at IS NOT NULL
            AND is_stored_instant(recorded_at)
        LIMIT 10000
        FOR UPDATE SKIP LOCKED
    )
    RETURNING 1
)
SELECT count(*) AS runs, count(*) < 10000 AS was_last FROM deleted \gset
COMMIT;
\endif

\if :was_last
\echo deleted :executions executions and :runs runs before :old_before; no more are left
\else
\echo deleted :executions executions and :runs runs before :old_before; run again, more may be left
\endif
