-- executions: one row for each deployment of a manifest to N PCs, inserted by the program that
-- deploys. The worker sets its status and counts its runs that have ended.
CREATE TABLE IF NOT EXISTS executions (
    exec_id       TEXT PRIMARY KEY,
    job_id        TEXT NOT NULL,
    version       TEXT NOT NULL,
    initiated_by  TEXT NOT NULL,
    initiated_at  TIMESTAMP NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now')),
    target_count  INTEGER NOT NULL,
    success_count INTEGER NOT NULL DEFAULT 0,
    failure_count INTEGER NOT NULL DEFAULT 0,
    status        TEXT NOT NULL DEFAULT 'pending'  -- pending, running, completed, expired
);
-- Executions by status: finds the pending and running ones without reading the finished ones.
CREATE INDEX IF NOT EXISTS executions_status ON executions (status);
-- Pending executions, for the sweep: partial, so that it stays as small as what is pending. With the
-- status in it, it serves better than the index above also where the planner has no statistics.
CREATE INDEX IF NOT EXISTS executions_pending
    ON executions (status, exec_id) WHERE status = 'pending';
-- Executions by the time at which they were initiated, for retention.
CREATE INDEX IF NOT EXISTS executions_initiated_at ON executions (initiated_at);
