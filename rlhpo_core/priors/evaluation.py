"""How well a prior predicts studies that it was not trained on.

No training run is needed. The prior's expectation is compared with what the study has measured. Its first picks, which
the study has not measured, are scored by a model of the study: a Gaussian process, fitted to the study's trials without
the prior. Where the study has few trials, that model knows little, and a pick far from them counts as middling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhpo_core.arrays import Floats
from rlhpo_core.errors import UserError
from rlhpo_core.priors.common_space import InSpace
from rlhpo_core.priors.training import LEAST_TRIALS
from rlhpo_core.seeds import derive_seed
from rlhpo_core.study.tuner_settings import TunerSettings
from rlhpo_core.tuner import algorithm, prior_mapping, reward_model
from rlhpo_core.tuner.prior import Prior
from rlhpo_core.tuner.reward_model import one_thread
from rlhpo_core.tuner.state import initial_state

#: After how many picks regret is measured, and which of them the verdict is about.
PICKS, JUDGED = (1, 5, 10), 5
#: Configurations drawn at random: their median is a middling reward, and they show how well random picks do.
ANYWHERE = 4000


@dataclass(frozen=True)
class Score:
    """A prior's score on one study. Regret is 0 at the best that the model of the study knows, 1 at its median."""

    study: str
    trials: int
    fidelity: float
    """Rank correlation of the model of the study with trials held out of its fit; 0.0 below four trials."""
    rank_correlation: float
    """Of the prior's expectation with what the trials measured."""
    picked: dict[int, float]
    """Regret of the best of the prior's first picks, by their number."""
    random: dict[int, float]
    """The same of random picks, on average."""


def score(prior: Prior, member: InSpace, seed: int) -> Score:
    """How a prior's expectation and first picks do on a study.

    Args:
        prior: To be judged.
        member: A study that the prior was not trained on, in its own space.
        seed: Of the prior's picks, the random picks and the model of the study.

    Raises: UserError if the prior does not fit the study's space, or if the study has too few trials.
    """
    study, space = member.study, member.space
    if len(study.rewards) < LEAST_TRIALS or len(np.unique(study.rewards)) < 2:
        raise UserError(
            f"{study.name}: {len(study.rewards)} trials have a value, {len(np.unique(study.rewards))} of them differ; "
            f"to judge a prior by it takes {LEAST_TRIALS} or more, and two that differ"
        )
    try:
        expect = prior_mapping.expectation(prior, space)
    except UserError as error:
        raise UserError(f"{study.name}: {error}") from error
    features = space.features(study.configs)
    settings = TunerSettings(trials_per_round=max(PICKS))
    start = initial_state(study.name, seed, space, "maximize", settings, prior)
    picks = space.features([proposal.config for proposal in algorithm.propose(start)])
    rng = np.random.default_rng(derive_seed(seed, 0, "evaluation"))
    anywhere = space.features_of_actions(rng.uniform(-1, 1, (ANYWHERE, len(space.steps))))
    with one_thread():
        expected = expect(features).mean
    model = reward_model.fit("gp", features, study.rewards, derive_seed(seed, 0, "study"))
    tried, picked, drawn = (model.predict(points)[0] for points in (features, picks, anywhere))
    best, middling = max(float(values.max()) for values in (tried, picked, drawn)), float(np.median(drawn))
    scale = max(best - middling, 1e-9 * max(1.0, abs(best)))
    return Score(
        study=study.name,
        trials=len(study.rewards),
        fidelity=model.diagnostics.rank_correlation if model.diagnostics is not None else 0.0,
        rank_correlation=reward_model.rank_correlation(expected, study.rewards),
        picked={count: (best - float(picked[:count].max())) / scale for count in PICKS},
        random={count: (best - _best_of(drawn, count)) / scale for count in PICKS},
    )


def _best_of(values: Floats, count: int) -> float:
    """The highest of ``count`` values, averaged over as many groups as there are."""
    groups = len(values) // count
    return float(values[: groups * count].reshape(groups, count).max(axis=1).mean())


def verdict(scores: Sequence[Score]) -> str:
    """One sentence on whether the prior helps, by its regret and that of random picks after JUDGED picks."""
    picked = float(np.mean([score.picked[JUDGED] for score in scores]))
    random = float(np.mean([score.random[JUDGED] for score in scores]))
    better = sum(score.picked[JUDGED] < score.random[JUDGED] for score in scores)
    helps = picked < random and 2 * better > len(scores)
    return (
        f"{'The prior helps' if helps else 'No sign that the prior helps'}: after {JUDGED} picks its regret is "
        f"{picked:.2f} on average, that of random picks {random:.2f}; it is lower on {better} of {len(scores)} "
        f"{'study' if len(scores) == 1 else 'studies'}."
    )
