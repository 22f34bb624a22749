"""The pages about the priors that come with rlhpo: python -m tools.prior_cards [--check]"""

import re
from pathlib import Path

from rlhpo_core.priors.store import builtin_names, load_prior
from rlhpo_core.tuner.prior import Prior, describe
from tools import generated

FOLDER = generated.ROOT / "docs" / "built-in-priors"


def contents() -> dict[Path, str]:
    """The text of each page, by its path: for each algorithm what ``rlhpo prior show`` prints of its priors."""
    algorithms: dict[str, list[Prior]] = {}
    for name in builtin_names():
        prior = load_prior(name)
        suffix = "-" + prior.card.objective.replace("_", "-")
        algorithms.setdefault(name.removesuffix(suffix), []).append(prior)
    return {FOLDER / f"{name}.md": _page(name, priors) for name, priors in algorithms.items()}


def _page(name: str, priors: list[Prior]) -> str:
    """The cards, with headings one level lower."""
    cards = [re.sub(r"(?m)^#", "##", describe(prior)) for prior in priors]
    return "\n".join([f"# The built-in priors for {name}\n", *cards])


if __name__ == "__main__":
    generated.main(__doc__ or "", contents)
