"""What the worker knows about its own health."""
