"""rlhpo: hyperparameter tuning by model-based reinforcement learning."""

import os

__version__ = "0.1.0"

# MLflow reads these when it is imported, which no module of this package does before this one has run: send no usage
# statistics, tell no news. What the user has set stays in force.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
