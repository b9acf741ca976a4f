-- What the program that takes in results writes when a run has ended.
UPDATE execution_results
SET exit_code = 0, stdout = 'done', finished_at = :finished_at
WHERE result_id = :result_id AND finished_at IS NULL;
