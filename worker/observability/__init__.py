"""Metrics, health endpoints and systemd notifications."""
