"""The pages about the priors that come with rlhpo: python -m tools.prior_cards [--check]"""

from pathlib import Path

from rlhpo_core.priors.store import builtin_names, load_prior
from rlhpo_core.tuner.prior import describe
from tools import generated


def contents() -> dict[Path, str]:
    """The text of each page, by its path: what ``rlhpo prior show`` prints."""
    folder = generated.ROOT / "docs" / "built-in-priors"
    return {folder / f"{name}.md": describe(load_prior(name)) for name in builtin_names()}


if __name__ == "__main__":
    generated.main(__doc__ or "", contents)
