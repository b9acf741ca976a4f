-- name: runs_in_flight
-- Operators: the runs in flight, run by run, the longest running first. At most 1000; the last column says
-- whether there are more.
-- Frequency: on demand.
-- Index: execution_results_in_flight_started_at, in its order, at most 1001 entries. The condition on
-- started_at is true of every text: it only makes the planner use the index.
WITH found AS (
    SELECT started_at, expires_at, job_id, version, pc_id, exec_id, request_id, result_id
    FROM execution_results
    WHERE finished_at IS NULL AND started_at > ''
    ORDER BY started_at
    LIMIT 1001
)
SELECT
    started_at, expires_at, job_id, version, pc_id, exec_id, request_id, result_id,
    CASE WHEN (SELECT count(*) FROM found) > 1000 THEN 'yes' ELSE 'no' END AS more_rows
FROM found
ORDER BY started_at
LIMIT 1000;
