-- Every column of every execution, to compare with what should have become of it.
SELECT * FROM executions ORDER BY exec_id;
