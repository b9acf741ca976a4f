DROP INDEX IF EXISTS execution_results_recorded_at;
DROP INDEX IF EXISTS execution_results_reaped_finished_at;
DROP INDEX IF EXISTS execution_results_job_id;
DROP INDEX IF EXISTS execution_results_pc_id;
DROP INDEX IF EXISTS execution_results_exec_id;
DROP INDEX IF EXISTS execution_results_in_flight_expires_at;
DROP INDEX IF EXISTS execution_results_in_flight_started_at;
DROP TABLE IF EXISTS execution_results;
