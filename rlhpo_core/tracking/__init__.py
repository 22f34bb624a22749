"""Studies and trials as runs in MLflow, and where a record comes from."""
