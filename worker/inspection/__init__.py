"""Read-only analysis behind the commands."""
