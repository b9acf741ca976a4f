-- List rejected events, project them again, or discard them.
-- Frequency: on demand, by `projector rejected`; those that write, once for each event, up to 500 events
-- in one transaction.

-- name: list_rejected_events_before
-- Return one page of the list, newest first; the id of its last row begins the next page.
-- Index: primary key (rejected_id), backwards from the given id.
SELECT
    rejected_id, rejected_at, stream, stream_sequence, recorded_at, subject,
    length(payload) AS bytes, reason
FROM rejected_events
WHERE rejected_id < ?
ORDER BY rejected_id DESC
LIMIT ?;

-- name: find_rejected_event
-- Return one event with its payload. 
-- Index: primary key (rejected_id).
SELECT
    stream, stream_sequence, recorded_at, subject, payload, reason,
    rejected_at
FROM rejected_events
WHERE rejected_id = ?;

-- name: delete_projected_rejected_event
-- Delete an event whose run was written after all, in the transaction that wrote the run. It stays if
-- the run does not exist, for example because a trigger ignored its row without an error.
-- Index: unique (stream, stream_sequence, recorded_at); primary key of execution_results.
DELETE FROM rejected_events
WHERE stream = ? AND stream_sequence = ? AND recorded_at = ?
    AND EXISTS (SELECT 1 FROM execution_results WHERE result_id = ?);

-- name: change_rejection_reason
-- Update the reason of an event that is rejected again. Most have the same reason: no row is written.
-- Index: unique (stream, stream_sequence, recorded_at).
UPDATE rejected_events SET reason = ?
WHERE stream = ? AND stream_sequence = ? AND recorded_at = ? AND reason <> ?;

-- name: discard_rejected_event
-- Delete an event that an operator discards. It is found by its message, not by its id, so that exactly
-- the event that was shown is deleted.
-- Index: unique (stream, stream_sequence, recorded_at).
DELETE FROM rejected_events WHERE stream = ? AND stream_sequence = ? AND recorded_at = ?;
