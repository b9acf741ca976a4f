-- What the program that writes results does when a run ends.
UPDATE execution_results
SET exit_code = 0, stdout = 'done', finished_at = :finished_at
WHERE result_id = :result_id AND finished_at IS NULL;
