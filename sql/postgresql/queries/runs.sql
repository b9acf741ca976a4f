-- Read runs for an operator.
-- Frequency: on demand, by `projector runs`, `status`, `verify`, `rebuild --dry-run` and `explain`.

-- name: list_runs_in_flight_after
-- Return one page of the runs in flight, by their start; the last row's start and id begin the next
-- page. A filter that is NULL (or 0, for the last one) accepts every run.
-- Values: the last row's start twice, and its id, '' on the first page; job, PC and execution; the time
-- before which the deadline is; 1 for runs without a deadline alone; how many rows. '~' is above every time:
-- it stands for no deadline, and '~~' for no limit.
-- Frequency: once per page.
-- Index: execution_results_in_flight_started_at, which holds only runs in flight.
SELECT result_id, exec_id, pc_id, job_id, version, started_at, recorded_at, expires_at
FROM execution_results
WHERE finished_at IS NULL
    AND started_at >= ? AND (started_at > ? OR result_id > ?)
    AND job_id IS NOT DISTINCT FROM coalesce(?, job_id)
    AND pc_id IS NOT DISTINCT FROM coalesce(?, pc_id)
    AND exec_id IS NOT DISTINCT FROM coalesce(?, exec_id)
    AND coalesce(expires_at, '~') < coalesce(?, '~~')
    AND (expires_at IS NULL) >= ?::int::boolean
ORDER BY started_at, result_id
LIMIT ?;

-- name: count_runs_and_rejected_events
-- Count the runs in flight, and those of them that are overdue or have no deadline, and the rejected
-- events up to a bound.
-- Frequency: once per `projector status`, and per tick of a worker whose metrics are read.
-- Index: execution_results_in_flight_expires_at, three times; primary key (rejected_id).
SELECT
    (SELECT count(*) FROM execution_results
        WHERE finished_at IS NULL AND expires_at >= '') AS with_deadline,
    (SELECT count(*) FROM execution_results
        WHERE finished_at IS NULL AND expires_at < ?) AS overdue,
    (SELECT count(*) FROM execution_results
        WHERE finished_at IS NULL AND expires_at IS NULL) AS without_deadline,
    (SELECT count(*) FROM (SELECT 1 FROM rejected_events WHERE rejected_id > 0 LIMIT ?) AS found) AS rejected;

-- name: count_runs_without_deadline
-- Count the runs in flight that have no deadline, by job, up to a bound of rows.
-- Frequency: once per tick of a worker whose metrics are read.
-- Index: execution_results_in_flight_expires_at, its part without a deadline.
SELECT job_id, count(*) AS runs
FROM (
    SELECT job_id
    FROM execution_results
    WHERE finished_at IS NULL AND expires_at IS NULL
    LIMIT ?
) AS without_deadline
GROUP BY job_id;

-- name: find_run
-- Return what the start of one run fills in, and what other programs write at its end.
-- Index: primary key (result_id).
SELECT
    result_id, request_id, exec_id, pc_id, started_at, version, job_id, recorded_at, expires_at,
    finished_at, reaped
FROM execution_results
WHERE result_id = ?;

-- name: find_ended_run
-- Return what the result of one run writes into its row.
-- Index: primary key (result_id).
SELECT request_id, job_id, exit_code, stdout, stderr, finished_at, reaped, recorded_at
FROM execution_results
WHERE result_id = ?;

-- name: rejection_reason
-- Return why a message was rejected, or no row.
-- Index: unique (stream, stream_sequence, recorded_at).
SELECT reason FROM rejected_events
WHERE stream = ? AND stream_sequence = ? AND recorded_at = ?;
