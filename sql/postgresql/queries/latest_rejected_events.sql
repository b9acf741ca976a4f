-- name: latest_rejected_events
-- Operators: the hundred newest messages that were rejected, and why; the last column says whether there
-- are more.
-- Frequency: on demand.
-- Index: primary key (rejected_id), from its end, at most 101 entries. The condition on rejected_id is true
-- of every row: it only makes the planner use the index.
WITH found AS (
    SELECT rejected_id, rejected_at, stream, stream_sequence, subject, reason, length(payload) AS bytes
    FROM rejected_events
    WHERE rejected_id > 0
    ORDER BY rejected_id DESC
    LIMIT 101
)
SELECT
    rejected_id, rejected_at, stream, stream_sequence, subject, reason, bytes,
    CASE WHEN (SELECT count(*) FROM found) > 100 THEN 'yes' ELSE 'no' END AS more_rows
FROM found
ORDER BY rejected_id DESC
LIMIT 100;
