-- rejected_events: one row for each message that is no start, or whose row the tables refuse.
-- Stream, sequence and store time name the message, so that a replay makes no second row, and a
-- stream that was made anew (sequences from 1 again) loses none.
CREATE TABLE IF NOT EXISTS rejected_events (
    rejected_id     INTEGER PRIMARY KEY,
    stream          TEXT NOT NULL,
    stream_sequence INTEGER NOT NULL,
    recorded_at     TIMESTAMP NOT NULL,      -- when the broker stored the message
    subject         TEXT NOT NULL,
    payload         BLOB NOT NULL,           -- as it came, byte for byte
    reason          TEXT NOT NULL,
    rejected_at     TIMESTAMP NOT NULL,
    UNIQUE (stream, stream_sequence, recorded_at)
);
