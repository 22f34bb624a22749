"""How the tuner is set: plain data, so that reading a study file does not import what the tuner is made of (torch)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["mbrl_sdp", "rl_sdp", "rl_doc", "random"]
Kind = Literal["mlp", "ensemble", "gp"]
Acquisition = Literal["mean", "ei", "log_ei", "ucb"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AgentSettings(_Settings):
    """Shape of the agent. The defaults are the paper's."""

    profile: Literal["paper", "extended"] = "paper"
    layers: Annotated[int, Field(ge=1, le=8)] = 3
    nodes: Annotated[int, Field(ge=1, le=1024)] = 35


class PPOSettings(_Settings):
    """The learning rate is the paper's; the rest it leaves open, and these are the usual values."""

    learning_rate: Annotated[float, Field(gt=0)] = 0.007
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    epochs: Annotated[int, Field(ge=1, le=100)] = 4
    entropy_bonus: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 0.5


class ModelPhaseSettings(_Settings):
    """How far the learned reward model may steer the policy between real trainings."""

    kind: Kind = "mlp"
    delta: Annotated[float, Field(gt=0)] = 0.4
    """End the phase when the policy has moved this far, in nats of KL divergence per step (paper, table 9)."""
    max_updates: Annotated[int, Field(ge=1)] = 30
    """End it after this many updates anyway: a policy that has converged never gets as far as delta."""
    episodes: Annotated[int, Field(ge=2)] = 64
    """Imagined episodes per update."""
    reward: Acquisition = "mean"
    """What an imagined episode earns: the model's mean (paper) or an acquisition value."""
    min_trials: Annotated[int, Field(ge=2)] = 10
    """Skip the phase before this many trials."""
    min_r2: float | None = 0.0
    """Skip the phase while the model's R² on held-out trials is below this; ``null`` never skips (paper)."""


class ScreeningSettings(_Settings):
    """Draw many proposals, train the few that the reward model ranks best and that lie apart."""

    candidates: Annotated[int, Field(ge=2)] = 256
    local_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Fraction of the candidates that are perturbations of the best trials instead of draws from the policy."""
    reward: Acquisition = "log_ei"
    spread: Annotated[float, Field(ge=0)] = 0.01
    """Least distance between proposals of a round, and to earlier trials, as a fraction of the space's diagonal."""


class TunerSettings(_Settings):
    """The method. The defaults are the paper's where it fixes something; docs/algorithm.md has the measurements."""

    mode: Mode = "mbrl_sdp"
    """``mbrl_sdp``, ``rl_sdp`` (no reward model), ``rl_doc`` (no model, one step) or ``random`` (a baseline)."""
    trials_per_round: Annotated[int, Field(ge=1)] = 5
    order_seed: int | None = None
    """Shuffle the order in which hyperparameters are chosen; as listed if not set."""
    agent: AgentSettings = AgentSettings()
    ppo: PPOSettings = PPOSettings()
    model: ModelPhaseSettings = ModelPhaseSettings()
    screening: ScreeningSettings | None = None
    reference_trials: Annotated[int, Field(ge=2)] = 20
    """The reward of a real trial is judged against this many latest trials."""
