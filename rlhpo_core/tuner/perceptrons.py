"""Multilayer perceptrons as a reward model: one (``mlp``), or an ensemble fitted to bootstrap samples.

The state is a mapping of tensors: weights ``w0``, ``w1``, ``w2`` (M, inputs, outputs) and biases ``b0``, ``b1``, ``b2``
(M, 1, outputs) of M perceptrons, and ``noise``, the standard deviation of held-out residuals.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

#: Of each perceptron; all but the last are HIDDEN wide.
LAYERS, HIDDEN = 3, 64
PARAMETERS = tuple(f"{name}{layer}" for layer in range(LAYERS) for name in "wb")
#: The tensors of a state.
STATE = (*PARAMETERS, "noise")
#: Steps of AdamW, each on all points.
STEPS = 300
LEARNING_RATE = 0.01
WEIGHT_DECAY = 0.1
#: Of the cross-validation that measures the noise.
FOLDS = 5


def fit(
    x: Tensor, y: Tensor, members: int, seed: int, sample_weights: Tensor | None = None
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Fit by minimising the weighted squared error.

    A single member is trained on all points, several on a bootstrap sample each. In addition one perceptron per fold is
    trained without that fold; the residuals of these give the noise.

    Args:
        x: Features (N, d).
        y: Standardised rewards (N,).
        members: M.
        seed: Of the initial weights, the bootstrap samples and the folds.
        sample_weights: (N,), of the points in the loss; 1 if not given.

    Returns: the state, and the means and standard deviations (N,) of the predictions of held-out points.
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
    if sample_weights is not None:
        weights = weights * sample_weights.float()
    parameters = _train(x.float(), y.float(), weights / weights.sum(1, keepdim=True), generator)
    with torch.no_grad():
        outputs = _forward(parameters, x.float()).double()
    held_out = outputs[members:].gather(0, fold[None])[0]
    noise = (held_out - y).square().mean().sqrt()
    state = {name: p[:members].clone() for name, p in zip(PARAMETERS, parameters, strict=True)}
    return state | {"noise": noise}, held_out, noise.expand(n)


def predict(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each (B,), of standardised rewards at x (B, d).

    The variance is that between the members plus that of the noise.
    """
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
