-- The reaper gives up runs that are overdue: up to 500 in one transaction, the longest overdue first.
-- Only times in stored form count: a text in another form could sort before the limit too early. Such
-- a text has a date and a time of day that exist, +00:00 at its end, and 0, 3, 6 or 9 digits between.

-- name: list_overdue_runs
-- Return runs in flight whose deadline is before a time.
-- Frequency: once per 500 overdue runs, at least once per tick, in the transaction that gives them up.
-- Index: execution_results_in_flight_expires_at.
SELECT result_id, exec_id, job_id, pc_id, expires_at
FROM execution_results
WHERE finished_at IS NULL
    AND expires_at < ?
    AND is_stored_instant(expires_at)
ORDER BY expires_at
LIMIT ?;

-- name: list_overdue_runs_without_deadline
-- Return runs in flight that have no deadline and were stored before a time.
-- Frequency: as list_overdue_runs.
-- Index: execution_results_in_flight_expires_at, for all runs in flight without a deadline.
SELECT result_id, exec_id, job_id, pc_id, NULL AS expires_at
FROM execution_results
WHERE finished_at IS NULL
    AND expires_at IS NULL
    AND recorded_at < ?
    AND is_stored_instant(recorded_at)
ORDER BY recorded_at
LIMIT ?;

-- name: count_unreadable_times
-- Count runs in flight that are never given up, since their deadline, or the time at which they were
-- stored if they have none, is no time in stored form. A text between the limit and ':' may be a time
-- that is still to come, so it is not looked at: ':' follows '9' and is above every time in stored form.
-- Frequency: once per tick.
-- Index: execution_results_in_flight_expires_at, for the deadlines on either side and for all runs in
-- flight without a deadline.
SELECT
    (
        SELECT count(*)
        FROM execution_results
        WHERE finished_at IS NULL
            AND expires_at < :expires_before
            AND NOT is_stored_instant(expires_at)
    ) + (
        SELECT count(*) FROM execution_results WHERE finished_at IS NULL AND expires_at >= ':'
    ) + (
        SELECT count(*)
        FROM execution_results
        WHERE finished_at IS NULL
            AND expires_at IS NULL
            AND (recorded_at < :recorded_before OR recorded_at >= ':')
            AND NOT is_stored_instant(recorded_at)
    ) AS runs;

-- name: reap_run
-- Give up a run in flight. What it has written so far is kept, with a note below it. The exit code -1 only
-- fills the column, since a script may exit with it too: reaped = 1 is what marks the run.
-- Values: when it is given up, the note, the run's id.
-- Frequency: once for each overdue run.
-- Index: primary key (result_id); writes execution_results_reaped_finished_at.
UPDATE execution_results
SET
    finished_at = ?,
    exit_code = -1,
    reaped = 1,
    stderr = CASE WHEN stderr = '' THEN '' ELSE stderr || chr(10) END || ?
WHERE result_id = ? AND finished_at IS NULL;
