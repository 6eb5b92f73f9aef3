"""Handing results on: DVC stages and metrics, and a research object for archives."""
