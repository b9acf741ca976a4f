-- name: count_runs_in_flight_by_job
-- Count the runs in flight by job, those that were started first up to a bound, the job with the most
-- overdue runs first. Long names are cut.
-- Frequency: at most once in ten seconds per worker, while its page is open.
-- Index: execution_results_in_flight_started_at, in its order up to the bound.
SELECT
    job_id,
    count(*) AS runs,
    count(*) FILTER (WHERE expires_at < ?) AS overdue,
    count(*) FILTER (WHERE expires_at IS NULL) AS without_deadline,
    min(recorded_at) AS first_recorded_at
FROM (
    SELECT substr(job_id, 1, 500) AS job_id, expires_at, recorded_at
    FROM execution_results
    WHERE finished_at IS NULL AND started_at > ''
    ORDER BY started_at
    LIMIT ?
) AS in_flight
GROUP BY job_id
ORDER BY overdue DESC, runs DESC, job_id
LIMIT ?;
