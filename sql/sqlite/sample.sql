-- A million plausible runs in an empty database, to EXPLAIN statements on:
--
--   projector migrate --database sqlite:///sample.db
--   sqlite3 sample.db ".parameter set :runs 1000000" ".read sql/sqlite/sample.sql"
--
-- Ten thousand executions of a hundred runs each, the oldest 80 days ago; the newest thousandth of the
-- runs is in flight, one in two hundred was given up. Without the parameter it is a million.

INSERT INTO executions
    (exec_id, job_id, version, initiated_by, initiated_at, target_count, success_count, failure_count, status)
WITH RECURSIVE numbers (number) AS (
    SELECT 1
    UNION ALL
    SELECT number + 1 FROM numbers WHERE number < coalesce(:runs, 1000000) / 100
)
SELECT
    'execution-' || number,
    'job-' || (number % 40),
    '1.0.' || (number % 5),
    'sample',
    strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now', '-' || (number * 8000.0 / coalesce(:runs, 1000000)) || ' days'),
    100,
    CASE WHEN number <= max(coalesce(:runs, 1000000) / 100000, 1) THEN 0 ELSE 97 END,
    CASE WHEN number <= max(coalesce(:runs, 1000000) / 100000, 1) THEN 0 ELSE 3 END,
    CASE WHEN number <= max(coalesce(:runs, 1000000) / 100000, 1) THEN 'running' ELSE 'completed' END
FROM numbers;

INSERT INTO execution_results
    (result_id, request_id, exec_id, pc_id, exit_code, stdout, started_at, finished_at, recorded_at, job_id,
     version, reaped, expires_at)
WITH RECURSIVE numbers (number) AS (
    SELECT 0
    UNION ALL
    SELECT number + 1 FROM numbers WHERE number < coalesce(:runs, 1000000) - 1
),
sample AS (
    SELECT
        number,
        number < coalesce(:runs, 1000000) / 1000 AS is_in_flight,
        number % 200 = 7 AND number >= coalesce(:runs, 1000000) / 1000 AS is_reaped,
        julianday('now') - number * 80.0 / coalesce(:runs, 1000000) AS started
    FROM numbers
)
SELECT
    lower(hex(randomblob(16))),
    'request-' || (number / 100),
    'execution-' || (number / 100 + 1),
    'pc-' || (number % 5000),
    CASE WHEN is_in_flight THEN NULL WHEN is_reaped THEN -1 ELSE number % 33 = 0 END,
    substr('output output output output output output output output', 1, number % 56),
    strftime('%Y-%m-%dT%H:%M:%f+00:00', started),
    CASE WHEN is_in_flight THEN NULL ELSE strftime('%Y-%m-%dT%H:%M:%f+00:00', started, '+40 seconds') END,
    strftime('%Y-%m-%dT%H:%M:%f+00:00', started, '+0.02 seconds'),
    'job-' || ((number / 100 + 1) % 40),
    '1.0.' || ((number / 100 + 1) % 5),
    is_reaped,
    strftime('%Y-%m-%dT%H:%M:%f+00:00', started, iif(number % 10 = 0, '+9 minutes', '+3 hours'))
FROM sample;

PRAGMA analysis_limit = 400;
ANALYZE;
