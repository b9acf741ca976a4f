-- Settings of each connection, and one check. How often: once, when a pool thread opens its connection,
-- where nothing else is said.

-- name: set_synchronous
-- Acks follow commits: with anything less than FULL a power loss could lose an acked start.
PRAGMA synchronous = FULL;

-- name: set_cache_size
-- 64 MiB of pages: the indexes on random ids are read on every insert.
PRAGMA cache_size = -65536;

-- name: set_checkpoint_interval
-- Pages in the log before a checkpoint. The default of 1000 checkpoints at nearly every batch.
PRAGMA wal_autocheckpoint = 8000;

-- name: set_journal_size_limit
-- Trims the log to 64 MiB after a slow reader has made it grow.
PRAGMA journal_size_limit = 67108864;

-- name: get_journal_mode
-- Anything but "wal" is said at start: readers would block the worker.
PRAGMA journal_mode;

-- name: quick_check
-- Is any page damaged? Reads them all; a worker beside it goes on. Damage is not seen by writing.
-- How often: when somebody runs `projector check --thorough`.
PRAGMA quick_check(1);
