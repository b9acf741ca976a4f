-- name: executions_by_status
-- Operators: how many executions are pending, running, completed, expired.
-- Frequency: on demand; once per tick of a worker whose metrics are read.
-- Index: executions_status, one lookup for each status.
WITH known (position, status) AS (
    VALUES (1, 'pending'), (2, 'running'), (3, 'completed'), (4, 'expired')
)
SELECT
    known.status,
    (SELECT count(*) FROM executions WHERE executions.status = known.status) AS executions
FROM known
ORDER BY known.position;
