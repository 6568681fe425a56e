"""The VAE and the flow-factorized VAE: every term recomputed slowly, exact bounds, gradients, and learning."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from tiny import SHAPE, encoder_and_decoder, generator
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.func import grad, hessian

from poflow_lite.datasets import Batch, TransformationSequences, load_stills
from poflow_lite.fields import DivergenceFreeField, FreeField
from poflow_lite.flows import DiffusionPrior, Flow, PotentialFlow, StaticPrior
from poflow_lite.models import VAE, FlowFactorizedVAE
from poflow_lite.networks import ConvDecoder, ConvEncoder
from poflow_lite.objectives import LIKELIHOODS
from poflow_lite.potentials import Force, Potential
from poflow_lite.training import Schedule, fit

LATENT, T = 2, 4
pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def build(make_potential):
    """A tiny flow-factorized VAE in which all parameters are random."""

    def make(**options):
        flow, prior = PotentialFlow(make_potential(LATENT, 3, horizon=T)), DiffusionPrior(3, 0.2)
        with torch.no_grad():
            prior.raw.add_(torch.randn(3))
        options = {"hamilton_jacobi": 0.5, "autoencoding": 0.3, "agreement": 0.2, "initial": 0.7, "beta": 0.4} | options
        return FlowFactorizedVAE(*encoder_and_decoder(), flow, prior, Force(LATENT, 3, 8, T), **options)

    return make


def mixed_batch(frames=None):
    """Six sequences under all three transformations, all frames or a few of each."""
    sequences = TransformationSequences(torch.rand(6, *SHAPE, generator=generator()), horizon=T)
    whole, times = (
        sequences.batch(torch.arange(6), torch.arange(6) % 3),
        sequences.sample(6, frames, generator(1)).times,
    )
    return replace(whole, frames=whole.frames[torch.arange(6)[:, None], times], times=times)


# --- VAE ----------------------------------------------------------------------------------------------------------


def test_vae_terms_are_those_of_every_frame_by_itself():
    vae, batch = VAE(*encoder_and_decoder(), beta=3.0), mixed_batch(2)
    terms, noise = vae.terms(batch, generator()), torch.randn(18, LATENT, generator=generator())
    for position, frame in enumerate(batch.frames.flatten(0, 1)):
        mean, log_scale = vae.encoder(frame[None])[0].chunk(2)
        p = torch.sigmoid(vae.decoder((mean + log_scale.exp() * noise[position])[None])[0])
        reconstruction = (frame * p.log() + (1 - frame) * (1 - p).log()).sum()
        kl = 0.5 * (mean**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum()
        torch.testing.assert_close(terms.reconstruction[position], reconstruction)
        torch.testing.assert_close(terms.kl[position], kl)
    assert terms.reconstruction.shape == (18,)
    torch.testing.assert_close(terms.loss, (3 * terms.kl - terms.reconstruction).mean())


def test_vae_stands_still_under_a_standard_normal_prior():
    vae, z = VAE(*encoder_and_decoder()), torch.randn(3, LATENT)
    path = vae.transport(z, torch.tensor([0, 1, 2]), 4)
    assert torch.equal(path.z, z[:, None].expand(3, 5, LATENT))
    assert torch.equal(path.log_det, torch.zeros(3, 4))
    assert torch.equal(path.velocity, torch.zeros(3, 4, LATENT))
    expected = Normal(0.0, 1.0).log_prob(path.z).sum(-1)
    torch.testing.assert_close(vae.log_prior(path.z, torch.arange(5).expand(3, -1), torch.zeros(3)), expected)


@pytest.mark.parametrize(("log_scale", "clamped"), [(50.0, 4.0), (-50.0, -8.0), (1.0, 1.0)])
def test_posterior_scales_stay_within_reason(log_scale, clamped):
    vae = VAE(lambda x: torch.tensor([[0.5, log_scale]]), nn.Identity())
    posterior = vae.encode(torch.zeros(1, 1))
    assert posterior.mean.item() == 0.5
    assert posterior.base_dist.scale.item() == pytest.approx(math.exp(clamped))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"likelihood": "poisson"}, "unknown likelihood 'poisson'; known: bernoulli, continuous-bernoulli, gaussian"),
        ({"beta": -1.0}, "beta must be a finite number of at least 0, got -1.0"),
    ],
)
def test_bad_options_are_refused_with_what_came(build, options, message):
    with pytest.raises(ValueError, match="path_kl must be a finite number of at least 0, got -2"):
        build(path_kl=-2.0)
    for model in (lambda **options: VAE(*encoder_and_decoder(), **options), build):
        with pytest.raises(ValueError, match=message):
            model(**options)


# --- the terms of the flow-factorized VAE, slowly -----------------------------------------------------------------


def slow_terms(model, batch, b, noise, drawn, second_noise):
    """The objective of one sequence with every derivative by automatic differentiation and no batching."""
    k, force = batch.k[b : b + 1], model.force

    def u(z, t):
        return model.flow.potential.value(z[None], t[None], k)[0]

    def posterior(x):
        mean, log_scale = model.encoder(x[None])[0].chunk(2)
        return mean, log_scale.exp()

    def log_likelihood(x, z):
        p = torch.sigmoid(model.decoder(z[None])[0])
        return (x * p.log() + (1 - x) * (1 - p).log()).sum()

    def variance(t):
        return 1 + 2 * model.prior.diffusion[k[0]] * t

    mean, scale = posterior(batch.frames[b, 0])
    z = mean + scale * noise[b]
    log_q, path = Normal(mean, scale).log_prob(z).sum(), [z]
    densities = [log_q]
    kl, squares = 0.5 * (mean**2 + scale**2 - 1 - 2 * scale.log()).sum(), 0.0
    for t in torch.arange(float(T)):
        velocity = grad(u)(z, t)
        residual = grad(u, 1)(z, t) + 0.5 * velocity @ velocity - force(z[None], t, k)[0]
        squares = squares + residual**2
        log_q = log_q - torch.linalg.det(torch.eye(LATENT) + hessian(u)(z, t)).abs().log()
        z = z + velocity
        path.append(z)
        densities.append(log_q)
        log_p = MultivariateNormal(torch.zeros(LATENT), variance(t + 1) * torch.eye(LATENT)).log_prob(z)
        kl = kl + log_q - log_p
    shown = [log_likelihood(x, path[t]) for x, t in zip(batch.frames[b], batch.times[b], strict=True)]
    reconstruction = shown[0] + T / (len(shown) - 1) * sum(shown[1:])
    x, v = batch.frames[b, drawn[b]], variance(batch.times[b, drawn[b]])
    mean, scale = posterior(x)
    own_kl = 0.5 * ((mean**2 + scale**2) / v - 1 - (scale**2 / v).log()).sum()
    own_bound = T * (log_likelihood(x, mean + scale * second_noise[b]) - model.beta * own_kl)
    there = batch.times[b, drawn[b]]
    apart = T * (densities[there] - Normal(mean, scale).log_prob(path[there]).sum())
    start_velocity = grad(u)(path[0], torch.tensor(0.0))
    return reconstruction, kl, -0.3 * own_bound, 0.2 * apart, 0.5 * squares, 0.7 * start_velocity @ start_velocity


@pytest.mark.parametrize("frames", [None, 1, 2])
def test_flow_terms_equal_a_slow_recomputation_of_each_sequence(build, frames):
    model, batch = build(), mixed_batch(frames)
    terms, draws = model.terms(batch, generator(7)), generator(7)
    noise = torch.randn(6, LATENT, generator=draws)
    drawn = torch.randint(1, batch.frames.shape[1], (6,), generator=draws)
    second_noise = torch.randn(6, LATENT, generator=draws)
    found = [terms.reconstruction, terms.kl, *terms.penalties.values()]
    assert list(terms.penalties) == ["autoencoding", "agreement", "hamilton_jacobi", "initial"]
    total = 0.0
    for b in range(6):
        slow = slow_terms(model, batch, b, noise, drawn, second_noise)
        for one, expected in zip(found, slow, strict=True):
            torch.testing.assert_close(one[b], expected)
        total = total - slow[0] + 0.4 * slow[1] + sum(slow[2:])
    torch.testing.assert_close(terms.loss, total / 6)


def test_every_declared_parameter_gets_a_finite_gradient_for_every_transformation(build):
    model = build()
    model.terms(mixed_batch(2), generator()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        rows = parameter.grad.reshape(3 if name.startswith(("flow", "prior")) else 1, -1)  # one row for each k
        assert (rows.abs().amax(1) > 0).all(), name


def test_each_penalty_can_be_left_out(build):
    model = build(hamilton_jacobi=0.0, autoencoding=0.0, agreement=0.0, initial=0.0)
    terms = model.terms(mixed_batch(), generator())
    assert terms.penalties == {}
    torch.testing.assert_close(terms.loss, (0.4 * terms.kl - terms.reconstruction).mean())


def test_flow_and_encoder_agree_where_one_carries_codes_to_codes(make_quadratic):
    """Images are their latents, halved at every frame; so does the flow, and no frame's code is contradicted."""
    flow = PotentialFlow(make_quadratic(-0.5 * torch.eye(LATENT)[None], horizon=T))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(LATENT, 2 * LATENT))
    with torch.no_grad():
        encoder[1].weight.copy_(torch.cat([torch.eye(LATENT), torch.zeros(LATENT, LATENT)]))
        encoder[1].bias.zero_()
    decoder = nn.Sequential(nn.Linear(LATENT, LATENT), nn.Unflatten(1, (1, 1, LATENT)))
    model = FlowFactorizedVAE(encoder, decoder, flow, DiffusionPrior(1), hamilton_jacobi=0, autoencoding=0, agreement=1)
    start = torch.rand(4000, 1, 1, 1, LATENT, generator=generator())
    frames = start * 0.5 ** torch.arange(T + 1)[:, None, None, None]
    times = torch.arange(T + 1).expand(len(start), -1)
    batch = Batch(frames, times, torch.zeros(len(start), dtype=torch.long), T)
    found = model.terms(batch, generator(1)).penalties["agreement"].mean().item()
    narrower = 0.5 ** torch.arange(1.0, T + 1)  # q_t = N(μ_t, 4^-t I) against the code's N(μ_t, I)
    expected = LATENT * 0.5 * (narrower**2 - 1 - 2 * narrower.log()).sum()
    assert found == pytest.approx(expected.item(), rel=0.05)


