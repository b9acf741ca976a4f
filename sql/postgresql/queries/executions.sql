-- name: find_pending_executions
-- Return those of any number of executions that are pending.
-- Frequency: once per batch that names an execution, in its transaction; once for 50 executions that the
-- sweep finds.
-- Index: executions_pending, once for each execution.
SELECT exec_id
FROM executions
WHERE status = 'pending' AND exec_id = ANY (?::text[]);

-- name: find_execution_statuses
-- Return the status of those of any number of executions that exist, before runs are counted. They are
-- locked, in the order of their ids: the transaction that counts holds them until its commit, so each count sees all
-- before it.
-- Frequency: once per batch of results or reaped runs that names an execution, in its transaction.
-- Index: primary key (exec_id), once for each execution.
SELECT exec_id, status
FROM executions
WHERE exec_id = ANY (?::text[])
ORDER BY exec_id
FOR NO KEY UPDATE;

-- name: lock_free_executions
-- Lock those of any number of executions that no other transaction holds, and return them.
-- Frequency: once per batch whose wait in find_execution_statuses has timed out: its runs of executions that
-- others hold are then left out, so that they do not hold up the rest.
-- Index: primary key (exec_id), once for each execution.
SELECT exec_id
FROM executions
WHERE exec_id = ANY (?::text[])
ORDER BY exec_id
FOR NO KEY UPDATE SKIP LOCKED;

-- name: find_executions
-- Return those of any number of executions that exist.
-- Frequency: as lock_free_executions, after it.
-- Index: primary key (exec_id), once for each execution.
SELECT exec_id FROM executions WHERE exec_id = ANY (?::text[]);

-- name: hold_counts
-- Wait until no other transaction counts for the first time in any of these executions, and let none do so
-- until the end of this one. Such a count reads the runs that have ended; a run that another transaction has
-- ended and not committed would be missed by both. The locks are of 256 numbers, of which an execution has
-- one, so that a large batch does not exhaust the server's table of locks; in their order.
-- Frequency: once per batch of results or reaped runs that names an execution which is pending, expired or
-- not there.
-- Index: none; no table is read.
SELECT pg_advisory_xact_lock(hashtext('start-projector counts'), bucket)
FROM (
    SELECT DISTINCT hashtext(exec_id) & 255 AS bucket
    FROM unnest(?::text[]) AS given (exec_id)
    ORDER BY bucket
) AS buckets;

-- name: try_hold_counts
-- As hold_counts, before executions are promoted, without waiting: return those that are held now.
-- Frequency: once per batch that names a pending execution.
-- Index: none; no table is read.
SELECT exec_id
FROM unnest(?::text[]) AS given (exec_id)
WHERE pg_try_advisory_xact_lock(hashtext('start-projector counts'), hashtext(exec_id) & 255);

-- name: promote_execution
-- Turn an execution from pending to running, and count its runs that have ended: nothing is counted
-- while an execution is pending. It is completed if they are as many as its targets; without any, the
-- counts stay as they are. Any other status is left unchanged, and so is an execution that another
-- transaction holds: the statement waits for no lock, so that one execution that a program keeps in an open
-- transaction does not hold up the runs of all. The worker then tries again after its commit, and with its
-- next batches. After try_hold_counts, in a statement of its own: it must see what others committed by then.
-- Frequency: once for each execution that find_pending_executions returned.
-- Index: executions_pending; execution_results_exec_id.
UPDATE executions
SET (success_count, failure_count, status) = (
    SELECT
        CASE WHEN count(*) > 0 THEN count(*) FILTER (WHERE exit_code = 0)
            ELSE executions.success_count END,
        CASE WHEN count(*) > 0 THEN count(*) FILTER (WHERE exit_code IS DISTINCT FROM 0)
            ELSE executions.failure_count END,
        CASE WHEN count(*) > 0 AND count(*) >= executions.target_count THEN 'completed'
            ELSE 'running' END
    FROM execution_results
    WHERE execution_results.exec_id = executions.exec_id AND finished_at IS NOT NULL
)
WHERE status = 'pending' AND exec_id = (
    SELECT exec_id FROM executions AS free
    WHERE free.exec_id = ? AND free.status = 'pending'
    FOR NO KEY UPDATE SKIP LOCKED
);

-- name: list_pending_executions_after
-- Return one page of the pending executions, whether each has runs, and whether it was initiated before
-- a time; the last row's id begins the next page, and '' the first. An execution whose row was inserted after its starts
-- has runs and is still pending. Only a time in stored form counts: another text could sort too early.
-- Frequency: once per page of the sweep, which a worker does at its start and every --upkeep-every.
-- Index: executions_pending, which holds only pending executions; execution_results_exec_id per row.
SELECT
    exec_id,
    EXISTS (
        SELECT 1 FROM execution_results WHERE execution_results.exec_id = executions.exec_id
    ) AS has_runs,
    initiated_at < ? AND is_stored_instant(initiated_at) AS is_old
FROM executions
WHERE status = 'pending' AND exec_id > ?
ORDER BY exec_id
LIMIT ?;

-- name: count_ended_runs
-- Add ended runs to the counts of an execution in which runs are counted already, and complete it once
-- they are as many as its targets. While it is pending or expired nothing is counted.
-- Frequency: once per batch of results or reaped runs for each such execution that it names.
-- Index: primary key (exec_id).
UPDATE executions
SET
    success_count = success_count + :succeeded,
    failure_count = failure_count + :failed,
    status = CASE
        WHEN success_count + failure_count + :succeeded + :failed >= target_count THEN 'completed'
        ELSE 'running' END
WHERE exec_id = :exec_id AND status NOT IN ('pending', 'expired');

-- name: count_all_ended_runs
-- Count all ended runs of a pending or expired execution, and those at hand whose rows name another
-- execution: the first count makes up for whatever ended before.
-- Frequency: as count_ended_runs.
-- Index: primary key (exec_id); execution_results_exec_id.
UPDATE executions
SET (success_count, failure_count, status) = (
    SELECT
        :succeeded + count(*) FILTER (WHERE exit_code = 0),
        :failed + count(*) - count(*) FILTER (WHERE exit_code = 0),
        CASE WHEN count(*) + :succeeded + :failed >= executions.target_count THEN 'completed'
            ELSE 'running' END
    FROM execution_results
    WHERE execution_results.exec_id = executions.exec_id AND finished_at IS NOT NULL
)
WHERE exec_id = :exec_id AND status IN ('pending', 'expired');

-- name: move_reaped_runs
-- Count runs that were given up, and have succeeded after all, as successes instead of failures.
-- Frequency: once per batch for each execution with such a run; rare.
-- Index: primary key (exec_id).
UPDATE executions
SET success_count = success_count + :runs, failure_count = failure_count - :runs
WHERE exec_id = :exec_id AND status NOT IN ('pending', 'expired');

-- name: expire_execution
-- Turn an execution from pending to expired, unless runs came since the page was read.
-- Frequency: once for each old execution without runs that the sweep finds, while it is known up to
-- which time the streams are in the database.
-- Index: primary key (exec_id); execution_results_exec_id.
UPDATE executions
SET status = 'expired'
WHERE exec_id = ? AND status = 'pending' AND NOT EXISTS (
    SELECT 1 FROM execution_results WHERE execution_results.exec_id = executions.exec_id
);
