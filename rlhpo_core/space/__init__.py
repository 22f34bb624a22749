"""Search spaces: hyperparameters with domains and conditions; configurations to codes and features, and back.

Pure data and arithmetic: no torch, no files but the built-in spaces.
"""
