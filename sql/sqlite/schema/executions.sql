CREATE TABLE IF NOT EXISTS executions (
    -- One row for each deployment of a manifest to N PCs, inserted by the program that deploys. The worker
    -- sets its status and counts its runs that have ended; retention deletes it.
    exec_id       TEXT PRIMARY KEY,
    job_id        TEXT NOT NULL,                   -- the manifest
    version       TEXT NOT NULL,
    initiated_by  TEXT NOT NULL,
    initiated_at  TIMESTAMP NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now')),
    target_count  INTEGER NOT NULL,                -- number of PCs
    success_count INTEGER NOT NULL DEFAULT 0,      -- both 0 while it is pending or expired
    failure_count INTEGER NOT NULL DEFAULT 0,      -- reaped runs too
    status        TEXT NOT NULL DEFAULT 'pending'  -- pending, running, completed, expired. No CHECK: a
                                                   -- later fleet program may know more
);
CREATE INDEX IF NOT EXISTS executions_status
    -- For people and metrics: counts by status without reading the table.
    ON executions (status);
CREATE INDEX IF NOT EXISTS executions_pending
    -- The sweep: partial, so that it stays as small as what is pending. With the status in it, the planner
    -- prefers it to executions_status also if it has no statistics.
    ON executions (status, exec_id) WHERE status = 'pending';
CREATE INDEX IF NOT EXISTS executions_initiated_at
    -- Retention, and the newest executions.
    ON executions (initiated_at);