def test_path_kl_weighs_the_terms_after_frame_zero_alone(build):
    """With weight 0 the KL is that of q_0 in closed form; halfway it is halfway, and nothing else changes."""
    batch, terms = mixed_batch(2), []
    model = build()
    for weight in (0.0, 0.5, 1.0):
        model.path_kl = weight
        terms.append(model.terms(batch, generator()))
    posterior = model.encode(batch.frames[:, 0])
    torch.testing.assert_close(terms[0].kl, kl_divergence(posterior.base_dist, Normal(0.0, 1.0)).sum(1))
    torch.testing.assert_close(terms[1].kl, 0.5 * (terms[0].kl + terms[2].kl))
    assert (terms[2].kl - terms[0].kl).abs().min() > 1e-3
    for other in terms[:2]:
        assert torch.equal(other.reconstruction, terms[2].reconstruction)
        assert all(torch.equal(other.penalties[name], terms[2].penalties[name]) for name in other.penalties)


def test_without_a_path_kl_a_density_that_is_not_finite_does_no_harm(build):
    model = build(path_kl=0.0)
    model._path_kl = lambda *arguments: torch.full((6,), torch.nan)
    assert torch.isfinite(model.terms(mixed_batch(2), generator()).loss)


@pytest.mark.parametrize("kind", [FreeField, DivergenceFreeField])
def test_the_model_follows_any_field(kind):
    flow = Flow(kind(LATENT, 3, 5, T))
    model = FlowFactorizedVAE(*encoder_and_decoder(), flow, StaticPrior(3), hamilton_jacobi=0.0, initial=1.0)
    batch = mixed_batch(2)
    terms = model.terms(batch, generator())
    posterior = model.encode(batch.frames[:, 0])
    z0 = posterior.mean + posterior.base_dist.scale * torch.randn(6, LATENT, generator=generator())
    path = flow.rollout(z0, batch.k, T)
    expected = kl_divergence(posterior.base_dist, Normal(0.0, 1.0)).sum(1)
    for t in range(1, T + 1):
        log_q = posterior.log_prob(z0) - path.log_det[:, :t].sum(1)
        expected = expected + log_q - Normal(0.0, 1.0).log_prob(path.z[:, t]).sum(1)
    torch.testing.assert_close(terms.kl, expected)
    torch.testing.assert_close(terms.penalties["initial"], flow.field.velocity(z0, 0.0, batch.k).square().sum(1))
    terms.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_hamilton_jacobi_penalty_without_a_potential_is_refused():
    flow = Flow(FreeField(LATENT, 3, 5, T))
    with pytest.raises(ValueError, match="needs a flow along a potential, got a Flow along a FreeField: set hamilton"):
        FlowFactorizedVAE(*encoder_and_decoder(), flow, DiffusionPrior(3))


