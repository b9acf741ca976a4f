"""The PostgreSQL engine: connections, the server's errors, schema, checks."""
