DROP VIEW IF EXISTS readable_executions;
DROP VIEW IF EXISTS readable_runs;
