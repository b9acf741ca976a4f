-- Settings of a connection, and one check. Frequency: once per connection, unless a statement says
-- otherwise.

-- name: set_synchronous
-- Sync each commit: acks follow commits, and with less than FULL a power loss could lose an acked start.
PRAGMA synchronous = FULL;

-- name: set_cache_size
-- Keep 64 MiB of pages: every insert reads the indexes on random ids.
PRAGMA cache_size = -65536;

-- name: set_checkpoint_interval
-- Checkpoint the log at 16000 pages, every sixth batch under load. The default of 1000 would checkpoint
-- at each one, and with 8000 or 32000 a tenth of the rate was lost.
PRAGMA wal_autocheckpoint = 16000;

-- name: set_journal_size_limit
-- Truncate the log to 128 MiB after a slow reader made it grow.
PRAGMA journal_size_limit = 134217728;

-- name: get_journal_mode
-- Read the journal mode; the worker logs a warning unless it is "wal", since readers would block it.
PRAGMA journal_mode;

-- name: quick_check
-- Read all pages and return the first corruption; workers go on meanwhile. Writing does not notice it.
-- Frequency: once per `projector check --thorough`, and twice per backup or restore.
PRAGMA quick_check(1);
