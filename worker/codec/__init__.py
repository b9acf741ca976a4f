"""Read and write timestamps, durations and JSON. Pure functions, safe on any thread."""
