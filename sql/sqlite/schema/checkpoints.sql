CREATE TABLE IF NOT EXISTS checkpoints (
    -- How far a consumer's messages are in this very database; advanced by each batch in the batch's own
    -- transaction. The worker reads the stream again from here whenever it connects, so a file that was
    -- wiped or restored from a backup gets its missing rows back. Never edit or copy a row; delete it to
    -- read all of the stream again. Written by the worker only; one row for each consumer.
    stream            TEXT NOT NULL,
    consumer          TEXT NOT NULL,
    stream_created_at TIMESTAMP NOT NULL,           -- a recreated stream counts from 1 again
    caught_up_to      INTEGER NOT NULL,             -- every message at or below it is in this database,
                                                    -- 0 before the first
    last_sequence     INTEGER NOT NULL,             -- one message that the stream held: its sequence,
                                                    -- 0 for none,
    last_stored_at    TEXT NOT NULL,                -- and when it was stored, '' for none; another
                                                    -- time there means that the stream went back
    place             TEXT NOT NULL,                -- the database that this row was written in
    commits           INTEGER NOT NULL DEFAULT 0,   -- transactions that advanced this row
    committed_at      TIMESTAMP NOT NULL,           -- when the row was last written
    lost_sequences    INTEGER NOT NULL DEFAULT 0,   -- sequences that the stream lost before they were
    lost_up_to        INTEGER NOT NULL DEFAULT 0,   -- read, in all, and the last one of them
    lost_at           TIMESTAMP,                    -- when that was last noticed; NULL for never
    PRIMARY KEY (stream, consumer)
);
