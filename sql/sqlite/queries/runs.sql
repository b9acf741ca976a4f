-- Runs, as a person looks at them.
-- How often: when somebody runs `projector runs`, `status`, `verify`, `rebuild --dry-run`, `explain`.

-- name: list_runs_in_flight_after
-- One page of the runs in flight, by their start; the last row's start and id begin the next page.
-- A filter that is NULL (or 0, for the last one) lets everything through.
-- Index: execution_results_in_flight_started_at, as large as what is in flight.
SELECT result_id, exec_id, pc_id, job_id, version, started_at, recorded_at, expires_at
FROM execution_results
WHERE finished_at IS NULL
    AND started_at >= ? AND (started_at > ? OR result_id > ?)
    AND job_id IS coalesce(?, job_id)
    AND pc_id IS coalesce(?, pc_id)
    AND exec_id IS coalesce(?, exec_id)
    AND coalesce(expires_at, '~') < coalesce(?, '~~')
    AND (expires_at IS NULL) >= ?
ORDER BY started_at, result_id
LIMIT ?;

-- name: count_runs_in_flight
-- How many runs are in flight, and how many of them are overdue or have no deadline.
-- Index: execution_results_in_flight_expires_at, three times.
SELECT
    (SELECT count(*) FROM execution_results
        WHERE finished_at IS NULL AND expires_at >= '') AS with_deadline,
    (SELECT count(*) FROM execution_results
        WHERE finished_at IS NULL AND expires_at < ?) AS overdue,
    (SELECT count(*) FROM execution_results
        WHERE finished_at IS NULL AND expires_at IS NULL) AS without_deadline;

-- name: find_run
-- What a start fills in of one run, and what others write at its end.
-- Index: the primary key.
SELECT
    result_id, request_id, exec_id, pc_id, started_at, version, job_id, recorded_at, expires_at,
    finished_at, reaped
FROM execution_results
WHERE result_id = ?;

-- name: rejection_reason
-- Was the message rejected, and why?
-- Index: the unique (stream, stream_sequence, recorded_at).
SELECT reason FROM rejected_events
WHERE stream = ? AND stream_sequence = ? AND recorded_at = ?;

-- name: count_rejected_events
-- How many events wait for a person; the count ends at a bound.
-- Index: the primary key.
SELECT count(*) FROM (SELECT 1 FROM rejected_events WHERE rejected_id > 0 LIMIT ?);
