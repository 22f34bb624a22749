"""Perceptrons as a reward model: one (``mlp``), or an ensemble fitted to bootstrap samples.

Their state is a batch of weights w0, w1, w2 (M, inputs, outputs) and biases b0, b1, b2 (M, 1, outputs), one entry a
perceptron, and ``noise``, the deviation of held-out residuals.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

LAYERS = 3
PARAMETERS = tuple(f"{name}{layer}" for layer in range(LAYERS) for name in "wb")
STATE = (*PARAMETERS, "noise")
HIDDEN = 64
STEPS = 300
LEARNING_RATE = 0.01
WEIGHT_DECAY = 0.1
FOLDS = 5


def fit(
    x: Tensor, y: Tensor, members: int, seed: int, told: Tensor | None = None
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Fit to x (N, d) and standardised y (N,); one member sees all of them, several a bootstrap sample each.

    ``told`` (N,) weighs the points in the loss; all the same if not given.

    Beside the members one perceptron per fold is trained without it. Their residuals give the noise.

    Returns: the state, and the means and deviations (N,) that held-out points were predicted with.
    """
    n, folds = len(y), min(FOLDS, len(y))
    generator = torch.Generator().manual_seed(seed)
    fold = torch.empty(n, dtype=torch.long)
    fold[torch.randperm(n, generator=generator)] = torch.arange(n) % folds
    weights = torch.ones(members + folds, n)
    if members > 1:
        drawn = torch.randint(n, (members, n), generator=generator)
        weights[:members] = torch.zeros(members, n).scatter_add_(1, drawn, torch.ones(members, n))
    weights[members:] = (fold != torch.arange(folds)[:, None]).float()
    if told is not None:
        weights = weights * told.float()
    parameters = _train(x.float(), y.float(), weights / weights.sum(1, keepdim=True), generator)
    with torch.no_grad():
        outputs = _forward(parameters, x.float()).double()
    held_out = outputs[members:].gather(0, fold[None])[0]
    noise = (held_out - y).square().mean().sqrt()
    state = {name: p[:members].clone() for name, p in zip(PARAMETERS, parameters, strict=True)}
    return state | {"noise": noise}, held_out, noise.expand(n)


def predict(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std, each (B,), of standardised rewards at x (B, d): the members' mean, their spread and the noise."""
    outputs = _forward([state[name] for name in PARAMETERS], x.float()).double()
    return outputs.mean(0), (outputs.var(0, correction=0) + state["noise"] ** 2).sqrt()


def _forward(parameters: list[Tensor], x: Tensor) -> Tensor:
    """Outputs (M, B) of M perceptrons for x (B, d)."""
    h = x.expand(len(parameters[0]), *x.shape)
    for i in range(0, len(parameters), 2):
        h = torch.baddbmm(parameters[i + 1], h, parameters[i])
        if i + 2 < len(parameters):
            h = torch.nn.functional.silu(h)
    return h[..., 0]


def _train(x: Tensor, y: Tensor, weights: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Weights and biases of M perceptrons, fitted to (x, y) with sample weights (M, N) by full-batch AdamW."""
    m, sizes = len(weights), [x.shape[1], *[HIDDEN] * (LAYERS - 1), 1]
    parameters = []
    for inputs, outputs in itertools.pairwise(sizes):
        w = torch.randn(m, inputs, outputs, generator=generator) * math.sqrt(2 / inputs)
        parameters += [w.requires_grad_(), torch.zeros(m, 1, outputs, requires_grad=True)]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    with torch.enable_grad():
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = (weights * (_forward(parameters, x) - y).square()).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return [p.detach() for p in parameters]
