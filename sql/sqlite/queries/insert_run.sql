-- name: insert_run
-- Insert a started run as one in-flight row. An existing row, in any state, is left unchanged.
-- Values: in the order of the columns. exec_id is '' for an ad-hoc run, expires_at is NULL for a run without
-- a deadline.
-- Frequency: once for each start that insert_runs leaves over, and in a batch with a rejected row.
-- Index: primary key (result_id), to find an existing row; writes every index of the table.
INSERT INTO execution_results
    (result_id, request_id, exec_id, pc_id, started_at, version, job_id, recorded_at, expires_at)
VALUES
    (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (result_id) DO NOTHING;
