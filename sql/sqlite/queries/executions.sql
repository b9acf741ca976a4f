-- name: promote_execution
-- Turn an execution from pending to running, and count its runs that have ended: nothing is counted
-- while an execution is pending. It is completed if they are as many as its targets; without any, the
-- counts stay as they are. Any other status is left unchanged.
-- Frequency: once per batch for each execution that the batch names, and once for each execution that
-- the sweep finds.
-- Index: primary key (exec_id); execution_results_exec_id only if the execution is pending.
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
-- Return one page of the pending executions, and whether each has runs; the last row's id begins the
-- next page. An execution whose row was inserted after its starts has runs and is still pending.
-- Frequency: once per page of the sweep, which a worker does at its start and every --upkeep-every.
-- Index: executions_pending, which holds only pending executions; execution_results_exec_id per row.
SELECT
    exec_id,
    EXISTS (
        SELECT 1 FROM execution_results WHERE execution_results.exec_id = executions.exec_id
    ) AS has_runs
FROM executions
WHERE status = 'pending' AND exec_id > ?
ORDER BY exec_id
LIMIT ?;
