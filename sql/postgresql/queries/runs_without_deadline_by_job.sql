-- name: runs_without_deadline_by_job
-- Operators: open runs without a deadline, which are reaped a day after they were stored, by job: the
-- manifest was unknown, or its timeout could not be parsed.
-- Frequency: on demand.
-- Index: execution_results_in_flight_expires_at, its part without a deadline.
SELECT
    job_id,
    count(*) AS runs,
    count(DISTINCT pc_id) AS pcs,
    min(started_at) AS first_started_at,
    max(recorded_at) AS last_recorded_at
FROM execution_results
WHERE finished_at IS NULL AND expires_at IS NULL
GROUP BY job_id
ORDER BY runs DESC, job_id;
