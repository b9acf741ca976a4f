-- name: promote_execution
-- The first start of an execution makes it running. Any status but pending is left alone.
-- How often: once a batch for each execution that the batch names.
-- Index: the primary key.
UPDATE executions SET status = 'running' WHERE exec_id = ? AND status = 'pending';
