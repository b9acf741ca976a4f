-- The end of a run: its result closes the row, or the reaper gives it up.

-- name: find_100_runs
-- Return those of 100 runs that exist, each with its state and its execution; ids may repeat.
-- Frequency: once per 100 results of a batch, in its transaction.
-- Index: primary key (result_id), once for each id.
SELECT result_id, finished_at IS NOT NULL AS has_ended, reaped, exec_id
FROM execution_results
WHERE result_id IN (
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
);

-- name: insert_ended_run
-- Insert a run whose start is not in the table: a skipped run, a finalize hook, or a start that comes
-- later or never.
-- Frequency: once for each result of such a run.
-- Index: primary key (result_id); writes every index of the table that is not for runs in flight.
INSERT INTO execution_results
    (result_id, request_id, exec_id, pc_id, started_at, exit_code, stdout, stderr, finished_at,
     job_id, recorded_at)
VALUES
    (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (result_id) DO NOTHING;

-- name: end_run
-- Write the result of a run that is in flight or reaped; the job stays where the result names none.
-- Frequency: once for each result of such a run.
-- Index: primary key (result_id); takes the row out of the indexes of runs in flight.
UPDATE execution_results
SET
    request_id = ?, exit_code = ?, stdout = ?, stderr = ?, finished_at = ?,
    job_id = coalesce(?, job_id), reaped = 0
WHERE result_id = ? AND (finished_at IS NULL OR reaped = 1);

-- name: mark_skipped_run
-- Mark a run that was skipped, in the transaction that ended it.
-- Frequency: once for each result that says so, where list_result_columns returned the column.
-- Index: primary key (result_id).
UPDATE execution_results SET skipped = 1 WHERE result_id = ?;

-- name: link_parent_run
-- Link the run of a finalize hook to the run that it finalizes, in the transaction that inserted it.
-- Frequency: once for each result that names a parent and has no start, where list_result_columns
-- returned the column.
-- Index: primary key (result_id).
UPDATE execution_results SET parent_result_id = ? WHERE result_id = ?;

-- name: list_result_columns
-- Return those of the columns skipped and parent_result_id that exist: older databases of the fleet lack
-- one or both, and a column that the worker added would make the fleet's own migration fail.
-- Frequency: once per batch that has a value for one of them.
-- Index: none; the columns of one table.
SELECT lower(name) AS name FROM pragma_table_info('execution_results')
WHERE lower(name) IN ('skipped', 'parent_result_id');
