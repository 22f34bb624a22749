"""A prior: what finished studies say about the configurations of a space before a new study's first trial.

It has four parts, all learnt by ``priors.training``.

*Expectation.* A network φ maps features to k + 1 numbers, the last of which is 1. The gain of study t at x, 0 for a
middling configuration and 1 for its best, is modelled as the linear combination w_t · φ(x). The weights w of a new task
are taken to be drawn like those of the T studies, from N(w̄, F Fᵀ). So its gain has the mean w̄ · φ(x), and Fᵀφ(x) is a
factor of its covariance. A Gaussian process conditions this on the trials of the new study (``gaussian_process``).

*Cost.* One more linear combination of φ(x): the logarithm of how long a training run takes relative to a usual one.

*Policy.* An agent that was trained by PPO on the mean gain of the studies. A prior may do without one.

*Portfolio.* The configurations to try first. They complement each other: for each of the studies one of them is good
(``priors.portfolio``). A second portfolio, chosen without regard to cost, is for studies in which time does not matter.

On disk a prior is a ``tensor_document``, which also says how to change the format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhpo_core import tensor_document
from rlhpo_core.arrays import Floats
from rlhpo_core.errors import UserError
from rlhpo_core.frozen import Frozen
from rlhpo_core.space.parameters import describe_domain
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.tuner_settings import AgentSettings
from rlhpo_core.trial import Config
from rlhpo_core.tuner.agent import Agent
from rlhpo_core.tuner.gaussian_process import Expected

#: Of the document and the names of the tensors.
FORMAT_VERSION = 3
#: Of φ.
LAYERS = 3
_KIND = "rlhpo-prior"


class Origin(Frozen):
    """Where one of a prior's studies was read from."""

    study: str
    """As in ``Card.studies``."""
    place: str
    """A folder, a file, an address, or a run in MLflow."""
    trials: int
    """Those that it was learnt from."""
    data_digest: str = ""
    """Of the data that the study was tuned on; empty if not known."""


class Card(Frozen):
    """Where a prior comes from."""

    name: str
    studies: tuple[str, ...]
    """What it was trained on: identities of studies, or names of tasks."""
    origins: tuple[Origin, ...] = ()
    """Of those that were read from somewhere."""
    objective: str
    """What those studies were judged by."""
    trials: int
    """Of all of them."""
    source: str = ""
    """Origin and licence of the data, for a person to read."""
    made_with: Mapping[str, str] = {}
    """Versions, seed and settings."""
    registered: str = ""
    """Name and version in the model registry that this copy was taken from (``models:/NAME/3``)."""


