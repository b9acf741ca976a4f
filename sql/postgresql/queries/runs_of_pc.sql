-- name: runs_of_pc
-- Operators: the hundred newest runs of one PC, finished or not; the last column says whether there are
-- more.
-- Frequency: on demand.
-- Index: execution_results_pc_id; the runs that it finds are sorted.
WITH found AS (
    SELECT
        recorded_at, started_at, finished_at, exit_code, reaped, expires_at, job_id, version, exec_id,
        result_id
    FROM execution_results
    WHERE pc_id = :pc_id
    ORDER BY recorded_at DESC
    LIMIT 101
)
SELECT
    recorded_at, started_at, finished_at, exit_code, reaped, expires_at, job_id, version, exec_id,
    result_id,
    CASE WHEN (SELECT count(*) FROM found) > 100 THEN 'yes' ELSE 'no' END AS more_rows
FROM found
ORDER BY recorded_at DESC
LIMIT 100;
