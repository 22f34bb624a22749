"""What 06-own-function.yaml tunes: a support vector machine that reads handwritten digits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sklearn.datasets import load_digits
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC


def train(
    config: Mapping[str, float], report: Callable[[int, float], None], validation_share: float
) -> dict[str, float]:
    """One trial.

    Args:
        config: The hyperparameters, by name.
        report: Takes a step and a score, for learning curves. This training has no steps, so it is not called.
        validation_share: From ``evaluator.options`` in the study file, the same in all trials.

    Returns:
        The objective's metric, and others to be logged with it.
    """
    images, digits = load_digits(return_X_y=True)
    split = train_test_split(images, digits, test_size=validation_share, stratify=digits, random_state=0)
    train_images, validation_images, train_digits, validation_digits = split
    model = SVC(C=config["C"], gamma=config["gamma"]).fit(train_images, train_digits)
    predicted = model.predict(validation_images)
    return {
        "accuracy": float((predicted == validation_digits).mean()),
        "f1": float(f1_score(validation_digits, predicted, average="macro")),
    }
