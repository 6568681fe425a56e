"""Checks of lesson 08, knowing k less: Gumbel-Softmax, its two-way form, the bound with k latent, the term "use"."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from poflow_lite.check._common import attempt, close, passed, require

__all__ = ["gumbel_sigmoid", "gumbel_softmax", "index_bound", "use_penalty"]


def gumbel_softmax(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check ``function(logits (B, K), uniform (B, K), temperature) -> (B, K)``, a relaxed sample from uniform noise.

    Properties: rows lie on the simplex; the largest entry is drawn with the probabilities softmax(logits), whatever the
    temperature; a low temperature gives corners, a high one the centre; the value agrees with the formula.
    """
    generator = torch.Generator().manual_seed(0)
    p = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    uniform = torch.rand(20_000, 3, dtype=torch.float64, generator=generator).clamp(1e-12, 1 - 1e-12)
    logits = p.log().expand(len(uniform), 3)
    y = attempt(function, logits, uniform, 0.7)
    require(y.shape == uniform.shape, f"one row of K weights for each sample, (B, K), got {tuple(y.shape)}")
    require(y.isfinite().all(), "all weights must be finite: log(-log U) needs the minus sign inside, for U < 1")
    close(y.sum(1), torch.ones(len(y)), "each row must sum to 1: the softmax runs over the K indices, axis 1")
    drawn = torch.bincount(y.argmax(1), minlength=3) / len(y)
    close(
        drawn,
        p,
        "the largest weight must fall on index k with probability softmax(logits)_k. The noise is G = -log(-log U), "
        "with both minus signs, and it is added to the logits, one G for each index",
        tolerance=0.02,
    )
    hot, cold = attempt(function, logits, uniform, 1000.0), attempt(function, logits, uniform, 0.001)
    close(hot, torch.full_like(hot, 1 / 3), "at temperature 1000 all weights are about 1/K: divide by it", 0.03)
    require((cold.max(1).values > 0.99).double().mean() > 0.97, "at temperature 0.001 rows are corners: divide by it")
    require(
        torch.equal(cold.argmax(1), y.argmax(1)),
        "the temperature must not change which weight is largest: divide logits and noise by it, not one of them",
    )
    expected = ((logits - (-uniform.log()).log()) / 0.7).softmax(1)
    close(y, expected, "the weights must be softmax((logits + G) / temperature): one softmax, of logits plus noise")
    passed("gumbel_softmax draws each index as often as it should and sharpens with falling temperature")