def test_without_a_force_the_residual_is_lower_by_minus_f(build):
    model, k = build(), torch.arange(6) % 3
    path, times = model.transport(torch.randn(6, LATENT), k, T), torch.arange(T).repeat(6)
    force = model.force(path.z[:, :-1].flatten(0, 1), times, k.repeat_interleave(T)).unflatten(0, (6, T))
    forced, model.force = model.flow.residuals(path, k, model.force), None
    torch.testing.assert_close(forced - model.flow.residuals(path, k, model.force), -force)
    assert force.max() < 0


def test_the_initial_condition_holds_every_transformation_to_account(build):
    model, batch = build(), mixed_batch()
    for k in range(3):
        model.zero_grad()
        model.terms(batch, generator()).penalties["initial"][batch.k == k].sum().backward()
        touched = model.flow.potential.linear.grad.abs().amax((1, 2)) > 0
        assert touched.tolist() == [j == k for j in range(3)]


def test_drawing_some_frames_is_unbiased_for_the_sum_over_all(build):
    model, whole = build(autoencoding=0.0), mixed_batch()
    full, found = model.terms(whole, generator(3)), []
    for drawn in itertools.combinations(range(1, T + 1), 2):
        times = torch.tensor([0, *drawn]).expand(6, -1)
        subset = replace(whole, frames=whole.frames[:, [0, *drawn]], times=times)
        terms = model.terms(subset, generator(3))
        torch.testing.assert_close(terms.kl, full.kl)
        found.append(terms.reconstruction)
    torch.testing.assert_close(torch.stack(found).mean(0), full.reconstruction)
    assert torch.stack(found).std(0).min() > 1e-3


