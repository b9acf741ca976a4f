-- name: latest_rejected_events
-- Operators: the hundred newest messages that were rejected, and why.
-- Frequency: on demand.
-- Index: primary key (rejected_id), from its end.
SELECT rejected_id, rejected_at, stream, stream_sequence, subject, reason, length(payload) AS bytes
FROM rejected_events
WHERE rejected_id > 0
ORDER BY rejected_id DESC
LIMIT 100;
