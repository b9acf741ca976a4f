-- name: insert_rejected_event
-- A message that is no start, or whose row the tables refuse, is kept with the reason.
-- How often: once for each such message; none on a good day.
-- Index: the unique (stream, stream_sequence, recorded_at) finds a replay, which makes no second row.
INSERT INTO rejected_events
    (stream, stream_sequence, recorded_at, subject, payload, reason, rejected_at)
VALUES
    (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (stream, stream_sequence, recorded_at) DO NOTHING;
