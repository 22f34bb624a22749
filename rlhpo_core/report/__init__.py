"""A study in pictures and words: figures, charts, the note in MLflow and the page.

Functions from a study's records to bytes and text; only ``study_report`` reads files and writes to MLflow.
"""
