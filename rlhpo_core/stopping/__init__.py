"""Trials that stop early: rules from curves to verdicts, and what a stopped trial has saved and teaches."""
