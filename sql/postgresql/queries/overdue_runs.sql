-- name: overdue_runs
-- Operators: runs whose deadline has passed, the longest overdue first.
-- Frequency: on demand.
-- Index: execution_results_in_flight_expires_at.
SELECT expires_at, job_id, pc_id, exec_id, result_id, started_at
FROM execution_results
WHERE finished_at IS NULL AND expires_at < stored_instant(now())
ORDER BY expires_at
LIMIT 100;
