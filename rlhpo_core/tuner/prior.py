"""A prior: what finished studies say about the configurations of a space before a new study's first trial.

It has these parts, all learnt by ``prior_training``.

*Expectation.* A network φ turns features into k + 1 numbers, of which each of the T studies had its own combination:
its gain at x was about w_t · φ(x), where 0 is a middling configuration's gain and 1 the best's. A new task's w is
believed to be drawn like theirs, from N(w̄, F Fᵀ). So its gain has the mean w̄ · φ(x), and Fᵀφ(x) is a factor of its
covariance: a Gaussian process conditions it on the trials as they come in (``gaussian_process``), and finds out which
of the earlier studies the new one resembles, if any.

*Cost.* Of the same φ, one more combination: the logarithm of how long a training takes beside a usual one.

*Policy.* An agent that was trained by PPO on the gains of all the studies.

*Portfolio.* The configurations to try first: chosen to complement each other, so that for each of the studies one of
them is good (``portfolio``). Another one is for studies in which time plays no part.

On disk it is one safetensors file with a JSON header, like a tuner's state. Changing the format: as in ``state.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from rlhpo_core.errors import UserError
from rlhpo_core.frozen import Frozen
from rlhpo_core.space.parameters import describe_domain
from rlhpo_core.space.search_space import SearchSpace
from rlhpo_core.study.tuner_settings import AgentSettings
from rlhpo_core.trial import Config
from rlhpo_core.tuner.agent import Agent
from rlhpo_core.tuner.gaussian_process import Expected

FORMAT_VERSION = 1
LAYERS = 3
_HEADER = "rlhpo-prior"


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
    """``tensors``: w0, b0, w1, b1, w2, b2 of φ; ``mean`` (k + 1,); ``factor`` (k + 1, q); ``cost`` (k + 1,), if the
    studies knew how long their trials took; ``agent/…``, the policy.
    """

    card: Card
    space: SearchSpace
    settings: AgentSettings
    tensors: dict[str, Tensor]
    portfolio: tuple[Config, ...] = ()
    """In the order in which to try them."""
    regardless: tuple[Config, ...] = ()
    """The same for studies in which it does not matter how long a training takes."""

    def expect(self, features: Tensor) -> Expected:
        """What is expected of configurations with features (B, d) in the prior's own space."""
        h = embed(self.tensors, features)
        cost = (h @ self.tensors["cost"]).exp() if "cost" in self.tensors else None
        return Expected(mean=h @ self.tensors["mean"], basis=h @ self.tensors["factor"], cost=cost)

    def agent(self) -> Agent:
        """The policy, over the prior's own space."""
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
            "regardless": [dict(config) for config in self.regardless],
        }

    def to_bytes(self) -> bytes:
        tensors = {name: tensor.contiguous() for name, tensor in sorted(self.tensors.items())}
        return save_tensors(tensors, metadata={_HEADER: json.dumps(self.document())})


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
    titles = {"To be tried first": prior.portfolio, "To be tried first if time plays no part": prior.regardless}
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


def embed(tensors: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """φ: features (B, d) to (B, k + 1), the last of which is 1."""
    h = features.double()
    for layer in range(LAYERS):
        h = h @ tensors[f"w{layer}"].double() + tensors[f"b{layer}"].double()
        h = torch.nn.functional.silu(h) if layer < LAYERS - 1 else h.tanh()
    return torch.cat([h, torch.ones(len(h), 1, dtype=torch.float64)], dim=1)


def from_document(document: Mapping[str, Any], tensors: dict[str, Tensor]) -> Prior:
    """Raises: UserError if the version is another one; ValueError, KeyError or RuntimeError if something is missing."""
    version = document["format_version"]
    if version != FORMAT_VERSION:
        raise UserError(f"the prior has format version {version}, this rlhpo reads version {FORMAT_VERSION}")
    prior = Prior(
        card=Card.model_validate(document["card"]),
        space=SearchSpace.model_validate(document["space"]),
        settings=AgentSettings.model_validate(document["agent"]),
        tensors=tensors,
        portfolio=tuple(document["portfolio"]),
        regardless=tuple(document["regardless"]),
    )
    prior.agent()
    prior.space.encode([*prior.portfolio, *prior.regardless])
    with torch.no_grad():
        prior.expect(torch.zeros(0, prior.space.feature_count, dtype=torch.float64))
    return prior


def from_bytes(data: bytes) -> Prior:
    """Raises: UserError if this is not a prior, or one of a version that this rlhpo cannot read."""
    try:
        tensors = {name: tensor.clone() for name, tensor in load_tensors(data).items()}
        length = int.from_bytes(data[:8], "little")
        document = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_HEADER])
        return from_document(document, tensors)
    except (SafetensorError, ValidationError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"this is not an rlhpo prior, or it is damaged ({error})") from error
