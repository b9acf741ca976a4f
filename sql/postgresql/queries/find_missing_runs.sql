-- name: find_missing_runs
-- Return those of any number of runs that do not exist: a trigger can drop a row without an error.
-- Frequency: once for the starts of a batch in which not all are new, such as a redelivery or a replay.
-- Index: primary key (result_id), once for each run.
SELECT given.result_id
FROM unnest(?::text[]) AS given (result_id)
WHERE NOT EXISTS (
    SELECT 1 FROM execution_results WHERE execution_results.result_id = given.result_id
);
