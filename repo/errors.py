"""What can go wrong in the database, by what has to be done about it.

RepositoryError
├── TransientError        busy, locked, interrupted: roll back, retry soon
├── UnavailableError      read-only, replaced, no rights: no message's fault, reopen later
│   ├── DiskError         full, or an I/O error: it may pass by itself
│   └── SchemaError       a table or column is missing, or the schema rejects every row
├── TransactionAborted    a trigger rejected a statement and ended the whole transaction
├── RowRejected           a constraint or trigger rejects this row: reject its message
└── CorruptDatabaseError  corrupt, or not a database at all: stop

The engine's package translates its driver's errors into these; the cause is kept.
"""


class RepositoryError(Exception):
    """The root of this package's errors. `summary` says in a few words what is wrong."""

    summary = "a constraint of the database rejects the change"


class TransientError(RepositoryError):
    """Another connection holds the lock; the same write works in a moment."""

    summary = "the database is locked by another program"


class UnavailableError(RepositoryError):
    """The database cannot take any row now: disk, file, rights."""

    summary = "the database cannot be used"


class DiskError(UnavailableError):
    """The disk is full or does not answer."""

    summary = "the disk of the database is full or does not respond"


class SchemaError(UnavailableError):
    """The tables are not what the statements expect."""

    summary = "the tables do not match this version"


class TransactionAborted(RepositoryError):
    """A trigger rejected a statement and rolled the whole transaction back."""


class RowRejected(RepositoryError):
    """A constraint or trigger rejects this row."""


class CorruptDatabaseError(RepositoryError):
    """The database is corrupt or not a database; writing to it would make it worse."""

    summary = "the database is corrupt, or the file is not a database"
