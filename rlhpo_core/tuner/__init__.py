"""Algorithm 1 over one `TunerState`: propose, observe, fit the reward model, update the policy.

Knows torch, and neither MLflow, KFP, S3 nor a training library.
"""
