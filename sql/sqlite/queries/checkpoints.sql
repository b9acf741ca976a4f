-- name: read_checkpoint
-- Read the checkpoint of one consumer.
-- Frequency: once per connect, and when a batch cannot advance it.
-- Index: primary key (stream, consumer).
SELECT stream_created_at, highest_sequence, caught_up_to, committed_at
FROM checkpoints
WHERE stream = ? AND consumer = ?;

-- name: has_rows
-- Distinguish a new or wiped file from one that another program has filled.
-- Frequency: once per connect, if there is no checkpoint.
-- Index: the primary keys; reads one entry.
SELECT
    EXISTS (SELECT 1 FROM execution_results WHERE result_id >= '')
    OR EXISTS (SELECT 1 FROM rejected_events WHERE rejected_id > 0);

-- name: put_checkpoint
-- Insert or advance the checkpoint of one consumer. If the stream was recreated, reset it; otherwise it
-- only moves forward, because another worker may already have advanced it.
-- Frequency: once per connect.
-- Index: primary key (stream, consumer).
INSERT INTO checkpoints
    (stream, consumer, stream_created_at, highest_sequence, caught_up_to, committed_at)
VALUES
    (?, ?, ?, ?, ?, ?)
ON CONFLICT (stream, consumer) DO UPDATE SET
    highest_sequence = max(
        iif(stream_created_at = excluded.stream_created_at, highest_sequence, 0),
        excluded.highest_sequence
    ),
    caught_up_to = max(
        iif(stream_created_at = excluded.stream_created_at, caught_up_to, 0),
        excluded.caught_up_to
    ),
    stream_created_at = excluded.stream_created_at,
    committed_at = excluded.committed_at;

-- name: advance_checkpoint
-- Advance the checkpoint of one consumer. Changes no row if it is behind what this process committed:
-- then an older copy was restored into the open file.
-- Frequency: once per batch, in its transaction.
-- Index: primary key (stream, consumer).
UPDATE checkpoints
SET
    highest_sequence = max(highest_sequence, ?),
    caught_up_to = max(caught_up_to, ?),
    committed_at = ?
WHERE stream = ? AND consumer = ? AND stream_created_at = ? AND highest_sequence >= ?
RETURNING highest_sequence;
