"""The evaluator that trains XGBoost on a table, and the script that serves its models."""
