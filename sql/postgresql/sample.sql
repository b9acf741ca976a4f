-- A million plausible runs in an empty database, to EXPLAIN statements on:
--
--   psql -v runs=1000000 -f sql/postgresql/sample.sql "postgresql://me@host/sample"
--
-- Ten thousand executions of a hundred runs each, the oldest 80 days ago; the newest thousandth of the
-- runs is in flight, one in two hundred was given up.
\if :{?runs}
\else
\set runs 1000000
\endif

INSERT INTO executions
    (exec_id, job_id, version, initiated_by, initiated_at, target_count, success_count, failure_count, status)
SELECT
    md5('execution ' || number), 'job-' || number % 40, '1.0.' || number % 5, 'sample',
    stored_instant(now() - number * interval '80 days' / greatest(:runs / 100, 1)),
    100, CASE WHEN number <= greatest(:runs / 100000, 1) THEN 0 ELSE 97 END,
    CASE WHEN number <= greatest(:runs / 100000, 1) THEN 0 ELSE 3 END,
    CASE WHEN number <= greatest(:runs / 100000, 1) THEN 'running' ELSE 'completed' END
FROM generate_series(1, :runs / 100) AS number;

INSERT INTO execution_results
    (result_id, request_id, exec_id, pc_id, exit_code, stdout, started_at, finished_at, recorded_at, job_id,
     version, reaped, expires_at)
SELECT
    md5('run ' || number),
    md5('request ' || number / 100),
    md5('execution ' || number / 100 + 1),
    'pc-' || number % 5000,
    CASE WHEN is_in_flight THEN NULL WHEN is_reaped THEN -1 ELSE (number % 33 = 0)::int END,
    repeat('output ', (number % 30)::int),
    stored_instant(started),
    CASE WHEN is_in_flight THEN NULL ELSE stored_instant(started + interval '40 seconds') END,
    stored_instant(started + interval '20 milliseconds'),
    'job-' || (number / 100 + 1) % 40,
    '1.0.' || (number / 100 + 1) % 5,
    is_reaped::int,
    stored_instant(started + CASE WHEN number % 10 = 0 THEN interval '9 minutes' ELSE interval '3 hours' END)
FROM (
    SELECT
        number,
        number < :runs / 1000 AS is_in_flight,
        number % 200 = 7 AND number >= :runs / 1000 AS is_reaped,
        now() - number * interval '80 days' / :runs AS started
    FROM generate_series(0, :runs - 1) AS number
) AS sample;

ANALYZE executions, execution_results;
