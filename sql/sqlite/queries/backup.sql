-- Copy the whole database. Frequency: once per `projector backup` or `projector restore`.

-- name: copy_into
-- Write a complete and compact copy of one moment to a new file while other programs go on writing;
-- the write-ahead log keeps what they write meanwhile.
-- Index: none; reads every page of every table.
VACUUM INTO ?;

-- name: set_write_ahead_log
-- Give a copy, which has no log, the one that a worker's database needs.
PRAGMA journal_mode = WAL;
