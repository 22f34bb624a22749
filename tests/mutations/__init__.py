"""Real tables as people's tools write them: mutated by seed, and each read rightly or refused with column and row."""
