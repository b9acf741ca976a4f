"""start-projector's SQL, as package data: migrations, schema and queries of each engine."""
