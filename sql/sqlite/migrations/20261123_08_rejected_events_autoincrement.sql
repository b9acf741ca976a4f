-- rejected_events made anew, with its rows and their ids: AUTOINCREMENT, so that the id of an event
-- that was removed never becomes another one's, and the payload last, so that no list reads through it.
-- yoyo runs all of this as one transaction; it may be applied again. The first statement writes, since
-- a transaction that begins by reading cannot wait for a worker that is writing.
CREATE TABLE IF NOT EXISTS rejected_events_kept (
    rejected_id     INTEGER PRIMARY KEY AUTOINCREMENT,
    stream          TEXT NOT NULL,
    stream_sequence INTEGER NOT NULL,
    recorded_at     TIMESTAMP NOT NULL,
    subject         TEXT NOT NULL,
    reason          TEXT NOT NULL,
    rejected_at     TIMESTAMP NOT NULL,
    payload         BLOB NOT NULL
);
-- What others have added to the table would go with it: better to fail, and to say so.
CREATE TEMP TABLE IF NOT EXISTS added_by_others (
    surplus INTEGER CONSTRAINT
        "rejected_events has columns, indexes or triggers of others: drop them, migrate, make them again"
        CHECK (surplus = 0)
);
INSERT INTO added_by_others (surplus)
SELECT
    (SELECT count(*) FROM sqlite_schema
    WHERE tbl_name = 'rejected_events' AND type IN ('index', 'trigger') AND sql IS NOT NULL)
    + (SELECT count(*) - 8 FROM pragma_table_info('rejected_events'));
DROP TABLE IF EXISTS added_by_others;
-- The highest id there ever was, if this was applied before.
INSERT INTO sqlite_sequence (name, seq)
SELECT 'rejected_events_kept', seq FROM sqlite_sequence WHERE name = 'rejected_events';
INSERT INTO rejected_events_kept
    (rejected_id, stream, stream_sequence, recorded_at, subject, reason, rejected_at, payload)
SELECT rejected_id, stream, stream_sequence, recorded_at, subject, reason, rejected_at, payload
FROM rejected_events;
-- Not renamed: that would fail where somebody has a view of the table.
DROP TABLE IF EXISTS rejected_events;
CREATE TABLE IF NOT EXISTS rejected_events (
    rejected_id     INTEGER PRIMARY KEY AUTOINCREMENT,
    stream          TEXT NOT NULL,
    stream_sequence INTEGER NOT NULL,
    recorded_at     TIMESTAMP NOT NULL,      -- when the broker stored the message
    subject         TEXT NOT NULL,
    reason          TEXT NOT NULL,
    rejected_at     TIMESTAMP NOT NULL,
    payload         BLOB NOT NULL,           -- as it came, byte for byte
    UNIQUE (stream, stream_sequence, recorded_at)
);
INSERT INTO sqlite_sequence (name, seq)
SELECT 'rejected_events', seq FROM sqlite_sequence WHERE name = 'rejected_events_kept';
INSERT INTO rejected_events
    (rejected_id, stream, stream_sequence, recorded_at, subject, reason, rejected_at, payload)
SELECT rejected_id, stream, stream_sequence, recorded_at, subject, reason, rejected_at, payload
FROM rejected_events_kept
ORDER BY rejected_id;
DROP TABLE IF EXISTS rejected_events_kept;
