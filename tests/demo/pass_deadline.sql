-- Move the deadline of a run to the time at which its start was stored, as if its time had passed.
UPDATE execution_results
SET expires_at = recorded_at
WHERE result_id = :result_id AND finished_at IS NULL;
