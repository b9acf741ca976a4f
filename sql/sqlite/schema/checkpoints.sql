-- checkpoints: how far a consumer's messages are committed in this very file; advanced by each
-- batch in the batch's own transaction. Compared with the broker before every pull, so that a file
-- that was wiped or restored from a backup is recognised.
CREATE TABLE IF NOT EXISTS checkpoints (
    stream            TEXT NOT NULL,
    consumer          TEXT NOT NULL,
    stream_created_at TIMESTAMP NOT NULL,   -- a recreated stream counts from 1 again
    highest_sequence  INTEGER NOT NULL,     -- the highest stream sequence that is committed
    caught_up_to      INTEGER NOT NULL,     -- every start at or below it is committed
    committed_at      TIMESTAMP NOT NULL,   -- when the row was last written
    PRIMARY KEY (stream, consumer)
);
