-- All runs, to compare with what was published and with their earlier state.
SELECT * FROM execution_results ORDER BY result_id;
