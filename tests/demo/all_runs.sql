-- Every column of every run, to compare with what was published and with how it was before.
SELECT * FROM execution_results ORDER BY result_id;
