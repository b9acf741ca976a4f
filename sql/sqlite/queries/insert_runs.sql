-- name: insert_runs
-- Insert 1000 or 100 started runs at once, as insert_run does for one. OR FAIL saves the engine from
-- copying every page that it changes, so that it could undo this statement alone. If a row is rejected,
-- the whole transaction is undone, and insert_run finds out which row it was.
-- Values: in the order of the columns, for one run after the other; the marked line is repeated for each.
-- Frequency: once for each 1000 starts of a batch, and each 100 of the rest.
-- Index: primary key (result_id), to find an existing row; writes every index of the table.
INSERT OR FAIL INTO execution_results
    (result_id, request_id, exec_id, pc_id, started_at, version, job_id, recorded_at, expires_at)
VALUES
    (?, ?, ?, ?, ?, ?, ?, ?, ?)  -- for each run
ON CONFLICT (result_id) DO NOTHING;
