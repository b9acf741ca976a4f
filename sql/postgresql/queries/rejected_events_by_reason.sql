-- name: rejected_events_by_reason
-- Operators: why messages were rejected, the most frequent reason first, of the 10 000 newest; long
-- reasons are cut.
-- Frequency: on demand; at most once in ten seconds per worker, while its page is open.
-- Index: primary key (rejected_id), from its end.
SELECT reason, count(*) AS events, max(rejected_at) AS last_rejected_at
FROM (
    SELECT substr(reason, 1, 500) AS reason, rejected_at
    FROM rejected_events
    WHERE rejected_id > 0
    ORDER BY rejected_id DESC
    LIMIT 10000
) AS newest
GROUP BY reason
ORDER BY events DESC, reason
LIMIT 100;
