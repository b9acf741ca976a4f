"""What a person runs beside the worker: commands that look, mend, and end."""
