-- Transactions. Frequency: begin, prepare and commit once per batch; the savepoint once for each row of a
-- batch with a rejected row.

-- name: begin_write
BEGIN;

-- name: prepare_writing
-- Return the place of this database, and bound the waits of what follows: milliseconds for another
-- transaction's lock; what the role sets for a statement and for an idle transaction, or else 30 and 60 s.
-- A commit is durable whatever the role says: acks follow it. No table is scanned, although that is
-- quicker while it is nearly empty: the plan of a prepared statement would be kept while it grows.
-- Values: :for_transaction is true where all of it ends with the transaction.
-- Frequency: once per connection; behind a pooler, which shares sessions, once per transaction, with whose
-- end all of it is forgotten.
SELECT
    database_place() AS place,
    set_config('lock_timeout', :lock_timeout, :for_transaction),
    set_config('enable_seqscan', 'off', :for_transaction),
    set_config(
        'statement_timeout', coalesce(nullif(current_setting('statement_timeout'), '0'), '30s'),
        :for_transaction),
    set_config(
        'idle_in_transaction_session_timeout',
        coalesce(nullif(current_setting('idle_in_transaction_session_timeout'), '0'), '60s'),
        :for_transaction),
    set_config(
        'synchronous_commit',
        CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN 'on'
            ELSE current_setting('synchronous_commit') END,
        :for_transaction);

-- name: take_upkeep_lock
-- Wait for the upkeep of other workers, up to lock_timeout: two of them would look at the same rows. The
-- lock ends with the transaction.
-- Frequency: once per transaction of the sweep, the reaper and retention.
SELECT pg_advisory_xact_lock(hashtext('start-projector upkeep'));

-- name: commit
COMMIT;

-- name: rollback
ROLLBACK;

-- name: open_savepoint
-- Begin a part that can be undone alone; the rest of the batch stays.
SAVEPOINT best_effort;

-- name: check_constraints
-- Check what another program's constraints would else check at the commit: it belongs to this row.
SET CONSTRAINTS ALL IMMEDIATE;

-- name: undo_savepoint
ROLLBACK TO SAVEPOINT best_effort;

-- name: release_savepoint
RELEASE SAVEPOINT best_effort;
