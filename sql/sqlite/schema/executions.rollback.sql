DROP INDEX IF EXISTS executions_initiated_at;
DROP INDEX IF EXISTS executions_pending;
DROP INDEX IF EXISTS executions_status;
DROP TABLE IF EXISTS executions;
