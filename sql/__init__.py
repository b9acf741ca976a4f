"""The SQL, as package data: migrations (applied with yoyo), schema and queries of each engine."""
