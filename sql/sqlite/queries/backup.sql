-- Copies of the whole database. How often: once a `projector backup` or `projector restore`.

-- name: copy_into
-- A whole and compact copy in a new file, of one moment, while others go on writing; the write-ahead
-- log keeps all that they write meanwhile.
-- Index: none; every page of every table is read.
VACUUM INTO ?;

-- name: set_write_ahead_log
-- A copy has no log; the database that a worker writes to needs one.
PRAGMA journal_mode = WAL;
