"""Comparisons with peers and with the paper: ``python -m benchmarks.NAME``. docs/measurements has their tables."""
