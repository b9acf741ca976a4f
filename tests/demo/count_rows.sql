-- How far the worker has come.
SELECT
    (SELECT count(*) FROM execution_results) AS runs,
    (SELECT count(*) FROM rejected_events) AS rejected;
