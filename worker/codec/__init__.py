"""Pure text and number codecs: timestamps, durations, JSON."""
