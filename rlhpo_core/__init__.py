"""rlhpo: hyperparameter tuning by model-based reinforcement learning."""

__version__ = "0.1.0"
