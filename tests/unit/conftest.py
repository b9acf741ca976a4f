"""Hypothesis without a time limit per example: on a busy machine it fails correct code."""

from hypothesis import settings

settings.register_profile("unit", settings.default, deadline=None)
settings.load_profile("unit")
