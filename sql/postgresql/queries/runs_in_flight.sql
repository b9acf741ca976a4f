-- name: runs_in_flight
-- Operators: the runs in flight, run by run, the longest running first.
-- Frequency: on demand.
-- Index: execution_results_in_flight_started_at, in its order.
SELECT started_at, expires_at, job_id, version, pc_id, exec_id, request_id, result_id
FROM execution_results
WHERE finished_at IS NULL AND started_at > ''
ORDER BY started_at
LIMIT 1000;
