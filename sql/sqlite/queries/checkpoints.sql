-- Checkpoints: do the database and the broker belong together?

-- name: read_checkpoint
-- How often: before every pull, and when a batch finds the checkpoint gone.
-- Index: the primary key.
SELECT stream_created_at, highest_sequence, caught_up_to, committed_at
FROM checkpoints
WHERE stream = ? AND consumer = ?;

-- name: has_rows
-- Tells a file that is new or wiped from one that another program has filled.
-- How often: before a pull, if there is no checkpoint.
-- Index: the primary keys; the first entry answers.
SELECT
    EXISTS (SELECT 1 FROM execution_results WHERE result_id >= '')
    OR EXISTS (SELECT 1 FROM rejected_events WHERE rejected_id > 0);

-- name: put_checkpoint
-- Starts a checkpoint, or starts it anew for a stream that was made anew; for the same stream it never
-- goes back, since another worker may have moved it on meanwhile.
-- How often: before every pull.
-- Index: the primary key.
INSERT INTO checkpoints
    (stream, consumer, stream_created_at, highest_sequence, caught_up_to, committed_at)
VALUES
    (?, ?, ?, ?, ?, ?)
ON CONFLICT (stream, consumer) DO UPDATE SET
    highest_sequence = CASE
        WHEN stream_created_at = excluded.stream_created_at
        THEN max(highest_sequence, excluded.highest_sequence)
        ELSE excluded.highest_sequence
    END,
    caught_up_to = CASE
        WHEN stream_created_at = excluded.stream_created_at
        THEN max(caught_up_to, excluded.caught_up_to)
        ELSE excluded.caught_up_to
    END,
    stream_created_at = excluded.stream_created_at,
    committed_at = excluded.committed_at;

-- name: advance_checkpoint
-- Changes no row if the checkpoint is not where this process left it, or farther on: somebody has
-- restored an older copy into the open file.
-- How often: once a batch, in its transaction.
-- Index: the primary key.
UPDATE checkpoints
SET
    highest_sequence = max(highest_sequence, ?),
    caught_up_to = max(caught_up_to, ?),
    committed_at = ?
WHERE stream = ? AND consumer = ? AND stream_created_at = ? AND highest_sequence >= ?
RETURNING highest_sequence;
