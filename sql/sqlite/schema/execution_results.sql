CREATE TABLE IF NOT EXISTS execution_results (
    -- One row for each run, one PC's share of an execution. The worker inserts the row when the run starts;
    -- the result or the reaper fills in its end; retention deletes it once it has ended.
    -- Times are text, UTC, YYYY-MM-DDTHH:MM:SS[.fff|.ffffff|.fffffffff]+00:00: text order is time order.
    result_id        TEXT PRIMARY KEY,
    request_id       TEXT NOT NULL,               -- many PCs share one
    exec_id          TEXT,                        -- '' or NULL for an ad-hoc run. No foreign key: the
                                                  -- execution may come later, or be deleted earlier
    pc_id            TEXT NOT NULL,
    exit_code        INTEGER,                     -- NULL while in flight. The reaper writes -1, but a
                                                  -- script may exit with it too: see reaped
    stdout           TEXT NOT NULL DEFAULT '',
    stderr           TEXT NOT NULL DEFAULT '',    -- the reaper adds a note
    started_at       TIMESTAMP NOT NULL           -- by the agent's clock
        DEFAULT (strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now')),
    finished_at      TIMESTAMP,                   -- NULL while the run is in flight
    recorded_at      TIMESTAMP NOT NULL           -- when the broker stored the first message of the run
        DEFAULT (strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now')),
    job_id           TEXT,                        -- the manifest
    version          TEXT,                        -- of the manifest; NULL without a start
    reaped           INTEGER NOT NULL DEFAULT 0,  -- 1: given up at its deadline
    expires_at       TIMESTAMP,                   -- the deadline; NULL if it cannot be computed
    parent_result_id TEXT,                        -- the run whose end started this one
    skipped          INTEGER NOT NULL DEFAULT 0   -- 1: the agent did not run the script
);
CREATE INDEX IF NOT EXISTS execution_results_in_flight_started_at
    -- For people: runs in flight, the oldest first. Partial, so that it stays as small as what is in flight.
    ON execution_results (started_at) WHERE finished_at IS NULL;
CREATE INDEX IF NOT EXISTS execution_results_in_flight_expires_at
    -- The reaper, and people: overdue runs. Partial, so that it stays as small as what is in flight.
    ON execution_results (expires_at) WHERE finished_at IS NULL;
CREATE INDEX IF NOT EXISTS execution_results_exec_id
    -- The worker: first counts, promotion and the sweep read the runs of an execution by it. People too.
    ON execution_results (exec_id);
CREATE INDEX IF NOT EXISTS execution_results_pc_id
    -- For people only: runs of a PC.
    ON execution_results (pc_id);
CREATE INDEX IF NOT EXISTS execution_results_job_id
    -- For people and other programs only: runs of a job.
    ON execution_results (job_id);
CREATE INDEX IF NOT EXISTS execution_results_reaped_finished_at
    -- For people only: recently reaped runs. Partial, so that inserting a start never writes it.
    ON execution_results (finished_at) WHERE reaped = 1;
CREATE INDEX IF NOT EXISTS execution_results_recorded_at
    -- Retention, and the newest ended runs.
    ON execution_results (recorded_at);
