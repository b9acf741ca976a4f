-- What the program that writes results does if a result arrives before its start.
INSERT INTO execution_results
    (result_id, request_id, exec_id, pc_id, job_id, version,
     exit_code, stdout, started_at, finished_at, recorded_at)
VALUES
    (:result_id, :request_id, :exec_id, :pc_id, :manifest_id, :version,
     0, 'written before its start', :started_at, :finished_at, :finished_at);
