-- name: run_exists
-- Is a run there that was not inserted? A trigger of somebody else can drop a row without an error.
-- How often: for each start that is not new: redeliveries, replays.
-- Index: the primary key.
SELECT EXISTS (SELECT 1 FROM execution_results WHERE result_id = ?);