def gumbel_sigmoid(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Check ``function(logit (B,), uniform (B,), temperature) -> (B,)``, a relaxed yes or no from uniform noise.

    Properties: values in (0, 1); "yes" with probability sigmoid(logit) whatever the temperature; symmetric in
    yes and no; the value agrees with the formula.
    """
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(20_000, dtype=torch.float64, generator=generator).clamp(1e-12, 1 - 1e-12)
    for logit in (0.0, 1.0, -2.0):
        y = attempt(function, torch.full_like(uniform, logit), uniform, 0.5)
        require(y.shape == uniform.shape, f"one value for each sample, (B,), got {tuple(y.shape)}")
        require(((y >= 0) & (y <= 1)).all(), "all values must lie between 0 and 1: end with a sigmoid")
        wanted = 1 / (1 + math.exp(-logit))
        close(
            (y > 0.5).double().mean(),
            wanted,
            f"with logit {logit:g} a value above ½ must come with probability sigmoid(logit) = {wanted:.3f}. "
            "The noise of a yes-or-no choice is logistic, log U - log(1 - U), the difference of two Gumbels; "
            "a single Gumbel has a mean of 0.577 and is biased; the noise is added to the logit",
            tolerance=0.02,
        )
    logit = torch.linspace(-3, 3, len(uniform), dtype=torch.float64)
    y = attempt(function, logit, uniform, 0.5)
    close(
        y,
        1 - attempt(function, -logit, 1 - uniform, 0.5),
        "Exchanging yes and no (logit to -logit, U to 1 - U) must give 1 - y: is the noise log U - log(1 - U)?",
    )
    noise = uniform.log() - (-uniform).log1p()
    noise = noise if y[uniform > 0.5].mean() > y[uniform < 0.5].mean() else -noise  # symmetric: either sign will do
    expected = ((logit + noise) / 0.5).sigmoid()
    close(y, expected, "the value must be sigmoid((logit + noise) / temperature): divide both by the temperature")
    passed("gumbel_sigmoid says yes with probability sigmoid(logit), at every temperature")


def index_bound(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``function(log_p (B, K), logits (B, K)) -> (B,)``, the bound with k latent from log p(x|k) and q(k|x).

    Properties: never above log p(x) under a uniform prior; equal to it where q is the posterior; log p(x|k) - log K
    where q is sure of k; the average of log p(x|k) where q is uniform.
    """
    generator = torch.Generator().manual_seed(0)
    log_p = -40 + 3 * torch.randn(8, 3, dtype=torch.float64, generator=generator)
    mean = attempt(function, log_p, torch.zeros_like(log_p))
    close(
        mean,
        log_p.mean(1),
        "A uniform q pays no divergence: the bound is the average of log p(x|k) over k, one value for each sample. "
        "logits become probabilities through a softmax over axis 1; KL(q ‖ uniform) = Σ q log q + log K: mind + log K",
    )
    sure = torch.nn.functional.one_hot(torch.arange(8) % 3, 3) * 4000.0
    picked = log_p[torch.arange(8), torch.arange(8) % 3]
    found = attempt(function, log_p, sure.to(log_p))
    require(found.isfinite().all(), "where q is 0 the product q log q is 0, not NaN: use log_softmax")
    close(
        found,
        picked - math.log(3),
        "A q that is sure of k gives log p(x|k) - log K: the divergence from the uniform prior is subtracted",
    )
    log_px = log_p.logsumexp(1) - math.log(3)
    close(
        attempt(function, log_p, log_p),
        log_px,
        "With q(k|x) ∝ p(x|k), the exact posterior, the bound is tight: log p(x) = log Σ_k p(x|k)/K",
    )
    for _ in range(20):
        logits = 3 * torch.randn(8, 3, dtype=torch.float64, generator=generator)
        require(
            (attempt(function, log_p, logits) <= log_px + 1e-9).all(),
            "a lower bound cannot exceed log p(x): signs?",
        )
    passed("index_bound never exceeds log p(x) and reaches it at the posterior")


def use_penalty(function: Callable[[Tensor], Tensor]) -> None:
    """Check ``function(logits (B, K)) -> ()``, KL(uniform ‖ q̄) with q̄ the batch average of q(k|x), nats.

    Properties: 0 where every sequence is named surely and all names are used alike; large but finite where a name is
    idle, and with a slope there that calls it back; indifferent to the order of sequences; the closed form.
    """
    sure = 60.0 * torch.eye(3, dtype=torch.float64)
    alike = attempt(function, sure.repeat(4, 1))
    require(alike.ndim == 0, f"one number for the whole batch, got shape {tuple(alike.shape)}")
    close(
        alike,
        torch.tensor(0.0),
        "Sure of each name, all names used alike: nothing to punish. Average the probabilities over the batch first "
        "and take the divergence of the average, not the average of the divergences; "
        "average probabilities, not logits; KL(uniform ‖ q̄) = -log K - Σ_k log(q̄_k)/K",
    )
    idle = torch.tensor([[0.0, 0.0, -4000.0]] * 5, dtype=torch.float64, requires_grad=True)
    value = attempt(function, idle)
    require(
        value.isfinite(),
        "an idle name has a q̄ so small that it underflows to 0: work with log q, by log_softmax, and average with "
        "logsumexp over axis 0, less log B",
    )
    require(value.requires_grad, "gradients must pass through it: no item(), detach() or argmax")
    slope = torch.autograd.grad(value, idle)[0].sum(0)
    close(
        slope,
        torch.tensor([1 / 6, 1 / 6, -1 / 3], dtype=torch.float64),
        "Raising the logits of an idle name must lower the term, by 1/K for each unit: is it KL(uniform ‖ q̄), and not "
        "KL(q̄ ‖ uniform), whose slope is 0 there?",
    )
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(7, 4, dtype=torch.float64, generator=generator)
    used = logits.softmax(1).mean(0)
    close(
        attempt(function, logits),
        -(4 * used).log().mean(),
        "It must be -log K - Σ_k log(q̄_k)/K, with a softmax over axis 1 and q̄ the average over axis 0",
    )
    passed("use_penalty calls idle names back and leaves certainty alone")
