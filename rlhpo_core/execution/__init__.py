"""The loop in this process: how a study begins, its rounds, its worker processes and its display."""
