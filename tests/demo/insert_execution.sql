-- What the deployer writes before it publishes the commands.
INSERT INTO executions
    (exec_id, job_id, version, initiated_by, initiated_at, target_count, success_count,
     failure_count, status)
VALUES
    (:exec_id, :job_id, '1.0.0', 'demo', strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now'),
     :target_count, :success_count, :failure_count, :status);
