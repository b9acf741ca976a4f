-- name: change_deadline
-- Set the deadline of a run in flight. A run that has ended keeps its own, and so does one whose deadline
-- is no longer the one that the operator was shown.
-- Values: the new deadline, the id, the deadline that was shown, or NULL.
-- Frequency: on demand, by `projector deadlines recompute --yes`; once per run whose deadline changes, up
-- to 500 in one transaction.
-- Index: primary key (result_id).
UPDATE execution_results SET expires_at = ?
WHERE result_id = ? AND finished_at IS NULL AND expires_at IS NOT DISTINCT FROM ?;
