-- name: read_checkpoint
-- Read the checkpoint of one consumer.
-- Frequency: once per connect, and when a batch cannot advance it.
-- Index: primary key (stream, consumer).
SELECT
    stream_created_at, caught_up_to, last_sequence, last_stored_at, committed_at,
    place, commits, lost_sequences, lost_up_to, lost_at
FROM checkpoints
WHERE stream = ? AND consumer = ?;

-- name: put_checkpoint
-- Insert or replace the position in the checkpoint of one consumer; what was lost stays counted.
-- Values: in the order of the columns. caught_up_to is 0 before the first message; last_sequence is 0 and
-- last_stored_at is '' while no message is known.
-- Frequency: once per connect, in the transaction that has read the row.
-- Index: primary key (stream, consumer).
INSERT INTO checkpoints
    (stream, consumer, stream_created_at, caught_up_to, last_sequence, last_stored_at, committed_at,
     place)
VALUES
    (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (stream, consumer) DO UPDATE SET
    stream_created_at = excluded.stream_created_at,
    caught_up_to = excluded.caught_up_to,
    last_sequence = excluded.last_sequence,
    last_stored_at = excluded.last_stored_at,
    committed_at = excluded.committed_at,
    place = excluded.place,
    commits = commits + 1
RETURNING commits;

-- name: advance_checkpoint
-- Advance the checkpoint of one consumer. Changes no row in a database where the worker has not begun,
-- or whose content is older than what this process committed: then a copy was restored. A batch without
-- a position in the stream, such as a retry, passes 0 and '', which are below every sequence and time.
-- Frequency: once per batch, in its transaction; when the worker becomes idle.
-- Index: primary key (stream, consumer).
UPDATE checkpoints
SET
    caught_up_to = max(caught_up_to, :caught_up_to),
    last_stored_at = iif(:last_sequence > last_sequence, :last_stored_at, last_stored_at),
    last_sequence = max(last_sequence, :last_sequence),
    committed_at = max(committed_at, :committed_at),
    commits = commits + 1
WHERE stream = :stream
    AND consumer = :consumer
    AND stream_created_at = :stream_created_at
    AND place = :place
    AND commits >= :commits_seen
RETURNING commits;

-- name: record_lost_sequences
-- Count sequences that limits or a purge took from the stream before they were read.
-- Frequency: each time that is noticed; normally never.
-- Index: primary key (stream, consumer).
UPDATE checkpoints
SET lost_sequences = lost_sequences + ?, lost_up_to = ?, lost_at = ?
WHERE stream = ? AND consumer = ?;
