-- name: run_exists
-- Check that a run that was not inserted exists: a trigger can drop a row without an error.
-- Frequency: once for each start that is not new, such as a redelivery or a replay.
-- Index: primary key (result_id).
SELECT EXISTS (SELECT 1 FROM execution_results WHERE result_id = ?);
