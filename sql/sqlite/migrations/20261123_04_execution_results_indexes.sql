-- Open runs by start and by deadline: partial, so that they stay as small as what is in flight.
CREATE INDEX IF NOT EXISTS execution_results_in_flight_started_at
    ON execution_results (started_at) WHERE finished_at IS NULL;
CREATE INDEX IF NOT EXISTS execution_results_in_flight_expires_at
    ON execution_results (expires_at) WHERE finished_at IS NULL;
-- Runs of an execution, of a PC, of a job.
CREATE INDEX IF NOT EXISTS execution_results_exec_id ON execution_results (exec_id);
CREATE INDEX IF NOT EXISTS execution_results_pc_id ON execution_results (pc_id);
CREATE INDEX IF NOT EXISTS execution_results_job_id ON execution_results (job_id);
