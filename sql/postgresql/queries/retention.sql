-- Retention deletes what is older than --retention: up to 10 000 rows in one transaction. Only times in
-- stored form count: a text in another form could sort before the limit too early.

-- name: delete_old_executions
-- Delete executions that were initiated before a time, whatever their status.
-- Frequency: once per 10 000 old rows, at least once and at most ten times per tick.
-- Index: executions_initiated_at; primary key (exec_id) for each row.
DELETE FROM executions
WHERE exec_id IN (
    SELECT exec_id
    FROM executions
    WHERE initiated_at < ?
        AND is_stored_instant(initiated_at)
    LIMIT ?
    FOR UPDATE SKIP LOCKED
);

-- name: delete_old_runs
-- Delete runs that were stored before a time and have ended; a run in flight stays.
-- Frequency: as delete_old_executions, after it.
-- Index: execution_results_recorded_at; primary key (result_id) for each row.
DELETE FROM execution_results
WHERE result_id IN (
    SELECT result_id
    FROM execution_results
    WHERE recorded_at < ?
        AND finished_at IS NOT NULL
        AND is_stored_instant(recorded_at)
    LIMIT ?
    FOR UPDATE SKIP LOCKED
);
