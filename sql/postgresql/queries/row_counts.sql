-- name: row_counts
-- Operators: how many rows each table has; counting stops at a million.
-- Frequency: on demand.
-- Index: execution_results_recorded_at, executions_initiated_at, primary key (rejected_id), each up to a
-- million entries.
SELECT 'execution_results' AS table_name, count(*) AS row_count
FROM (SELECT 1 FROM execution_results WHERE recorded_at > '' LIMIT 1000000) AS runs
UNION ALL
SELECT 'executions', count(*)
FROM (SELECT 1 FROM executions WHERE initiated_at > '' LIMIT 1000000) AS deployments
UNION ALL
SELECT 'rejected_events', count(*)
FROM (SELECT 1 FROM rejected_events WHERE rejected_id > 0 LIMIT 1000000) AS rejected;
