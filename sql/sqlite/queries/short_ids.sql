-- Show ids of runs and executions shortened, and find them again from what was shown.
-- Frequency: on demand; once per line of a table that `projector runs` or `executions` prints, and for
-- each id that an operator passes to a command.

-- name: neighbours_of_run
-- Return the ids directly before and after one: an id may be shortened to what neither begins with.
-- Values: the id, twice.
-- Index: primary key (result_id), twice, one row each.
SELECT
    (SELECT max(result_id) FROM execution_results WHERE result_id < ?) AS before,
    (SELECT min(result_id) FROM execution_results WHERE result_id > ?) AS after;

-- name: neighbours_of_execution
-- The same for an execution.
-- Index: primary key (exec_id), twice, one row each.
SELECT
    (SELECT max(exec_id) FROM executions WHERE exec_id < ?) AS before,
    (SELECT min(exec_id) FROM executions WHERE exec_id > ?) AS after;

-- name: find_runs_by_prefix
-- Return the first few ids that begin with a text.
-- Values: the text, the text followed by the last character that there is, and how many.
-- Index: primary key (result_id).
SELECT result_id FROM execution_results WHERE result_id >= ? AND result_id < ? ORDER BY result_id LIMIT ?;

-- name: find_executions_by_prefix
-- The same for an execution.
-- Index: primary key (exec_id).
SELECT exec_id FROM executions WHERE exec_id >= ? AND exec_id < ? ORDER BY exec_id LIMIT ?;
