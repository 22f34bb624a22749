"""What a study file says: data, evaluator, objective, budget, tuner, gate; read strictly, and light to import."""
