-- Roles for a database of the worker: run once in that database, by the role that owns its tables (which
-- is the one that migrates) or by a superuser.
--
--   psql -f sql/postgresql/roles.sql "postgresql://owner@host/fleet"
--
-- They are groups without a login. Give each program a login of its own:
--
--   CREATE ROLE projector LOGIN IN ROLE projector_worker;
--
-- The worker bounds its waits and asks for durable commits itself; what a role sets for
-- statement_timeout and idle_in_transaction_session_timeout counts.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['projector_worker', 'projector_operator', 'projector_reader'] LOOP
        IF to_regrole(name) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        END IF;
    END LOOP;
END
$$;

-- The worker: everything that sql/postgresql/queries does in a batch and at an interval.
GRANT SELECT, DELETE ON execution_results TO projector_worker;
GRANT INSERT
    (result_id, request_id, exec_id, pc_id, started_at, version, job_id, recorded_at, expires_at,
     exit_code, stdout, stderr, finished_at)
    ON execution_results TO projector_worker;
GRANT UPDATE
    (request_id, job_id, exit_code, stdout, stderr, finished_at, reaped, skipped, parent_result_id)
    ON execution_results TO projector_worker;
GRANT SELECT, DELETE, UPDATE (status, success_count, failure_count) ON executions TO projector_worker;
GRANT SELECT, INSERT (stream, stream_sequence, recorded_at, subject, payload, reason, rejected_at)
    ON rejected_events TO projector_worker;
GRANT SELECT, INSERT, UPDATE ON checkpoints TO projector_worker;
GRANT SELECT ON _yoyo_migration TO projector_worker;

-- An operator: what `projector rejected retry` and `discard`, `rebuild`, `upkeep` and `deadlines recompute`
-- do as well.
GRANT projector_worker TO projector_operator;
GRANT UPDATE (expires_at) ON execution_results TO projector_operator;
GRANT UPDATE (reason), DELETE ON rejected_events TO projector_operator;

-- A reader: Datasette, dashboards, `projector runs`, `status`, `verify`, `explain`.
GRANT SELECT ON
    executions, execution_results, rejected_events, checkpoints, _yoyo_migration, readable_runs,
    readable_executions
    TO projector_reader;
