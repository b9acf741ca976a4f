-- How many messages the worker has projected.
SELECT
    (SELECT count(*) FROM execution_results) AS runs,
    (SELECT count(*) FROM rejected_events) AS rejected;
