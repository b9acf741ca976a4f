-- Write-ahead log: readers and the one writer do not block each other, and a commit is one fsync.
-- The mode is a property of the file and stays. It cannot change inside a transaction.
-- transactional: false
PRAGMA journal_mode = WAL;
