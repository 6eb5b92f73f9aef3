"""Timings that a person asks for (`make bench-data`): no tests, since a loaded machine would fail them."""
