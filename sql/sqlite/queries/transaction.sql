-- Transactions. Frequency: begin and commit once per batch; the savepoint once for each row of a batch
-- with a rejected row.

-- name: begin_write
-- Begin. IMMEDIATE, so that the wait for the write lock honours the busy timeout.
BEGIN IMMEDIATE;

-- name: commit
COMMIT;

-- name: rollback
ROLLBACK;

-- name: open_savepoint
-- Begin a part that can be undone alone; the rest of the batch stays.
SAVEPOINT best_effort;

-- name: undo_savepoint
ROLLBACK TO best_effort;

-- name: release_savepoint
RELEASE best_effort;
