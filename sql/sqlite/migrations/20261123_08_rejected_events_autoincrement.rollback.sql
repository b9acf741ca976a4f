-- The table as it was before, with its rows and their ids.
CREATE TABLE IF NOT EXISTS rejected_events_kept (
    rejected_id     INTEGER PRIMARY KEY,
    stream          TEXT NOT NULL,
    stream_sequence INTEGER NOT NULL,
    recorded_at     TIMESTAMP NOT NULL,
    subject         TEXT NOT NULL,
    payload         BLOB NOT NULL,
    reason          TEXT NOT NULL,
    rejected_at     TIMESTAMP NOT NULL
);
-- For a table that somebody has dropped.
CREATE TABLE IF NOT EXISTS rejected_events (
    rejected_id     INTEGER PRIMARY KEY,
    stream          TEXT,
    stream_sequence INTEGER,
    recorded_at     TIMESTAMP,
    subject         TEXT,
    payload         BLOB,
    reason          TEXT,
    rejected_at     TIMESTAMP
);
INSERT INTO rejected_events_kept
    (rejected_id, stream, stream_sequence, recorded_at, subject, payload, reason, rejected_at)
SELECT rejected_id, stream, stream_sequence, recorded_at, subject, payload, reason, rejected_at
FROM rejected_events;
DROP TABLE IF EXISTS rejected_events;
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
INSERT INTO rejected_events
    (rejected_id, stream, stream_sequence, recorded_at, subject, payload, reason, rejected_at)
SELECT rejected_id, stream, stream_sequence, recorded_at, subject, payload, reason, rejected_at
FROM rejected_events_kept
ORDER BY rejected_id;
DROP TABLE IF EXISTS rejected_events_kept;
