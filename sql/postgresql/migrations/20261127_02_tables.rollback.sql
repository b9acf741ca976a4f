DROP TABLE IF EXISTS checkpoints;
DROP TABLE IF EXISTS rejected_events;
DROP TABLE IF EXISTS execution_results;
DROP TABLE IF EXISTS executions;
