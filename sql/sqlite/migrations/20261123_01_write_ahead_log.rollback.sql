-- transactional: false
PRAGMA journal_mode = DELETE;