@dataclass(frozen=True)
class Prior:
    """What was learnt, and where it comes from."""

    card: Card
    space: SearchSpace
    """In which the studies were tuned."""
    settings: AgentSettings
    """Of the policy, if there is one."""
    tensors: dict[str, Tensor]
    """``w0`` (d, h), ``b0`` (h,), ``w1``, ``b1``, ``w2``, ``b2`` of φ; ``mean`` w̄ (k + 1,); ``factor`` F (k + 1, q);
    ``cost`` (k + 1,), if it is known how long the studies' trials took; ``agent/…``, the policy's parameters, if it has
    one.
    """
    portfolio: tuple[Config, ...] = ()
    """In the order in which to try them."""
    portfolio_ignoring_time: tuple[Config, ...] = ()
    """The same for studies in which it does not matter how long a training run takes."""

    def expect(self, features: Floats) -> Expected:
        """The distribution of gains, and the relative cost, of configurations with features (B, d) in its own space."""
        with torch.no_grad():
            h = embed(self.tensors, torch.from_numpy(np.array(features, dtype=np.float64)))
            cost = (h @ self.tensors["cost"]).exp().numpy() if "cost" in self.tensors else None
            return Expected((h @ self.tensors["mean"]).numpy(), (h @ self.tensors["factor"]).numpy(), cost)

    @property
    def has_policy(self) -> bool:
        """Whether it has a policy that was trained."""
        return any(name.startswith("agent/") for name in self.tensors)

    def agent(self) -> Agent:
        """The policy, over the prior's own space. Raises: RuntimeError if it has none."""
        agent = Agent(self.space, self.settings, one_step=False, seed=0)
        weights = {name.removeprefix("agent/"): t for name, t in self.tensors.items() if name.startswith("agent/")}
        agent.load_state_dict(weights)
        return agent

    def document(self) -> dict[str, Any]:
        """All but the tensors, as JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "card": self.card.model_dump(mode="json"),
            "space": self.space.model_dump(mode="json"),
            "agent": self.settings.model_dump(mode="json"),
            "portfolio": [dict(config) for config in self.portfolio],
            "portfolio_ignoring_time": [dict(config) for config in self.portfolio_ignoring_time],
        }

    def to_bytes(self) -> bytes:
        """All of it as the content of one file; equal priors give equal bytes."""
        return tensor_document.write(_KIND, self.document(), self.tensors)


def describe(prior: Prior) -> str:
    """The card for a person to read, as Markdown that reads well as it is."""
    card, space = prior.card, prior.space
    lines = [f"# Prior {card.name}", ""]
    if card.registered:
        lines += [f"Taken from {card.registered}.", ""]
    lines += [f"Learnt from {card.trials} trials of {len(card.studies)} studies, judged by {card.objective}.", ""]
    if card.source:
        lines += [f"{card.source}.".replace("..", "."), ""]
    lines += ["## Hyperparameters", ""]
    for parameter in space.parameters:
        scale = ", log scale" if getattr(parameter, "log", False) else ""
        when = " and ".join(f"{name} is {' or '.join(map(str, values))}" for name, values in parameter.when.items())
        lines.append(f"- `{parameter.name}`: {describe_domain(parameter)}{scale}{f', when {when}' if when else ''}")
    titles = {
        "To be tried first": prior.portfolio,
        "To be tried first if time plays no part": prior.portfolio_ignoring_time,
    }
    for title, configs in titles.items():
        if configs:
            lines += ["", f"## {title}", ""]
            lines += [f"{place}. {_in_words(config)}" for place, config in enumerate(configs, start=1)]
    lines += ["", "## Studies", ""]
    for origin in card.origins:
        digest = f", data {origin.data_digest[:12]}" if origin.data_digest else ""
        lines.append(f"- {origin.study}: {origin.trials} trials, from {origin.place}{digest}")
    if others := [study for study in card.studies if study not in {origin.study for origin in card.origins}]:
        lines.append(", ".join(others))
    lines += ["", "## Made with", "", ", ".join(f"{name} {value}" for name, value in card.made_with.items()), ""]
    return "\n".join(lines)


def _in_words(config: Config) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in config.items()
    )


def hidden(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """φ without its last number, which is 1: (…, k), for features x (…, d), in the precision that both have.

    Args:
        weights: ``w0``, ``b0``, … as in ``Prior.tensors``; gradients flow back to them.
        x: Features.
    """
    for layer in range(LAYERS):
        x = x @ weights[f"w{layer}"] + weights[f"b{layer}"]
        x = torch.nn.functional.silu(x) if layer < LAYERS - 1 else x.tanh()
    return x


def embed(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """φ in double precision: features (B, d) to (B, k + 1)."""
    doubles = {f"{name}{layer}": weights[f"{name}{layer}"].double() for layer in range(LAYERS) for name in "wb"}
    h = hidden(doubles, features.double())
    return torch.cat([h, torch.ones(len(h), 1, dtype=torch.float64)], dim=1)


def from_document(document: Mapping[str, Any], tensors: dict[str, Tensor]) -> Prior:
    """A prior from its ``document`` and its tensors.

    Raises: UserError if the version is another one; ValueError, KeyError or RuntimeError if something is missing.
    """
    version = document["format_version"]
    if version != FORMAT_VERSION:
        raise UserError(f"the prior has format version {version}, this rlhpo reads version {FORMAT_VERSION}")
    prior = Prior(
        card=Card.model_validate(document["card"]),
        space=SearchSpace.model_validate(document["space"]),
        settings=AgentSettings.model_validate(document["agent"]),
        tensors=tensors,
        portfolio=tuple(document["portfolio"]),
        portfolio_ignoring_time=tuple(document["portfolio_ignoring_time"]),
    )
    if prior.has_policy:
        prior.agent()
    prior.space.encode([*prior.portfolio, *prior.portfolio_ignoring_time])
    prior.expect(np.zeros((0, prior.space.feature_count)))
    return prior


def from_bytes(data: bytes) -> Prior:
    """The prior whose ``to_bytes`` this was.

    Raises: UserError if this is not a prior, or one of a version that this rlhpo cannot read.
    """
    try:
        return from_document(*tensor_document.read(_KIND, data))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"this is not an rlhpo prior, or it is damaged ({error})") from error
