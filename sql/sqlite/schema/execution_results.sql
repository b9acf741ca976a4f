-- execution_results: one row for each run, one PC's share of an execution.
-- The worker inserts the row when the run starts; the result or the reaper fills in its end.
-- Times are text, UTC, YYYY-MM-DDTHH:MM:SS[.fff|.ffffff|.fffffffff]+00:00: text order is time order.
CREATE TABLE IF NOT EXISTS execution_results (
    result_id        TEXT PRIMARY KEY,
    request_id       TEXT NOT NULL,
    exec_id          TEXT,                        -- empty for an ad-hoc run
    pc_id            TEXT NOT NULL,
    exit_code        INTEGER,
    stdout           TEXT NOT NULL DEFAULT '',
    stderr           TEXT NOT NULL DEFAULT '',
    started_at       TIMESTAMP NOT NULL           -- by the agent's clock
        DEFAULT (strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now')),
    finished_at      TIMESTAMP,                   -- NULL while the run is in flight
    recorded_at      TIMESTAMP NOT NULL           -- when the broker stored the start
        DEFAULT (strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now')),
    job_id           TEXT,                        -- the manifest
    version          TEXT,
    reaped           INTEGER NOT NULL DEFAULT 0,
    expires_at       TIMESTAMP,                   -- the deadline; NULL if it cannot be computed
    parent_result_id TEXT,
    skipped          INTEGER NOT NULL DEFAULT 0
);
-- Open runs by start and by deadline: partial, so that they stay as small as what is in flight.
CREATE INDEX IF NOT EXISTS execution_results_in_flight_started_at
    ON execution_results (started_at) WHERE finished_at IS NULL;
CREATE INDEX IF NOT EXISTS execution_results_in_flight_expires_at
    ON execution_results (expires_at) WHERE finished_at IS NULL;
-- Runs of an execution, of a PC, of a job.
CREATE INDEX IF NOT EXISTS execution_results_exec_id ON execution_results (exec_id);
CREATE INDEX IF NOT EXISTS execution_results_pc_id ON execution_results (pc_id);
CREATE INDEX IF NOT EXISTS execution_results_job_id ON execution_results (job_id);
-- Reaped runs by the time of their reaping: partial, so that inserting a start never writes it.
CREATE INDEX IF NOT EXISTS execution_results_reaped_finished_at
    ON execution_results (finished_at) WHERE reaped = 1;
-- Runs by the time at which they were stored, for retention.
CREATE INDEX IF NOT EXISTS execution_results_recorded_at ON execution_results (recorded_at);
