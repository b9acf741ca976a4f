-- name: insert_run
-- A started run becomes one in-flight row. A row that is there already, in any state, stays as it is.
-- How often: for each start that insert_100_runs leaves over, and for each of a batch of which a row
-- is refused. All starts of a batch are in one transaction.
-- Index: the primary key finds a row that is there already; every index on the table is written.
INSERT INTO execution_results
    (result_id, request_id, exec_id, pc_id, started_at, version, job_id, recorded_at, expires_at)
VALUES
    (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (result_id) DO NOTHING;
