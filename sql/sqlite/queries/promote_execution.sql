-- name: promote_execution
-- Turn an execution from pending to running at its first start. Any other status is left unchanged.
-- Frequency: once per batch for each execution that the batch names.
-- Index: primary key (exec_id).
UPDATE executions SET status = 'running' WHERE exec_id = ? AND status = 'pending';
