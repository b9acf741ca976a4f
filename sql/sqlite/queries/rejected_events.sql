-- Rejected events, as a person looks at them, has them projected again, or discards them.
-- How often: when somebody runs `projector rejected`; the ones that write, once for each event, up
-- to 500 of them in one transaction.

-- name: list_rejected_events_before
-- One page of the list, newest first; the id of its last row begins the next page.
-- Index: the primary key, backwards from the id that is given.
SELECT
    rejected_id, rejected_at, stream, stream_sequence, recorded_at, subject,
    length(payload) AS bytes, reason
FROM rejected_events
WHERE rejected_id < ?
ORDER BY rejected_id DESC
LIMIT ?;

-- name: find_rejected_event
-- One event with its payload. The cast is for a payload that a person inserted as text.
-- Index: the primary key.
SELECT
    stream, stream_sequence, recorded_at, subject, CAST(payload AS BLOB) AS payload, reason,
    rejected_at
FROM rejected_events
WHERE rejected_id = ?;

-- name: delete_projected_rejected_event
-- An event whose run was written after all leaves the table, in the transaction that wrote the run;
-- it stays where the run is not there, such as for a trigger that ignores its row without a word.
-- Index: the unique (stream, stream_sequence, recorded_at); the primary key of execution_results.
DELETE FROM rejected_events
WHERE stream = ? AND stream_sequence = ? AND recorded_at = ?
    AND EXISTS (SELECT 1 FROM execution_results WHERE result_id = ?);

-- name: change_rejection_reason
-- An event that is refused again, for another reason. Most are refused for the same one: no write.
-- Index: the unique (stream, stream_sequence, recorded_at).
UPDATE rejected_events SET reason = ?
WHERE stream = ? AND stream_sequence = ? AND recorded_at = ? AND reason <> ?;

-- name: discard_rejected_event
-- A person has decided that the event is of no use. By what names the message, not by the id: what
-- is deleted is the very event that was shown before.
-- Index: the unique (stream, stream_sequence, recorded_at).
DELETE FROM rejected_events WHERE stream = ? AND stream_sequence = ? AND recorded_at = ?;
