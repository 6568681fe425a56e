"""Checks of lesson 08, knowing k less: Gumbel-Softmax, its two-way form, the bound with k latent, balanced names."""

import math

import torch

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, uniform


@Exercise
def gumbel_softmax(f: Function) -> Claims:
    """f(logits (B, K), uniform (B, K), temperature) -> (B, K): a relaxed sample from uniform noise."""
    p, noise = doubles(0.6, 0.3, 0.1), uniform(20_000, 3)
    logits = p.log().expand_as(noise)
    y = f(logits, noise, 0.7)
    yield y, (20_000, 3), "It is one row of K weights for each sample, (B, K)"
    yield y.isfinite().all(), "All weights must be finite: log(-log U) needs the minus sign inside, for U < 1"
    yield y.sum(1), [1.0] * 20_000, "Each row must sum to 1: the softmax runs over the K indices, axis 1"
    hint = """The largest weight must fall on k with probability softmax(logits)_k. The noise is G = -log(-log U), with
        both minus signs, and it is added to the logits, one G for each index"""
    yield torch.bincount(y.argmax(1), minlength=3) / 20_000, p, hint, 0.02
    hot = f(logits, noise, 1000.0)
    yield hot, torch.full_like(hot, 1 / 3), "At temperature 1000 all weights are about 1/K: divide by it", 0.03
    expected = ((logits - (-noise.log()).log()) / 0.7).softmax(1)
    yield y, expected, "It must be softmax((logits + G) / temperature): one softmax, of logits plus noise"
    return "draws each index as often as it should and sharpens with falling temperature"


@Exercise
def gumbel_sigmoid(f: Function) -> Claims:
    """f(logit (B,), uniform (B,), temperature) -> (B,): a relaxed yes or no from uniform noise."""
    u = uniform(20_000)
    for logit in (0.0, 1.0):
        y, wanted = f(torch.full_like(u, logit), u, 0.5), 1 / (1 + math.exp(-logit))
        yield ((y >= 0) & (y <= 1)).all(), "All values must lie between 0 and 1: end with a sigmoid"
        hint = f"""With logit {logit:g} it is above ½ with probability sigmoid(logit) = {wanted:.3f}. The noise added to
            the logit is logistic, log U - log(1 - U), two Gumbels' difference; a single Gumbel is biased"""
        yield (y > 0.5).double().mean(), wanted, hint, 0.02
    logit = torch.linspace(-3, 3, 20_000).double()
    y = f(logit, u, 0.5)
    noise = u.logit() if y[u > 0.5].mean() > y[u < 0.5].mean() else -u.logit()  # symmetric: either sign will do
    hint = "It must be sigmoid((logit + noise) / temperature): divide both by the temperature"
    yield y, ((logit + noise) / 0.5).sigmoid(), hint
    return "says yes with probability sigmoid(logit), at every temperature"


@Exercise
def index_bound(f: Function) -> Claims:
    """f(log_p (B, K), logits (B, K)) -> (B,): the bound on log p(x) from log p(x|k) and q(k|x), nats."""
    log_p, k = -40 + 3 * normal(8, 3), torch.arange(8) % 3
    hint = """A uniform q pays no divergence: the bound is the average of log p(x|k), for each sample. logits become
        probabilities through a softmax over axis 1; KL(q ‖ uniform) = Σ q log q + log K: mind + log K"""
    yield f(log_p, 0 * log_p), log_p.mean(1), hint
    sure = f(log_p, 4000.0 * torch.eye(3).double()[k])
    yield sure.isfinite().all(), "Where q is 0 the product q log q is 0, not NaN: use log_softmax"
    hint = "A q that is sure of k gives log p(x|k) - log K: the divergence from the uniform prior is subtracted"
    yield sure, log_p[torch.arange(8), k] - math.log(3), hint
    hint = "With q(k|x) ∝ p(x|k), the exact posterior, the bound is tight: log p(x) = log Σ_k p(x|k)/K"
    yield f(log_p, log_p), log_p.logsumexp(1) - math.log(3), hint
    return "stays below log p(x) and reaches it at the posterior"


@Exercise
def use_penalty(f: Function) -> Claims:
    """f(logits (B, K)) -> (): KL(uniform ‖ q̄) with q̄ the batch average of q(k|x), nats."""
    alike = f(60.0 * torch.eye(3).double().repeat(4, 1))
    yield alike, (), "It is one number for the whole batch"
    hint = """Sure of each name, all used alike: no penalty. Average probabilities, not logits, over the batch first;
        take the divergence of the average, not the average of the divergences: -log K - Σ_k log(q̄_k)/K"""
    yield alike, 0.0, hint
    idle = doubles(*[[0.0, 0.0, -4000.0]] * 5).requires_grad_()
    value = f(idle)
    hint = "An idle name's q̄ underflows to 0: take log_softmax, and average by logsumexp over axis 0, less log B"
    yield value.isfinite(), hint
    yield value.requires_grad, "The gradients must pass through it: no item(), detach() or argmax"
    hint = "Raising the logits of an idle name must lower it: KL(uniform ‖ q̄), not KL(q̄ ‖ uniform), whose slope is 0"
    yield torch.autograd.grad(value, idle)[0].sum(0), [1 / 6, 1 / 6, -1 / 3], hint
    logits = 2 * normal(7, 4)
    hint = "It must be -log K - Σ_k log(q̄_k)/K, with a softmax over axis 1 and q̄ the average over axis 0"
    yield f(logits), -(4 * logits.softmax(1).mean(0)).log().mean(), hint
    return "calls idle names back and leaves certainty alone"
