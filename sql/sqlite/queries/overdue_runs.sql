-- name: overdue_runs
-- Operators: runs whose deadline has passed, the longest overdue first. At most 100; the last column says
-- whether there are more.
-- Frequency: on demand.
-- Index: execution_results_in_flight_expires_at, at most 101 entries.
WITH found AS (
    SELECT expires_at, job_id, pc_id, exec_id, result_id, started_at
    FROM execution_results
    WHERE finished_at IS NULL AND expires_at < strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')
    ORDER BY expires_at
    LIMIT 101
)
SELECT
    expires_at, job_id, pc_id, exec_id, result_id, started_at,
    CASE WHEN (SELECT count(*) FROM found) > 100 THEN 'yes' ELSE 'no' END AS more_rows
FROM found
ORDER BY expires_at
LIMIT 100;
