"""The broker thread: connection, consumer, pull, acks."""
