-- name: runs_in_flight_by_job
-- Operators: what is running right now, by job, with its deadlines.
-- Frequency: on demand.
-- Index: execution_results_in_flight_started_at, which holds only runs in flight.
SELECT
    job_id,
    count(*) AS runs,
    count(DISTINCT pc_id) AS pcs,
    min(started_at) AS first_started_at,
    min(expires_at) AS first_deadline,
    max(expires_at) AS last_deadline,
    count(*) FILTER (WHERE expires_at IS NULL) AS without_deadline,
    count(*) FILTER (WHERE expires_at < stored_instant(now())) AS overdue
FROM execution_results
WHERE finished_at IS NULL AND started_at > ''
GROUP BY job_id
ORDER BY runs DESC, job_id;
