-- name: find_pending_executions
-- Return those of 1000, 100 or a single execution that are pending.
-- Frequency: once for each 1000 executions that a batch names, and each 100 of the rest; once for each of
-- at most five; as often for those that the sweep finds.
-- Index: executions_pending (status, exec_id), once for each execution.
SELECT exec_id
FROM executions
WHERE status = 'pending' AND exec_id IN (
    VALUES
    (?)  -- for each execution
);

-- name: find_execution_statuses
-- Return the status of those of 1000, 100 or a single execution that exist, before runs are counted.
-- Frequency: as find_pending_executions, for the executions of a batch of results or reaped runs.
-- Index: primary key (exec_id), once for each execution.
SELECT exec_id, status
FROM executions
WHERE exec_id IN (
    VALUES
    (?)  -- for each execution
);

-- name: promote_execution
-- Turn an execution from pending to running, and count its runs that have ended: nothing is counted
-- while an execution is pending. It is completed if they are as many as its targets; without any, the
-- counts stay as they are. Any other status is left unchanged.
-- Frequency: once for each execution that find_pending_executions returned.
-- Index: primary key (exec_id); execution_results_exec_id.
UPDATE executions
SET (success_count, failure_count, status) = (
    SELECT
        iif(count(*) > 0, sum(exit_code IS 0), executions.success_count),
        iif(count(*) > 0, sum(exit_code IS NOT 0), executions.failure_count),
        iif(count(*) > 0 AND count(*) >= executions.target_count, 'completed', 'running')
    FROM execution_results
    WHERE execution_results.exec_id = executions.exec_id AND finished_at IS NOT NULL
)
WHERE exec_id = ? AND status = 'pending';

-- name: list_pending_executions_after
-- Return one page of the pending executions, whether each has runs, and whether it was initiated before
-- a time; the last row's id begins the next page, and '' the first. An execution whose row was inserted after its starts
-- has runs and is still pending. Only a time in stored form counts: another text could sort too early.
-- Frequency: once per page of the sweep, which a worker does at its start and every --upkeep-every.
-- Index: executions_pending, which holds only pending executions; execution_results_exec_id per row.
SELECT
    exec_id,
    EXISTS (
        SELECT 1 FROM execution_results WHERE execution_results.exec_id = executions.exec_id
    ) AS has_runs,
    initiated_at < ?
        AND initiated_at = strftime('%Y-%m-%dT%H:%M:%S', substr(initiated_at, 1, 19), '+0 days')
            || substr(initiated_at, 20)
        AND initiated_at LIKE '%+00:00' AND initiated_at NOT LIKE '% %'
        AND julianday(initiated_at) IS NOT NULL
        AND length(initiated_at) IN (25, 29, 32, 35) AS is_old
FROM executions
WHERE status = 'pending' AND exec_id > ?
ORDER BY exec_id
LIMIT ?;

-- name: count_ended_runs
-- Add ended runs to the counts of an execution in which runs are counted already, and complete it once
-- they are as many as its targets. While it is pending or expired nothing is counted.
-- Frequency: once per batch of results or reaped runs for each such execution that it names.
-- Index: primary key (exec_id).
UPDATE executions
SET
    success_count = success_count + :succeeded,
    failure_count = failure_count + :failed,
    status = iif(
        success_count + failure_count + :succeeded + :failed >= target_count, 'completed', 'running')
WHERE exec_id = :exec_id AND status NOT IN ('pending', 'expired');

-- name: count_all_ended_runs
-- Count all ended runs of a pending or expired execution, and those at hand whose rows name another
-- execution: the first count makes up for whatever ended before.
-- Frequency: as count_ended_runs.
-- Index: primary key (exec_id); execution_results_exec_id.
UPDATE executions
SET (success_count, failure_count, status) = (
    SELECT
        :succeeded + count(*) FILTER (WHERE exit_code = 0),
        :failed + count(*) - count(*) FILTER (WHERE exit_code = 0),
        iif(
            count(*) + :succeeded + :failed >= executions.target_count, 'completed', 'running')
    FROM execution_results
    WHERE execution_results.exec_id = executions.exec_id AND finished_at IS NOT NULL
)
WHERE exec_id = :exec_id AND status IN ('pending', 'expired');

-- name: move_reaped_runs
-- Count runs that were given up, and have succeeded after all, as successes instead of failures.
-- Frequency: once per batch for each execution with such a run; rare.
-- Index: primary key (exec_id).
UPDATE executions
SET success_count = success_count + :runs, failure_count = failure_count - :runs
WHERE exec_id = :exec_id AND status NOT IN ('pending', 'expired');

-- name: expire_execution
-- Turn an execution from pending to expired, unless runs came since the page was read.
-- Frequency: once for each old execution without runs that the sweep finds, while it is known up to
-- which time the streams are in the database.
-- Index: primary key (exec_id); execution_results_exec_id.
UPDATE executions
SET status = 'expired'
WHERE exec_id = ? AND status = 'pending' AND NOT EXISTS (
    SELECT 1 FROM execution_results WHERE execution_results.exec_id = executions.exec_id
);
