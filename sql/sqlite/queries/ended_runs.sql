-- The end of a run: its result closes the row, or the reaper gives it up.

-- name: find_ended_states
-- Return those of 1000, 100 or a single run that have a row, and whether they have their result: another
-- one changes nothing, so its output need not be fetched.
-- Frequency: for the results of a batch that have output in the object store; as find_unusual_runs.
-- Index: primary key (result_id), once for each run.
SELECT result_id, finished_at IS NOT NULL AND reaped = 0 AS has_result
FROM execution_results
WHERE result_id IN (
    VALUES
    (?)  -- for each run
);

-- name: find_unusual_runs
-- Return those of 1000, 100 or a single run that are not in flight, do not exist, or belong to another
-- execution or job than those that are given beside each: most batches have none. Runs may repeat.
-- Frequency: once for each 1000 results of a batch, and each 100 of the rest, in its transaction; once for
-- each result of a batch of at most five.
-- Index: primary key (result_id), once for each run.
WITH given (result_id, exec_id, job_id) AS (
    VALUES
    (?, ?, ?)  -- for each run
)
SELECT
    given.result_id,
    execution_results.result_id IS NOT NULL AS row_exists,
    execution_results.finished_at IS NOT NULL AS has_ended,
    execution_results.reaped,
    execution_results.exec_id,
    execution_results.job_id
FROM given
LEFT JOIN execution_results ON execution_results.result_id = given.result_id
WHERE
    execution_results.result_id IS NULL
    OR execution_results.finished_at IS NOT NULL
    OR nullif(execution_results.exec_id, '') IS NOT nullif(given.exec_id, '')
    OR execution_results.job_id IS NOT coalesce(given.job_id, execution_results.job_id);

-- name: insert_ended_run
-- Insert a run whose start is not in the table: a skipped run, a finalize hook, or a start that comes
-- later or never.
-- Values: in the order of the columns. exec_id is NULL for an ad-hoc run.
-- Frequency: once for each result of such a run.
-- Index: primary key (result_id); writes every index of the table that is not for runs in flight.
INSERT INTO execution_results
    (result_id, request_id, exec_id, pc_id, started_at, exit_code, stdout, stderr, finished_at,
     job_id, recorded_at)
VALUES
    (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (result_id) DO NOTHING;

-- name: end_run
-- Write the result of a run that is in flight or reaped. Its job stays: see name_job.
-- Values: in the order of the SET list, then the run's id.
-- Frequency: once for each result of such a run.
-- Index: primary key (result_id); takes the row out of the indexes of runs in flight.
UPDATE execution_results
SET
    request_id = ?, exit_code = ?, stdout = ?, stderr = ?, finished_at = ?, reaped = 0
WHERE result_id = ? AND (finished_at IS NULL OR reaped = 1);

-- name: insert_ended_runs
-- Insert 1000 or 100 runs at once, as insert_ended_run does for one. If a row is rejected, the whole
-- transaction is undone, and insert_ended_run finds out which row it was; OR FAIL is explained in
-- insert_runs.
-- Values: in the order of the columns, for one run after the other; the marked line is repeated for each.
-- Frequency: once for each 1000 results of such runs in a batch, and each 100 of the rest.
-- Index: primary key (result_id); writes every index of the table that is not for runs in flight.
INSERT OR FAIL INTO execution_results
    (result_id, request_id, exec_id, pc_id, started_at, exit_code, stdout, stderr, finished_at,
     job_id, recorded_at)
VALUES
    (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)  -- for each run
ON CONFLICT (result_id) DO NOTHING;

-- name: end_runs
-- Write the results of 1000 or 100 different runs at once, as end_run does for one. If a row is rejected,
-- the whole transaction is undone, and end_run finds out which row it was.
-- Values: in the order of column1 to column6, for one run after the other; the marked line is repeated.
-- Frequency: once for each 1000 results of such runs in a batch, and each 100 of the rest.
-- Index: primary key (result_id); takes the rows out of the indexes of runs in flight.
UPDATE OR FAIL execution_results
SET
    request_id = ended.request_id,
    exit_code = ended.exit_code,
    stdout = ended.stdout,
    stderr = ended.stderr,
    finished_at = ended.finished_at,
    reaped = 0
FROM (
    SELECT
        column1 AS request_id, column2 AS exit_code, column3 AS stdout, column4 AS stderr,
        column5 AS finished_at, column6 AS result_id
    FROM (
        VALUES
        (?, ?, ?, ?, ?, ?)  -- for each run
    )
) AS ended
WHERE execution_results.result_id = ended.result_id
    AND (execution_results.finished_at IS NULL OR execution_results.reaped = 1);

-- name: name_job
-- Write the job that a result names into its run, in the transaction that ended it. By itself, since the
-- index by job would else be written for every result.
-- Frequency: once for each result that names another job than its run has: hardly ever.
-- Index: primary key (result_id); writes the index by job.
UPDATE execution_results SET job_id = ? WHERE result_id = ?;

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
