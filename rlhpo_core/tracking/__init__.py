"""Studies and trials as runs in MLflow, and where a record comes from.

Whatever talks to an MLflow server does so through ``connection``, which waits seconds and not minutes.
"""
