-- name: reaped_runs_by_job
-- Operators: runs that were reaped in the last seven days, by job.
-- Frequency: on demand.
-- Index: execution_results_reaped_finished_at, the last seven days of it.
SELECT
    job_id,
    count(*) AS runs,
    count(DISTINCT pc_id) AS pcs,
    min(finished_at) AS first_reaped_at,
    max(finished_at) AS last_reaped_at
FROM execution_results
WHERE reaped = 1 AND finished_at > stored_instant(now() - interval '7 days')
GROUP BY job_id
ORDER BY runs DESC, job_id;
