-- The end of a run: its result closes the row, or the reaper gives it up.

-- name: find_ended_states
-- Return those of any number of runs that have a row, and whether they have their result: another one
-- changes nothing, so its output need not be fetched.
-- Frequency: for the results of a batch that have output in the object store.
-- Index: primary key (result_id), once for each run.
SELECT result_id, finished_at IS NOT NULL AND reaped = 0 AS has_result
FROM execution_results
WHERE result_id = ANY (?::text[]);

-- name: find_unusual_runs
-- Return those of any number of runs that are not in flight, do not exist, or belong to another execution
-- or job than those that are given beside each: most batches have none. Runs may repeat. The rows are
-- locked, in the order of their ids: what is returned stays true until the commit.
-- Frequency: once for the results of a batch, in its transaction.
-- Index: primary key (result_id), once for each run.
WITH given AS MATERIALIZED (
    SELECT result_id, exec_id, job_id
    FROM unnest(?::text[], ?::text[], ?::text[]) AS given (result_id, exec_id, job_id)
),
found AS MATERIALIZED (
    SELECT result_id, finished_at, reaped, exec_id, job_id
    FROM execution_results
    WHERE result_id = ANY (ARRAY(SELECT result_id FROM given))
    ORDER BY result_id
    FOR NO KEY UPDATE
)
SELECT
    given.result_id,
    found.result_id IS NOT NULL AS row_exists,
    found.finished_at IS NOT NULL AS has_ended,
    found.reaped,
    found.exec_id,
    found.job_id
FROM given
LEFT JOIN found ON found.result_id = given.result_id
WHERE
    found.result_id IS NULL
    OR found.finished_at IS NOT NULL
    OR nullif(found.exec_id, '') IS DISTINCT FROM nullif(given.exec_id, '')
    OR found.job_id IS DISTINCT FROM coalesce(given.job_id, found.job_id);

-- name: insert_ended_run
-- Insert a run whose start is not in the table: a skipped run, a finalize hook, or a start that comes
-- later or never.
-- Values: in the order of the columns. exec_id is NULL for an ad-hoc run.
-- Frequency: once for such a result that comes alone, and in a batch with a rejected row.
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
-- Frequency: once for a result that comes alone, and in a batch with a rejected row.
-- Index: primary key (result_id); takes the row out of the indexes of runs in flight.
UPDATE execution_results
SET
    request_id = ?, exit_code = ?, stdout = ?, stderr = ?, finished_at = ?, reaped = 0
WHERE result_id = ? AND (finished_at IS NULL OR reaped = 1);

-- name: insert_ended_runs
-- Insert any number of runs, as insert_ended_run does for one; in the order of their ids, as insert_runs.
-- Values: an array for each column, in the order of the columns.
-- Frequency: once for such results of a batch.
-- Index: primary key (result_id); writes every index of the table that is not for runs in flight.
INSERT INTO execution_results
    (result_id, request_id, exec_id, pc_id, started_at, exit_code, stdout, stderr, finished_at,
     job_id, recorded_at)
SELECT
    result_id, request_id, exec_id, pc_id, started_at, exit_code, stdout, stderr, finished_at,
    job_id, recorded_at
FROM unnest(
    ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::bigint[], ?::text[], ?::text[], ?::text[],
    ?::text[], ?::text[]
) AS given (
    result_id, request_id, exec_id, pc_id, started_at, exit_code, stdout, stderr, finished_at,
    job_id, recorded_at
)
ORDER BY result_id COLLATE "C"
ON CONFLICT (result_id) DO NOTHING;

-- name: end_runs
-- Write the results of any number of different runs, as end_run does for one. Their rows are locked since
-- find_unusual_runs, so the order does not matter.
-- Values: an array for each column, in the order of the column list behind AS ended.
-- Frequency: once for the results of a batch.
-- Index: primary key (result_id); takes the rows out of the indexes of runs in flight.
UPDATE execution_results
SET
    request_id = ended.request_id,
    exit_code = ended.exit_code,
    stdout = ended.stdout,
    stderr = ended.stderr,
    finished_at = ended.finished_at,
    reaped = 0
FROM unnest(
    ?::text[], ?::bigint[], ?::text[], ?::text[], ?::text[], ?::text[]
) AS ended (request_id, exit_code, stdout, stderr, finished_at, result_id)
WHERE execution_results.result_id = ended.result_id
    AND (execution_results.finished_at IS NULL OR execution_results.reaped = 1);

-- name: name_job
-- Write the job that a result names into its run, in the transaction that ended it. By itself, since the
-- index by job would else be written for every result.
-- Frequency: once for each result that names another job than its run has: hardly ever.
-- Index: primary key (result_id); writes every index of the table.
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
-- Return those of the columns skipped and parent_result_id that exist, as the worker asks every engine:
-- the migrations of this one create both.
-- Frequency: once per batch that has a value for one of them.
-- Index: pg_attribute's own.
SELECT attname::text AS name
FROM pg_attribute
WHERE attrelid = 'execution_results'::regclass AND attname IN ('skipped', 'parent_result_id')
    AND NOT attisdropped;
