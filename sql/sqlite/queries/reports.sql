-- Read executions and ended runs for an operator.
-- Frequency: on demand, by `projector executions`, `runs --ended`, `explain` and `upkeep --dry-run`.

-- name: find_execution
-- Return one execution.
-- Index: primary key (exec_id).
SELECT
    exec_id, job_id, version, initiated_by, initiated_at, status, target_count, success_count,
    failure_count
FROM executions
WHERE exec_id = ?;

-- name: list_executions_before
-- Return one page of the executions, newest first; the last row's time and id begin the next page. A
-- filter that is NULL accepts every execution.
-- Values: the last row's time twice, and its id; '~', above every time, and '' on the first page; status and
-- job; how many rows.
-- Frequency: once per page.
-- Index: executions_initiated_at; executions of one instant are sorted.
SELECT
    exec_id, job_id, version, initiated_by, initiated_at, status, target_count, success_count,
    failure_count
FROM executions
WHERE initiated_at <= ? AND (initiated_at < ? OR exec_id < ?)
    AND +status IS coalesce(?, status)
    AND job_id IS coalesce(?, job_id)
ORDER BY initiated_at DESC, exec_id DESC
LIMIT ?;

-- name: count_runs_of_execution
-- Count the runs whose rows name an execution, by how far they are.
-- Index: execution_results_exec_id.
SELECT
    count(*) FILTER (WHERE finished_at IS NULL) AS in_flight,
    count(*) FILTER (WHERE finished_at IS NOT NULL AND exit_code = 0) AS succeeded,
    count(*) FILTER (WHERE finished_at IS NOT NULL AND exit_code IS NOT 0 AND reaped = 0) AS failed,
    count(*) FILTER (WHERE finished_at IS NOT NULL AND exit_code IS NOT 0 AND reaped = 1) AS reaped
FROM execution_results
WHERE exec_id = ?;

-- name: list_ended_runs_before
-- Return one page of the runs that have ended, newest first by the time at which they were stored; the
-- last row's time and id begin the next page. A filter that is NULL (or 0, for the last one, which
-- accepts failures only) accepts every run.
-- Values: the last row's time twice, and its id; '~', above every time, and '' on the first page; job and PC;
-- 1 for failures alone; how many rows.
-- Frequency: once per page.
-- Index: execution_results_recorded_at; runs of one instant are sorted.
SELECT
    result_id, exec_id, pc_id, job_id, version, started_at, recorded_at, finished_at, exit_code, reaped
FROM execution_results
WHERE finished_at IS NOT NULL
    AND recorded_at <= ? AND (recorded_at < ? OR result_id < ?)
    AND job_id IS coalesce(?, job_id)
    AND pc_id IS coalesce(?, pc_id)
    AND (exit_code IS NOT 0) >= ?
ORDER BY recorded_at DESC, result_id DESC
LIMIT ?;

-- name: list_ended_runs_of_execution_before
-- As list_ended_runs_before, for one execution. The + keeps the planner from walking the index on
-- recorded_at, which holds all runs.
-- Values: the execution, then as there.
-- Frequency: once per page.
-- Index: execution_results_exec_id; the runs that it finds are sorted.
SELECT
    result_id, exec_id, pc_id, job_id, version, started_at, recorded_at, finished_at, exit_code, reaped
FROM execution_results
WHERE exec_id = ?
    AND finished_at IS NOT NULL
    AND +recorded_at <= ? AND (+recorded_at < ? OR result_id < ?)
    AND job_id IS coalesce(?, job_id)
    AND pc_id IS coalesce(?, pc_id)
    AND (exit_code IS NOT 0) >= ?
ORDER BY +recorded_at DESC, result_id DESC
LIMIT ?;

-- name: count_old_executions
-- Count the executions that delete_old_executions would delete, up to a bound.
-- Index: executions_initiated_at.
SELECT count(*) AS executions
FROM (
    SELECT 1
    FROM executions
    WHERE initiated_at < ?
        AND initiated_at = strftime('%Y-%m-%dT%H:%M:%S', substr(initiated_at, 1, 19)) || substr(initiated_at, 20)
        AND initiated_at LIKE '%+00:00' AND initiated_at NOT LIKE '% %' AND julianday(initiated_at) IS NOT NULL
        AND length(initiated_at) IN (25, 29, 32, 35)
    LIMIT ?
);

-- name: count_old_runs
-- Count the runs that delete_old_runs would delete, up to a bound.
-- Index: execution_results_recorded_at.
SELECT count(*) AS runs
FROM (
    SELECT 1
    FROM execution_results
    WHERE recorded_at < ?
        AND finished_at IS NOT NULL
        AND recorded_at = strftime('%Y-%m-%dT%H:%M:%S', substr(recorded_at, 1, 19)) || substr(recorded_at, 20)
        AND recorded_at LIKE '%+00:00' AND recorded_at NOT LIKE '% %' AND julianday(recorded_at) IS NOT NULL
        AND length(recorded_at) IN (25, 29, 32, 35)
    LIMIT ?
);
