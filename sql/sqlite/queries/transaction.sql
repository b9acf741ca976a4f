-- Transactions. How often: begin and commit once a batch; the savepoint for each row of a batch
-- of which one is refused.

-- name: begin_write
-- IMMEDIATE, so that the wait for the write lock honours the busy timeout.
BEGIN IMMEDIATE;

-- name: commit
COMMIT;

-- name: rollback
ROLLBACK;

-- name: open_savepoint
-- What fails inside is undone alone; the rest of the batch stands.
SAVEPOINT best_effort;

-- name: undo_savepoint
ROLLBACK TO best_effort;

-- name: release_savepoint
RELEASE best_effort;
