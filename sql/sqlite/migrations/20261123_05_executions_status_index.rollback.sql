DROP INDEX IF EXISTS executions_status;
