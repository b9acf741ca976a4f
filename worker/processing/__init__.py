"""The pool threads: decode, write, decide."""
