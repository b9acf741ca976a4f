-- What the program that deploys writes before it tells the agents.
INSERT INTO executions
    (exec_id, job_id, version, initiated_by, initiated_at, target_count, success_count, status)
VALUES
    (:exec_id, :job_id, :version, 'demo', :initiated_at, :target_count, :success_count, :status);
