-- Delete old rows by hand, beside running workers: one batch of executions and, once no old one is left,
-- one of ended runs.
--
--   sqlite3 projector.db ".parameter set :days 90" ".read sql/sqlite/retention.sql"
--
-- It prints what it deleted, and "run again" while more may be left. To repeat it until nothing is:
--
--   while sqlite3 projector.db ".parameter set :days 90" ".read sql/sqlite/retention.sql" |
--       grep 'run again'; do sleep 1; done
--
-- It deletes what a worker's --retention deletes: executions before runs, runs only if they have ended, rows
-- strictly older than so many days (90 without the parameter, at least 30) by a time in stored form, at most
-- 10 000 in one transaction. It goes by this machine's clock, and does not know how long the streams keep
-- messages: a run that a stream still holds comes back when the stream is read again. Prefer
-- `projector upkeep --once`, which checks both, and use this if no broker can be reached or the projector
-- is not installed. Measured times: sql/README.md.
.bail on
.headers off
.mode list
.timeout 10000

-- The pages that a batch touches stay in memory. A worker copies the log into the file once it has 16 000
-- pages; only beside an idle one this connection does, at twice as many.
.output /dev/null
PRAGMA cache_size = -65536;
PRAGMA wal_autocheckpoint = 32000;
.output

CREATE TEMP TABLE chosen (
    days INTEGER NOT NULL
        CONSTRAINT "days must be a whole number from 30 to 36500"
        CHECK (typeof(days) = 'integer' AND days BETWEEN 30 AND 36500)
);
INSERT INTO chosen VALUES (coalesce(:days, 90));

-- Whole seconds are the shortest form of their instant, so a row of that very second is not before it.
CREATE TEMP TABLE batch AS
SELECT strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now', '-' || days || ' days') AS old_before, 0 AS executions
FROM chosen;

BEGIN IMMEDIATE;
DELETE FROM executions
WHERE exec_id IN (
    SELECT exec_id
    FROM executions
    WHERE initiated_at < (SELECT old_before FROM batch)
        AND initiated_at = strftime('%Y-%m-%dT%H:%M:%S', substr(initiated_at, 1, 19), '+0 days')
            || substr(initiated_at, 20)
        AND initiated_at LIKE '%+00:00' AND initiated_at NOT LIKE '% %'
        AND julianday(initiated_at) IS NOT NULL
        AND length(initiated_at) IN (25, 29, 32, 35)
    LIMIT 10000
);
UPDATE batch SET executions = changes();
COMMIT;

-- Runs only once no old execution is left.
BEGIN IMMEDIATE;
DELETE FROM execution_results
WHERE result_id IN (
    SELECT result_id
    FROM execution_results
    WHERE recorded_at < (SELECT old_before FROM batch)
        AND finished_at IS NOT NULL
        AND recorded_at = strftime('%Y-%m-%dT%H:%M:%S', substr(recorded_at, 1, 19), '+0 days')
            || substr(recorded_at, 20)
        AND recorded_at LIKE '%+00:00' AND recorded_at NOT LIKE '% %'
        AND julianday(recorded_at) IS NOT NULL
        AND length(recorded_at) IN (25, 29, 32, 35)
    LIMIT (SELECT iif(executions < 10000, 10000, 0) FROM batch)
);
SELECT 'deleted ' || executions || ' executions and ' || changes() || ' runs before ' || old_before
    || iif(executions = 10000 OR changes() = 10000, '; run again, more may be left', '; no more are left')
FROM batch;
COMMIT;
