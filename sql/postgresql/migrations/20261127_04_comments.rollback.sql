-- Takes the descriptions away, also one that a DBA has put in the place of ours.
DO $do$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT kind, unnest(names) AS name FROM (
        VALUES
        ('TABLE', ARRAY[
            'executions', 'execution_results', 'rejected_events', 'checkpoints'
        ]),
        ('COLUMN', ARRAY[
            'executions.exec_id', 'executions.job_id', 'executions.version', 'executions.initiated_by',
            'executions.initiated_at', 'executions.target_count', 'executions.success_count',
            'executions.failure_count', 'executions.status', 'execution_results.result_id',
            'execution_results.request_id', 'execution_results.exec_id', 'execution_results.pc_id',
            'execution_results.exit_code', 'execution_results.stdout', 'execution_results.stderr',
            'execution_results.started_at', 'execution_results.finished_at',
            'execution_results.recorded_at', 'execution_results.job_id', 'execution_results.version',
            'execution_results.reaped', 'execution_results.expires_at',
            'execution_results.parent_result_id', 'execution_results.skipped',
            'rejected_events.rejected_id', 'rejected_events.stream', 'rejected_events.stream_sequence',
            'rejected_events.recorded_at', 'rejected_events.subject', 'rejected_events.reason',
            'rejected_events.rejected_at', 'rejected_events.payload', 'checkpoints.stream',
            'checkpoints.consumer', 'checkpoints.stream_created_at', 'checkpoints.caught_up_to',
            'checkpoints.last_sequence', 'checkpoints.last_stored_at', 'checkpoints.place',
            'checkpoints.commits', 'checkpoints.committed_at', 'checkpoints.lost_sequences',
            'checkpoints.lost_up_to', 'checkpoints.lost_at', 'readable_runs.state', 'readable_runs.started',
            'readable_runs.recorded', 'readable_runs.expires', 'readable_runs.finished',
            'readable_executions.outstanding', 'readable_executions.initiated'
        ]),
        ('INDEX', ARRAY[
            'executions_pkey', 'executions_status', 'executions_pending', 'executions_initiated_at',
            'execution_results_pkey', 'execution_results_in_flight_started_at',
            'execution_results_in_flight_expires_at', 'execution_results_exec_id',
            'execution_results_pc_id', 'execution_results_job_id', 'execution_results_reaped_finished_at',
            'execution_results_recorded_at', 'rejected_events_pkey',
            'rejected_events_stream_stream_sequence_recorded_at_key', 'checkpoints_pkey'
        ]),
        ('CONSTRAINT', ARRAY[
            'executions_status_known ON executions'
        ]),
        ('SEQUENCE', ARRAY[
            'rejected_events_rejected_id_seq'
        ]),
        ('VIEW', ARRAY[
            'readable_runs', 'readable_executions'
        ]),
        ('FUNCTION', ARRAY[
            'stored_instant(timestamptz)', 'is_stored_instant(text)', 'database_place()'
        ])
    ) AS described (kind, names) LOOP
        BEGIN
            EXECUTE format('COMMENT ON %s %s IS NULL', one.kind, one.name);
        EXCEPTION
            WHEN undefined_table OR undefined_column OR undefined_object OR undefined_function THEN NULL;
        END;
    END LOOP;
END
$do$;
