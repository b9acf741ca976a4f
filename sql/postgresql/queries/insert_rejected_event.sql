-- name: insert_rejected_event
-- Store a message that cannot be decoded, or whose row is rejected by a constraint, with the reason.
-- Values: in the order of the columns.
-- Frequency: once for each such message; normally never.
-- Index: unique (stream, stream_sequence, recorded_at), to find a replay, which inserts no second row.
INSERT INTO rejected_events
    (stream, stream_sequence, recorded_at, subject, payload, reason, rejected_at)
VALUES
    (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (stream, stream_sequence, recorded_at) DO NOTHING;
