-- All executions, to compare with the expected rows.
SELECT * FROM executions ORDER BY exec_id;