# --- Gaussian cases in which everything is known ------------------------------------------------------------------


def test_kl_vanishes_at_every_sample_when_the_flow_carries_the_prior_onto_itself(make_quadratic):
    """N(0, I) stretched by √(1 + 2D) is p_1, so log q_1 - log p_1 is 0 at whatever z_1 was drawn."""
    stretch = (1 + 2 * torch.tensor([0.3, 1.5])).sqrt() - 1
    flow, prior = PotentialFlow(make_quadratic(stretch[:, None, None] * torch.eye(LATENT))), DiffusionPrior(2)
    prior.raw.data.copy_(torch.expm1(torch.tensor([0.3, 1.5])).log())
    model = FlowFactorizedVAE(*encoder_and_decoder(), flow, prior)
    for parameter in model.encoder.parameters():
        parameter.data.zero_()  # q_0 = N(0, I)
    batch = Batch(torch.rand(4, 2, *SHAPE), torch.arange(2).expand(4, -1), torch.tensor([0, 1, 1, 0]), 1)
    terms = model.terms(batch, generator())
    torch.testing.assert_close(terms.kl, torch.zeros(4), atol=1e-12, rtol=0)


@pytest.fixture
def linear_model(monkeypatch, make_quadratic):
    """x_t = A z_t + ε with orthogonal columns of A, whose exact posterior is encoded and flows into that of frame 1."""
    monkeypatch.setitem(LIKELIHOODS, "linear-gaussian", lambda mean: Normal(mean, 1.0))
    matrix = torch.zeros(math.prod(SHAPE), LATENT)
    matrix[:8, 0], matrix[8:16, 1] = 0.5, 0.5  # AᵀA = 2 I, so that the posterior of z_0 has precision 1 + 2
    diffusion, precision = 0.4, 1 / (1 + 2 * 0.4) + 2  # that of the posterior of z_1
    stretch = math.sqrt(3 / precision)
    encoder, decoder = encoder_and_decoder()
    with torch.no_grad():
        encoder[1].weight.copy_(torch.cat([matrix.T / 3, torch.zeros_like(matrix.T)]))
        encoder[1].bias.copy_(-0.5 * math.log(3) * torch.tensor([0.0, 0.0, 1.0, 1.0]))
        decoder[0].weight.copy_(matrix)
        decoder[0].bias.zero_()
    flow = PotentialFlow(make_quadratic((stretch - 1) * torch.eye(LATENT)[None]))
    options = {"likelihood": "linear-gaussian", "hamilton_jacobi": 0.0, "autoencoding": 0.0}
    model = FlowFactorizedVAE(encoder, decoder, flow, DiffusionPrior(1, diffusion), **options)

    def exact(frames):
        """log p(x_0) + log p(x_1 | k)."""
        eye, zero = torch.eye(len(matrix)), torch.zeros(len(matrix))
        covariances = [(1 + 2 * diffusion * t) * matrix @ matrix.T + eye for t in range(2)]
        return sum(MultivariateNormal(zero, c).log_prob(frames[t].flatten()).item() for t, c in enumerate(covariances))

    return model, exact, stretch * precision / 3


