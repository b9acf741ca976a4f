-- name: insert_runs
-- Insert any number of started runs, one array for each column. In the order of their ids, so that two
-- workers with the same runs never wait for each other in a circle; of two runs with one id the first
-- wins. If a row is rejected, the whole transaction is undone, and insert_run finds out which row it was.
-- Values: an array for each column, in the order of the columns.
-- Frequency: once for the starts of a batch.
-- Index: primary key (result_id), to find an existing row; writes every index of the table.
INSERT INTO execution_results
    (result_id, request_id, exec_id, pc_id, started_at, version, job_id, recorded_at, expires_at)
SELECT result_id, request_id, exec_id, pc_id, started_at, version, job_id, recorded_at, expires_at
FROM unnest(
    ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[]
) WITH ORDINALITY AS given (
    result_id, request_id, exec_id, pc_id, started_at, version, job_id, recorded_at, expires_at, position
)
ORDER BY result_id COLLATE "C", position
ON CONFLICT (result_id) DO NOTHING;
