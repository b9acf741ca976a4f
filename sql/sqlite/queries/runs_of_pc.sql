-- name: runs_of_pc
-- Operators: the hundred newest runs of one PC, whether they are over or not.
-- How often: when somebody asks.
-- Index: execution_results_pc_id; what it finds of the PC is sorted.
SELECT
    recorded_at, started_at, finished_at, exit_code, reaped, expires_at, job_id, version, exec_id,
    result_id
FROM execution_results
WHERE pc_id = :pc_id
ORDER BY recorded_at DESC
LIMIT 100;
