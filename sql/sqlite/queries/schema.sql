-- Read which migrations yoyo has applied. Frequency: once per start of a worker or command.

-- name: has_migration_table
-- Check that yoyo has been run on this database.
-- Index: none; sqlite_schema has one row for each table and index.
SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '_yoyo_migration';

-- name: list_applied_migrations
-- List the applied migrations.
-- Index: none; one row for each migration.
SELECT migration_id FROM _yoyo_migration;

-- name: get_migration_lock
-- Read which process holds yoyo's lock. Frequency: while a migration waits for it.
-- Index: none; at most one row.
SELECT pid, ctime FROM yoyo_lock;
