-- Copy a database into another one, of this engine or another.
-- Frequency: on demand, by `projector copy`; up to 100 rows at once. The first page begins at '' (texts) or
-- 0 (numbers), which are below every other key.

-- name: list_executions_from
-- Return one page of the executions by their ids, from an id on; the last one begins the next page.
-- Index: primary key (exec_id).
SELECT
    exec_id, job_id, version, initiated_by, initiated_at, target_count, success_count, failure_count,
    status
FROM executions
WHERE exec_id >= ?
ORDER BY exec_id
LIMIT ?;

-- name: list_runs_from
-- Return one page of the runs by their ids, from an id on; the last one begins the next page.
-- Index: primary key (result_id).
SELECT
    result_id, request_id, exec_id, pc_id, exit_code, stdout, stderr, started_at, finished_at,
    recorded_at, job_id, version, reaped, expires_at
FROM execution_results
WHERE result_id >= ?
ORDER BY result_id
LIMIT ?;

-- name: list_marks_from
-- As list_runs_from, the columns that a database of the fleet may lack, where list_result_columns
-- returned both.
-- Index: primary key (result_id).
SELECT result_id, skipped, parent_result_id
FROM execution_results
WHERE result_id >= ?
ORDER BY result_id
LIMIT ?;

-- name: list_rejected_events_from
-- Return one page of the rejected events with their payloads by their ids, from an id on.
-- Index: primary key (rejected_id).
SELECT
    rejected_id, stream, stream_sequence, recorded_at, subject, payload, reason, rejected_at
FROM rejected_events
WHERE rejected_id >= ?
ORDER BY rejected_id
LIMIT ?;

-- name: count_rows_without_key
-- Count the executions and the runs whose key is NULL, which no page lists and SQLite allows.
-- Index: primary keys (exec_id), (result_id).
SELECT
    (SELECT count(*) FROM executions WHERE exec_id IS NULL) AS executions,
    (SELECT count(*) FROM execution_results WHERE result_id IS NULL) AS runs;

-- name: list_checkpoints
-- Return every checkpoint.
-- Index: none; one row for each consumer.
SELECT
    stream, consumer, stream_created_at, caught_up_to, last_sequence, last_stored_at, committed_at,
    lost_sequences, lost_up_to, lost_at
FROM checkpoints
ORDER BY stream, consumer;

-- name: copy_execution
-- Insert an execution of another database; an existing row is left unchanged.
-- Values: in the order of the columns, as list_executions_from returns them.
-- Index: primary key (exec_id); writes every index of the table.
INSERT INTO executions
    (exec_id, job_id, version, initiated_by, initiated_at, target_count, success_count, failure_count,
     status)
VALUES
    (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (exec_id) DO NOTHING;

-- name: copy_run
-- Insert a run of another database; an existing row is left unchanged.
-- Values: in the order of the columns, as list_runs_from returns them.
-- Index: primary key (result_id); writes the indexes of the table that its state belongs to.
INSERT INTO execution_results
    (result_id, request_id, exec_id, pc_id, exit_code, stdout, stderr, started_at, finished_at,
     recorded_at, job_id, version, reaped, expires_at)
VALUES
    (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (result_id) DO NOTHING;
