"""Kills, outages and full disks at seeded random moments of real studies: ``python -m tests.soak --help``."""
