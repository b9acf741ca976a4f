-- What yoyo has applied. How often: once, when the worker starts.

-- name: has_migration_table
-- Index: none; sqlite_schema has one row for each table and index.
SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '_yoyo_migration';

-- name: list_applied_migrations
-- Index: none; one row for each migration.
SELECT migration_id FROM _yoyo_migration;
