-- A database as the fleet's own program creates and owns it, at one of its older versions: its
-- tables lack some columns of ours, have others, and have its own indexes, a trigger and a view.
PRAGMA journal_mode = WAL;
CREATE TABLE executions (
    exec_id TEXT PRIMARY KEY, job_id TEXT NOT NULL, version TEXT NOT NULL,
    initiated_by TEXT NOT NULL, initiated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    target_count INTEGER NOT NULL, success_count INTEGER NOT NULL DEFAULT 0,
    failure_count INTEGER NOT NULL DEFAULT 0, status TEXT NOT NULL DEFAULT 'pending',
    site TEXT NOT NULL DEFAULT 'north'
);
CREATE INDEX idx_executions_job ON executions (job_id, initiated_at DESC);
CREATE TABLE execution_results (
    result_id TEXT PRIMARY KEY, request_id TEXT NOT NULL, exec_id TEXT, pc_id TEXT NOT NULL,
    exit_code INTEGER, stdout TEXT NOT NULL DEFAULT '', stderr TEXT NOT NULL DEFAULT '',
    started_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, finished_at TIMESTAMP,
    recorded_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, job_id TEXT, version TEXT,
    reaped INTEGER NOT NULL DEFAULT 0, expires_at TIMESTAMP
);
CREATE INDEX idx_results_pc ON execution_results (pc_id, recorded_at DESC);
CREATE INDEX idx_results_job ON execution_results (job_id, pc_id, finished_at DESC)
    WHERE job_id IS NOT NULL;
CREATE INDEX idx_results_exec ON execution_results (exec_id, recorded_at DESC)
    WHERE exec_id IS NOT NULL;
CREATE INDEX idx_results_request ON execution_results (request_id);
CREATE INDEX idx_results_open ON execution_results (started_at DESC) WHERE finished_at IS NULL;
CREATE INDEX idx_results_expiry ON execution_results (expires_at) WHERE finished_at IS NULL;
CREATE INDEX idx_results_finished ON execution_results (finished_at) WHERE finished_at IS NOT NULL;
CREATE TRIGGER count_result AFTER UPDATE OF finished_at ON execution_results
BEGIN
    UPDATE executions SET success_count = success_count + 1 WHERE exec_id = NEW.exec_id;
END;
CREATE VIEW open_results AS SELECT * FROM execution_results WHERE finished_at IS NULL;
INSERT INTO executions (exec_id, job_id, version, initiated_by, target_count)
VALUES ('theirs', 'job-1', '1', 'operator', 1);
INSERT INTO execution_results (result_id, request_id, pc_id) VALUES ('theirs', 'request-1', 'pc-1');
