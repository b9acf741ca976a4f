"""The SQLite engine: connections, files, schema, backup."""
