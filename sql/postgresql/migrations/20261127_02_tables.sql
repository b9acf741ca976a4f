-- The tables, with the columns of the other engine. Texts are compared byte by byte (COLLATE "C"), so no
-- index depends on the system's rules of sorting, and times in text form sort as times.
-- depends: 20261127_01_functions

-- executions: one row for each deployment of a manifest to N PCs, inserted by the program that
-- deploys. The worker sets its status and counts its runs that have ended.
CREATE TABLE IF NOT EXISTS executions (
    exec_id       text COLLATE "C" PRIMARY KEY,
    job_id        text COLLATE "C" NOT NULL,
    version       text COLLATE "C" NOT NULL,
    initiated_by  text COLLATE "C" NOT NULL,
    initiated_at  text COLLATE "C" NOT NULL DEFAULT stored_instant(date_trunc('second', now())),
    target_count  bigint NOT NULL,
    success_count bigint NOT NULL DEFAULT 0,
    failure_count bigint NOT NULL DEFAULT 0,
    status        text COLLATE "C" NOT NULL DEFAULT 'pending'
        CONSTRAINT executions_status_known CHECK (status IN ('pending', 'running', 'completed', 'expired'))
) WITH (fillfactor = 80);  -- room beside each row: a count then writes no index

-- Executions by status: finds the pending and running ones without reading the finished ones.
CREATE INDEX IF NOT EXISTS executions_status ON executions (status);

-- Pending executions, for the sweep: partial, so that it stays as small as what is pending.
CREATE INDEX IF NOT EXISTS executions_pending ON executions (exec_id) WHERE status = 'pending';

-- Executions by the time at which they were initiated, for retention.
CREATE INDEX IF NOT EXISTS executions_initiated_at ON executions (initiated_at);

-- execution_results: one row for each run, one PC's share of an execution.
-- The worker inserts the row when the run starts; the result or the reaper fills in its end.
-- Times are text, UTC, YYYY-MM-DDTHH:MM:SS[.fff|.ffffff|.fffffffff]+00:00: text order is time order.
CREATE TABLE IF NOT EXISTS execution_results (
    result_id        text COLLATE "C" PRIMARY KEY,
    request_id       text COLLATE "C" NOT NULL,
    exec_id          text COLLATE "C",             -- empty for an ad-hoc run
    pc_id            text COLLATE "C" NOT NULL,
    exit_code        bigint,
    stdout           text COLLATE "C" NOT NULL DEFAULT '',
    stderr           text COLLATE "C" NOT NULL DEFAULT '',
    started_at       text COLLATE "C" NOT NULL     -- by the agent's clock
        DEFAULT stored_instant(date_trunc('second', now())),
    finished_at      text COLLATE "C",             -- NULL while the run is in flight
    recorded_at      text COLLATE "C" NOT NULL     -- when the broker stored the start
        DEFAULT stored_instant(date_trunc('second', now())),
    job_id           text COLLATE "C",             -- the manifest
    version          text COLLATE "C",
    reaped           smallint NOT NULL DEFAULT 0,
    expires_at       text COLLATE "C",             -- the deadline; NULL if it cannot be computed
    parent_result_id text COLLATE "C",
    skipped          smallint NOT NULL DEFAULT 0
);

-- Open runs by start and by deadline: partial, so that they stay as small as what is in flight.
CREATE INDEX IF NOT EXISTS execution_results_in_flight_started_at
    ON execution_results (started_at) WHERE finished_at IS NULL;
CREATE INDEX IF NOT EXISTS execution_results_in_flight_expires_at
    ON execution_results (expires_at) WHERE finished_at IS NULL;

-- Runs of an execution, of a PC, of a job. By hash: such an index takes a text of any length, while an
-- ordered one refuses a row whose text is longer than about 2 700 bytes.
CREATE INDEX IF NOT EXISTS execution_results_exec_id ON execution_results USING hash (exec_id);
CREATE INDEX IF NOT EXISTS execution_results_pc_id ON execution_results USING hash (pc_id);
CREATE INDEX IF NOT EXISTS execution_results_job_id ON execution_results USING hash (job_id);

-- Reaped runs by the time of their reaping: partial, so that inserting a start never writes it.
CREATE INDEX IF NOT EXISTS execution_results_reaped_finished_at
    ON execution_results (finished_at) WHERE reaped = 1;

-- Runs by the time at which they were stored, for retention.
CREATE INDEX IF NOT EXISTS execution_results_recorded_at ON execution_results (recorded_at);

-- rejected_events: one row for each message that cannot be decoded, or whose row is rejected by a
-- constraint or trigger. Stream, sequence and store time identify the message: a replay makes no
-- second row, and a stream that was recreated, whose sequences start from 1, loses none.
-- The id of a deleted event is never used again. Ids have gaps, and follow the order of arrival only
-- roughly where several workers insert.
CREATE TABLE IF NOT EXISTS rejected_events (
    rejected_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream          text COLLATE "C" NOT NULL,
    stream_sequence bigint NOT NULL,
    recorded_at     text COLLATE "C" NOT NULL,      -- when the broker stored the message
    subject         text COLLATE "C" NOT NULL,      -- a NUL, which no text here can hold, as \x00
    reason          text COLLATE "C" NOT NULL,
    rejected_at     text COLLATE "C" NOT NULL,
    payload         bytea NOT NULL,                 -- byte for byte
    UNIQUE (stream, stream_sequence, recorded_at)
);

-- checkpoints: how far a consumer's messages are in this very database; advanced by each batch in the
-- batch's own transaction. The worker reads the stream again from here whenever it connects, so a
-- database that was wiped, restored or promoted gets its missing rows back.
CREATE TABLE IF NOT EXISTS checkpoints (
    stream            text COLLATE "C" NOT NULL,
    consumer          text COLLATE "C" NOT NULL,
    stream_created_at text COLLATE "C" NOT NULL,    -- a recreated stream counts from 1 again
    caught_up_to      bigint NOT NULL,              -- every start at or below it is in this database
    last_sequence     bigint NOT NULL,              -- one message that the stream held: its sequence,
    last_stored_at    text COLLATE "C" NOT NULL,    -- and when it was stored, '' for none; another
                                                    -- time there means that the stream went back
    place             text COLLATE "C" NOT NULL,    -- the database that this row was written in
    commits           bigint NOT NULL DEFAULT 0,    -- transactions that advanced this row
    committed_at      text COLLATE "C" NOT NULL,    -- when the row was last written
    lost_sequences    bigint NOT NULL DEFAULT 0,    -- sequences that the stream lost before they were
    lost_up_to        bigint NOT NULL DEFAULT 0,    -- read, in all, and the last one of them
    lost_at           text COLLATE "C",             -- when that was last noticed
    PRIMARY KEY (stream, consumer)
) WITH (fillfactor = 50);  -- each batch updates the row: new versions stay on its page
