"""A study in pictures and words: figures, charts, the note in MLflow and the page."""
