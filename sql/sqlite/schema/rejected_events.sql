CREATE TABLE IF NOT EXISTS rejected_events (
    -- One row for each message that cannot be decoded, or whose row is rejected by a constraint or trigger.
    -- Stream, sequence and store time identify the message: a replay makes no second row, and a stream
    -- that was recreated, whose sequences start from 1, loses none. Kept until an operator retries or
    -- discards it (projector rejected).
    rejected_id     INTEGER PRIMARY KEY AUTOINCREMENT,  -- the id of a deleted event is never reused
    stream          TEXT NOT NULL,
    stream_sequence INTEGER NOT NULL,
    recorded_at     TIMESTAMP NOT NULL,      -- when the broker stored the message
    subject         TEXT NOT NULL,
    reason          TEXT NOT NULL,           -- updated if a retry is rejected for another reason
    rejected_at     TIMESTAMP NOT NULL,
    payload         BLOB NOT NULL,           -- byte for byte; last, so that no list reads it
    UNIQUE (stream, stream_sequence, recorded_at)
);
