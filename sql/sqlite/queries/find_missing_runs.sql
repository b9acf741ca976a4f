-- name: find_missing_runs
-- Return those of 1000, 100 or a single run that do not exist: a trigger can drop a row without an error.
-- Frequency: once for each 1000 starts of a batch in which not all are new, such as a redelivery or a
-- replay, and each 100 of the rest; once for each start of a batch of at most five.
-- Index: primary key (result_id), once for each run.
WITH given (result_id) AS (
    VALUES
    (?)  -- for each run
)
SELECT given.result_id
FROM given
WHERE NOT EXISTS (
    SELECT 1 FROM execution_results WHERE execution_results.result_id = given.result_id
);
