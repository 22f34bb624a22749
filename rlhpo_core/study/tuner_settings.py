"""How the tuner is set: plain data, so that reading a study file does not import what the tuner is made of (torch)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rlhpo_core.frozen import Frozen

Mode = Literal["mbrl_sdp", "rl_sdp", "rl_doc", "random"]
Kind = Literal["mlp", "ensemble", "gp"]
Acquisition = Literal["mean", "ei", "log_ei", "ucb"]


class AgentSettings(Frozen):
    """Shape of the agent: layers and nodes are the paper's."""

    profile: Literal["paper", "extended"] = "extended"
    layers: Annotated[int, Field(ge=1, le=8)] = 3
    nodes: Annotated[int, Field(ge=1, le=1024)] = 35
    """Per layer."""


class PPOSettings(Frozen):
    """Proximal policy optimisation. The learning rate is the paper's; the rest it leaves open: the usual values."""

    learning_rate: Annotated[float, Field(gt=0)] = 0.007
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The ratio of new to old probability counts within 1 ± clip."""
    epochs: Annotated[int, Field(ge=1, le=100)] = 4
    """Passes over a batch of episodes in each update."""
    entropy_bonus: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the policy's entropy in the loss."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 0.5
    """Larger gradients are scaled down to this norm."""


class ModelPhaseSettings(Frozen):
    """How far the learned reward model may steer the policy between rounds of real training runs."""

    kind: Kind = "gp"
    effects: bool = True
    """Whether a Gaussian process expects effects of single numbers and of pairs of them, besides smoothness."""
    delta: Annotated[float, Field(gt=0)] = 0.4
    """End the phase when the policy has moved this far, in nats of KL divergence per step (paper, table 9)."""
    max_updates: Annotated[int, Field(ge=0)] = 4
    """End it after this many updates anyway: a policy that has converged never gets as far as delta."""
    episodes: Annotated[int, Field(ge=2)] = 64
    """Imagined episodes per update."""
    reward: Acquisition = "log_ei"
    """What an imagined episode earns: the model's mean (paper) or an acquisition value."""
    min_trials: Annotated[int, Field(ge=2)] = 10
    """Skip the phase before this many trials."""
    min_r2: float | None = 0.0
    """Skip the phase while the model's R² on held-out trials is below this; ``null`` never skips (paper)."""


class ScreeningSettings(Frozen):
    """Draw many proposals, train the few that the reward model ranks best."""

    candidates: Annotated[int, Field(ge=2)] = 384
    local_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Fraction of the candidates that are perturbations of the best trials instead of draws from the policy."""
    uniform_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Fraction that is drawn from anywhere, so that no policy can keep the search away from a region. The rest is drawn
    from anywhere, too, while nobody has taught the policy."""
    refinements: Annotated[int, Field(ge=0)] = 3
    """How often the most promising candidates are varied further."""
    carried: Annotated[int, Field(ge=0)] = 16
    """So many of the most promising candidates are candidates of the next round, too."""
    crossover: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of variations of promising candidates in which half of the steps come from another one of them."""
    reward: Acquisition = "log_ei"
    min_trials: Annotated[int, Field(ge=2)] = 2
    """Begin with the defaults and draws from the policy, so many in all, unless the study starts from what others have
    learnt."""
    spread: Annotated[float, Field(ge=0)] = 0.001
    """Least distance to earlier trials and between the proposals of a round, as a fraction of the space's diagonal."""

    @model_validator(mode="after")
    def _leaves_some_to_the_policy(self) -> ScreeningSettings:
        if self.local_share + self.uniform_share > 1:
            raise ValueError("local_share + uniform_share must be at most 1; the policy draws the rest")
        return self


#: What the paper fixes, or, where it leaves it open, what docs/decisions/0003 chose in its spirit.
PAPER: dict[str, Any] = {
    "trials_per_round": 5,
    "single_rounds": 0,
    "default_first": False,
    "agent": {"profile": "paper"},
    "model": {"kind": "mlp", "reward": "mean", "max_updates": 30},
    "screening": None,
}


class TunerSettings(Frozen):
    """The method; docs/algorithm.md has the measurements behind the defaults."""

    profile: Literal["default", "paper"] = "default"
    """Where the settings that are not given come from: what was found best, or the paper."""
    mode: Mode = "mbrl_sdp"
    """``mbrl_sdp``, ``rl_sdp`` (no reward model), ``rl_doc`` (no model, one step) or ``random`` (a baseline)."""
    trials_per_round: Annotated[int, Field(ge=1)] = 5
    """How many trials are trained before the tuner learns from them; they can run in parallel."""
    single_rounds: Annotated[int, Field(ge=0)] = 5
    """So many rounds of one trial come first; none if ``trials_per_round`` is given and this is not."""
    default_first: bool = True
    """Begin a study that knows nothing with the evaluator's defaults; if it has none, with the middle of all ranges."""
    order_seed: int | None = None
    """Shuffle the order in which hyperparameters are chosen; as listed if not set."""
    agent: AgentSettings = AgentSettings()
    ppo: PPOSettings = PPOSettings()
    model: ModelPhaseSettings = ModelPhaseSettings()
    screening: ScreeningSettings | None = ScreeningSettings()
    cost_tolerance: Annotated[float, Field(gt=0)] | None = 10.0
    """A training run that takes so many times as long as a usual one must promise twice as much to be tried; ``null``:
    time plays no part. Only a prior knows beforehand how long training runs take."""
    train_policy: bool | None = None
    """Whether PPO trains the policy. If not given, only where trials, or most of them, are what the policy draws: not
    with ``screening``, which loses little without it and is then ten times as quick."""
    reference_trials: Annotated[int, Field(ge=2)] = 20
    """The reward of a real trial is judged against this many latest trials."""

    @property
    def trains_policy(self) -> bool:
        """``train_policy``, or what stands for it if it is not given."""
        if self.train_policy is not None:
            return self.train_policy
        return self.screening is None or self.mode in ("rl_sdp", "rl_doc")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        if data == "paper":
            data = {"profile": "paper"}
        if isinstance(data, dict) and "trials_per_round" in data:
            data = {"single_rounds": 0, **data}
        if not isinstance(data, dict) or data.get("profile") != "paper":
            return data
        filled = {**PAPER, **data}
        for section in ("agent", "model"):
            if isinstance(data.get(section), dict):
                filled[section] = {**PAPER[section], **data[section]}
        return filled
