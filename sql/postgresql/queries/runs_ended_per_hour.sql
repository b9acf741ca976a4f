-- name: runs_ended_per_hour
-- Operators: how runs ended, by the hour of their end, of the last day; at most of the 100 000 runs
-- that were stored last.
-- Frequency: on demand.
-- Index: execution_results_recorded_at, from its end.
SELECT
    hour,
    count(*) FILTER (WHERE exit_code = 0) AS succeeded,
    count(*) FILTER (WHERE exit_code IS DISTINCT FROM 0 AND reaped = 0) AS failed,
    count(*) FILTER (WHERE exit_code IS DISTINCT FROM 0 AND reaped = 1) AS reaped
FROM (
    SELECT substr(finished_at, 1, 13) || ':00:00+00:00' AS hour, exit_code, reaped
    FROM execution_results
    WHERE recorded_at > stored_instant(now() - interval '1 day')
    ORDER BY recorded_at DESC
    LIMIT 100000
) AS newest
WHERE hour IS NOT NULL
GROUP BY hour
ORDER BY hour DESC
LIMIT 25;
