-- Read which migrations yoyo has applied. Frequency: once per start of a worker or command.

-- name: has_migration_table
-- Check that yoyo has been run on this database.
-- Index: pg_class's own.
SELECT count(*) FROM pg_class WHERE oid = to_regclass('_yoyo_migration');

-- name: list_applied_migrations
-- List the applied migrations.
-- Index: none; one row for each migration.
SELECT migration_id FROM _yoyo_migration;

-- name: take_migration_lock
-- Take yoyo's lock, in a transaction that stays open while the migrations apply and is then undone: a
-- process that is killed leaves no lock behind.
-- Index: primary key (locked), which excludes every other migration.
INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, now() AT TIME ZONE 'UTC', pg_backend_pid());

-- name: set_migration_lock_timeout
-- Bound the wait for another migration's lock, up to the end of the transaction.
-- Index: none; no table is read.
SELECT set_config('lock_timeout', '200ms', true);

-- name: get_migration_lock
-- Read which process holds yoyo's lock. Frequency: while a migration waits for it.
-- Index: none; at most one row.
SELECT pid, ctime FROM yoyo_lock;
