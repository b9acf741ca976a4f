"""The process: it pulls starts from JetStream, projects them through `repo`, and settles them."""

__version__ = "0.1.0"
