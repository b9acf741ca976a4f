-- execution_results: one row for each run, one PC's share of an execution.
-- The worker inserts the row when the run starts; the result or the reaper fills in its end.
-- Times are text, UTC, YYYY-MM-DDTHH:MM:SS[.fff|.ffffff|.fffffffff]+00:00: text order is time order.
CREATE TABLE IF NOT EXISTS execution_results (
    result_id   TEXT PRIMARY KEY,
    request_id  TEXT NOT NULL,
    exec_id     TEXT,                        -- empty for an ad-hoc run
    pc_id       TEXT NOT NULL,
    exit_code   INTEGER,
    stdout      TEXT NOT NULL DEFAULT '',
    stderr      TEXT NOT NULL DEFAULT '',
    started_at  TIMESTAMP NOT NULL,          -- by the agent's clock
    finished_at TIMESTAMP,                   -- NULL while the run is in flight
    recorded_at TIMESTAMP NOT NULL,          -- when the broker stored the start
    job_id      TEXT,                        -- the manifest
    version     TEXT,
    reaped      INTEGER NOT NULL DEFAULT 0,
    expires_at  TIMESTAMP                    -- the deadline; NULL where none can be computed
);