def mean_bound(model, pair, draws=20_000):
    """Average of the Monte-Carlo bound on one pair of frames, and its standard error."""
    times, k = torch.arange(2).expand(draws, -1), torch.zeros(draws, dtype=torch.long)
    bound = model.terms(Batch(pair.expand(draws, *pair.shape), times, k, 1), generator()).bound
    return bound.mean().item(), bound.std().item() / draws**0.5


def test_the_bound_is_tight_when_the_flow_carries_posterior_to_posterior(linear_model):
    model, exact, ratio = linear_model
    first = torch.rand(SHAPE, generator=generator())
    pair = torch.stack([first, ratio * first])  # the second frame whose posterior mean is where the first one's goes
    bound, error = mean_bound(model, pair)
    assert error < 0.05
    assert bound == pytest.approx(exact(pair), abs=4 * error)


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_never_exceeds_the_exact_log_likelihood(linear_model, seed):
    model, exact, _ = linear_model
    pair = torch.rand(2, *SHAPE, generator=generator(seed))
    with torch.no_grad():
        model.encoder[1].bias.add_(0.3 * torch.randn(2 * LATENT, generator=generator(seed)))
    bound, error = mean_bound(model, pair)
    assert bound < exact(pair) + 4 * error
    assert bound > exact(pair) - 5  # not vacuous


# --- learning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vae", "flow-factorized"])
def test_every_model_overfits_a_few_sequences(kind):
    torch.set_default_dtype(torch.float32)
    digits = TransformationSequences(load_stills("digits", "train").images[:32], horizon=T)
    shape, channels = digits.image_shape, (8, 16)
    parts = ConvEncoder(shape, 8, channels, 64), ConvDecoder(shape, 8, channels, 64)
    motion = PotentialFlow(Potential(8, 3, 16, T)), DiffusionPrior(3), Force(8, 3, 16, T)
    model = VAE(*parts) if kind == "vae" else FlowFactorizedVAE(*parts, *motion)
    batch = digits.sample(32, 2, generator())
    history = fit(model, lambda _: batch, Schedule(80, 5e-3, warmup=5), log_every=1, progress=False)
    assert history[-1]["loss"] < 0.4 * history[0]["loss"]
