"""The SQL, as package data: `migrations/` (the schema, applied with yoyo) and `queries/`."""
