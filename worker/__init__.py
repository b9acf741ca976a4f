"""start-projector's process: it pulls from JetStream, projects through `repo`, and acks."""

__version__ = "0.1.0"
