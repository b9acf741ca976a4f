-- What the worker asks of the server itself. Frequency: once per connection or check, unless a statement
-- says otherwise.

-- name: get_place
-- Return the place of this database; see the function. Frequency: once per `projector status`.
-- Index: none; no table is read.
SELECT database_place() AS place;

-- name: get_session
-- Return the number of the server's session. Behind a pooler it differs from the one that the client got at
-- its connect.
-- Index: none; no table is read.
SELECT pg_backend_pid() AS session;

-- name: can_write
-- Return whether a transaction could write: not on a standby, nor where default_transaction_read_only
-- is set.
-- Index: none; no table is read.
SELECT current_setting('transaction_read_only') = 'off' AS can_write;

-- name: describe_server
-- Return what a check reports. Frequency: once per `projector check`.
-- Index: none; pg_stat_replication has one row for each standby.
SELECT
    current_setting('server_version') AS version,
    current_setting('server_version_num')::int AS version_number,
    current_setting('server_encoding') AS encoding,
    current_setting('fsync') AS fsync,
    current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('synchronous_standby_names') AS synchronous_standby_names,
    (SELECT count(*) FROM pg_stat_replication) AS standbys,
    current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
        AS connections_left;

-- name: list_invalid_indexes
-- Return indexes of the worker's tables that are not used: a CREATE INDEX CONCURRENTLY was interrupted.
-- Frequency: once per `projector check`.
-- Index: pg_index's own.
SELECT indexrelid::regclass::text AS name
FROM pg_index
WHERE NOT indisvalid
    AND indrelid IN (
        to_regclass('executions'), to_regclass('execution_results'), to_regclass('rejected_events'),
        to_regclass('checkpoints'))
ORDER BY name;

-- name: list_missing_rights
-- Return what the worker must be allowed to do and this role is not. Frequency: once per `projector check`.
-- Index: none; no table is read.
SELECT needed.privilege || coalesce(' (' || needed.columns || ')', '') || ' on ' || needed.name AS missing
FROM (
    VALUES
    ('execution_results', 'SELECT', NULL),
    ('execution_results', 'INSERT',
     'result_id request_id exec_id pc_id started_at version job_id recorded_at expires_at exit_code stdout'
     ' stderr finished_at'),
    ('execution_results', 'UPDATE',
     'request_id job_id exit_code stdout stderr finished_at reaped skipped parent_result_id'),
    ('execution_results', 'DELETE', NULL),
    ('executions', 'SELECT', NULL),
    ('executions', 'UPDATE', 'status success_count failure_count'),
    ('executions', 'DELETE', NULL),
    ('rejected_events', 'SELECT', NULL),
    ('rejected_events', 'INSERT',
     'stream stream_sequence recorded_at subject payload reason rejected_at'),
    ('checkpoints', 'SELECT', NULL), ('checkpoints', 'INSERT', NULL), ('checkpoints', 'UPDATE', NULL),
    ('_yoyo_migration', 'SELECT', NULL)
) AS needed (name, privilege, columns)
WHERE CASE
    WHEN needed.columns IS NULL THEN NOT has_table_privilege(needed.name, needed.privilege)
    ELSE EXISTS (
        SELECT 1 FROM unnest(string_to_array(needed.columns, ' ')) AS given (column_name)
        WHERE NOT has_column_privilege(needed.name, column_name, needed.privilege)
    )
END
ORDER BY missing;

-- name: get_database_size
-- Return the bytes of the database's files. Frequency: once per tick of a worker whose metrics are read.
-- Index: none; the server adds up the sizes of its files.
SELECT pg_database_size(current_database()) AS bytes;

-- name: force_generic_plan
-- Explain a statement by the plan that serves any value, up to the end of the transaction.
-- Frequency: once per statement that `projector sql` explains.
-- Index: none; no table is read.
SELECT set_config('plan_cache_mode', 'force_generic_plan', true);

-- name: forget_explained
-- Forget the statement that was prepared to be explained: a pooler shares the session.
-- Frequency: as force_generic_plan.
DEALLOCATE explained;

-- name: list_lock_holders
-- Return the sessions that others in this database wait for: number, and program and role where this role
-- may see them (pg_read_all_stats). Frequency: once per `projector status`.
-- Index: none; pg_stat_activity has one row for each session.
SELECT DISTINCT
    blocker.pid,
    nullif(concat_ws(' of ', nullif(blocker.application_name, ''), blocker.usename), '') AS program
FROM pg_stat_activity AS waiting
CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocking (pid)
JOIN pg_stat_activity AS blocker ON blocker.pid = blocking.pid
WHERE waiting.datname = current_database() AND waiting.wait_event_type = 'Lock'
ORDER BY blocker.pid;
