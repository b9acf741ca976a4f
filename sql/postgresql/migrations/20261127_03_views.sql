-- Views for people: the same rows, with instants that the server can calculate with.
-- depends: 20261127_02_tables

-- Runs with their state. Filter by the text columns of the table (started_at, expires_at, ...), which
-- have indexes; the columns without _at are the same instants, NULL where a text is none, or of a year that timestamptz lacks.
CREATE OR REPLACE VIEW readable_runs AS
SELECT
    result_id, exec_id, pc_id, job_id, version,
    CASE
        WHEN finished_at IS NULL AND expires_at < stored_instant(now()) THEN 'overdue'
        WHEN finished_at IS NULL THEN 'in flight'
        WHEN skipped = 1 THEN 'skipped'
        WHEN reaped = 1 THEN 'given up'
        WHEN exit_code = 0 THEN 'succeeded'
        ELSE 'failed'
    END AS state,
    exit_code,
    CASE WHEN is_stored_instant(started_at) AND started_at > '0001' THEN started_at::timestamptz END AS started,
    CASE WHEN is_stored_instant(recorded_at) AND recorded_at > '0001' THEN recorded_at::timestamptz END AS recorded,
    CASE WHEN is_stored_instant(expires_at) AND expires_at > '0001' THEN expires_at::timestamptz END AS expires,
    CASE WHEN is_stored_instant(finished_at) AND finished_at > '0001' THEN finished_at::timestamptz END AS finished,
    started_at, recorded_at, expires_at, finished_at, reaped, skipped, parent_result_id, request_id
FROM execution_results;

-- Executions with how far they are.
CREATE OR REPLACE VIEW readable_executions AS
SELECT
    exec_id, job_id, version, initiated_by, status, target_count, success_count, failure_count,
    target_count - success_count - failure_count AS outstanding,
    CASE WHEN is_stored_instant(initiated_at) AND initiated_at > '0001' THEN initiated_at::timestamptz END AS initiated,
    initiated_at
FROM executions;
