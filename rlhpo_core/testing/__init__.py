"""Tests that come with rlhpo, for what others may add to it: they say what each implementation has to do."""
