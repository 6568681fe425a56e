"""The models: every term recomputed slowly, exact bounds, gradients, checkpoints, and learning."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from tiny import SHAPE, encoder_and_decoder, generator
from torch import nn
from torch.distributions import MultivariateNormal, Normal
from torch.func import grad, hessian, jacrev
from torch.nn import functional as F

from poflow_lite import models
from poflow_lite.datasets import AllAtOnce, Batch, TransformationSequences, load_images
from poflow_lite.experiments import MODELS as NAMED
from poflow_lite.experiments import build_model, recipe
from poflow_lite.fields import AutogradPotential, Force, FreeField, Potential
from poflow_lite.flows import DiffusionPrior, Flow, PushforwardPrior, StaticPrior
from poflow_lite.io import load_checkpoint
from poflow_lite.models import VAE, FactorVAE, FlowFactorizedVAE, TopographicVAE
from poflow_lite.models.baselines import permute_dimensions
from poflow_lite.networks import ConvDecoder, ConvEncoder, TransformationEncoder
from poflow_lite.objectives import LIKELIHOODS, gaussian_kl, laplace_transition_kl, total_correlation
from poflow_lite.training import Schedule, fit, step_generator

LATENT, T, K = 2, 4, 3
PLACES, CAPSULES = 10, 2  # of the Topographic VAE
FLOW_WEIGHTS = {"beta": 0.4, "hamilton_jacobi": 0.5, "autoencoding": 0.3, "consistency": 0.2, "initial": 0.7}
WAVE_WEIGHTS = {"beta": 0.4, "wave": 0.3, "initial": 0.7, "jacobian": 0.6, "classification": 0.9}
pytestmark = pytest.mark.usefixtures("double")


def flow_factorized(parts, flow, shape, **options):
    prior, force = DiffusionPrior(K, 0.2), Force(flow.field.latent, K, 8, T)
    prior.raw.data.add_(torch.randn(K))
    return FlowFactorizedVAE(*parts, flow, prior, force, **{**FLOW_WEIGHTS, **options})


def poflow(parts, flow, shape, **options):
    model = models.PoFlow(*parts, flow, TransformationEncoder(shape, K, (4,), 6), **{**WAVE_WEIGHTS, **options})
    model.raw_speed.data.copy_(torch.randn(K))
    return model


MODELS = {
    "vae": lambda parts, flow, shape, **o: VAE(*parts, **o),
    "factor": lambda parts, flow, shape, **o: FactorVAE(*parts, flow.field.latent, **{"width": 8, **o}),
    "slow": lambda parts, flow, shape, **o: models.SlowVAE(*parts, **o),
    "topographic": lambda parts, flow, shape, **o: TopographicVAE(*parts, PLACES, **{"capsules": CAPSULES, **o}),
    "poflow": poflow,
    "flow-factorized": flow_factorized,
}
"""Name ↦ a model of given networks, flow and image shape."""


@pytest.fixture
def build(make_potential):
    """A tiny model in which all parameters are random."""

    def make(name, **options):
        coded, latent = (2 * PLACES, PLACES) if name == "topographic" else (LATENT, LATENT)
        parts = encoder_and_decoder(coded)[0], encoder_and_decoder(latent)[1]
        return MODELS[name](parts, Flow(make_potential(LATENT, K, horizon=T)), SHAPE, **options)

    return make


def batch_of(frames=None, **which):
    """Six sequences under all three transformations, all frames or a few of each."""
    sequences = TransformationSequences(torch.rand(6, *SHAPE, generator=generator()), horizon=T)
    times = sequences.sample(6, frames, generator(1), **which).times
    return sequences.batch(torch.arange(6), torch.arange(6) % K, times)


def code(model, x, noise):
    """For one image a sample of q(z | x), its mean and scale, and its divergence from N(0, I)."""
    mean, log_scale = model.encoder(x[None])[0].chunk(2)
    kl = 0.5 * (mean**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum()
    return mean + log_scale.exp() * noise, mean, log_scale.exp(), kl


def log_likelihood(model, x, z):
    p = torch.sigmoid(model.decoder(z[None])[0])
    return (x * p.log() + (1 - x) * (1 - p).log()).sum()


def potential(model, batch, b):
    """u(z, t) of what moves sequence b, for a single point."""
    y = F.one_hot(batch.k[b : b + 1], K).double()
    return lambda z, t: model.flow.field.value(z[None], t, y)[0]


def reconstruction(model, batch, b, path):
    """Σ_t log p(x_t | z_t) of sequence b, estimated from the frames that were drawn."""
    shown = [log_likelihood(model, x, path[t]) for x, t in zip(batch.frames[b], batch.times[b], strict=True)]
    return shown[0] + T / (len(shown) - 1) * sum(shown[1:])


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_finite_gradient_is_zeroed_each_step_and_survives_a_checkpoint(build, name, tmp_path):
    model, batch, path = build(name), batch_of(2, consecutive=True), tmp_path / "checkpoint.safetensors"
    fresh = copy.deepcopy(model)
    fresh.terms(batch, step_generator(0, 0, "noise")).loss.backward()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)  # what an earlier step might have left
    fit(model, lambda _: batch, Schedule(1, clip=math.inf), checkpoint=path, progress=False)
    for (which, parameter), expected in zip(model.named_parameters(), fresh.parameters(), strict=True):
        assert parameter.grad.isfinite().all(), which
        torch.testing.assert_close(parameter.grad, expected.grad, msg=which)
        per_k = which.startswith(("flow", "prior", "raw_speed"))  # one row for each transformation
        assert (parameter.grad.reshape(K if per_k else 1, -1).abs().amax(1) > 0).all(), which
        assert not torch.equal(parameter, expected), which
    saved, state = load_checkpoint(path).model, model.state_dict()
    assert set(saved) == set(state)
    assert all(torch.equal(saved[which], state[which]) for which in state)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_overfits_a_few_sequences(name):
    torch.set_default_dtype(torch.float32)
    digits = TransformationSequences(load_images("digits", "train").images[:8, :, ::2, ::2], horizon=T)
    coded, latent = (2 * PLACES, PLACES) if name == "topographic" else (8, 8)
    parts = ConvEncoder(digits.image_shape, coded, (8,), 32), ConvDecoder(digits.image_shape, latent, (8,), 32)
    model = MODELS[name](parts, Flow(Potential(8, K, 16, horizon=T)), digits.image_shape)
    batch = digits.sample(8, 2, generator(), consecutive=True)
    history = fit(model, lambda _: batch, Schedule(60, 2e-2, warmup=5), log_every=1, progress=False)
    assert history[-1]["reconstruction"] > 0.4 * history[0]["reconstruction"]


NEGATIVE = {
    "vae": ["beta"], "factor": ["gamma"], "slow": ["transition"],
    "flow-factorized": list(FLOW_WEIGHTS), "poflow": list(WAVE_WEIGHTS),
}  # fmt: skip
PLACES_OF_5 = "neighbours must be an odd number from 1 to the 5 places of a capsule, got"
REFUSED = [
    *((m, {w: -1.0}, f"{w} must be a finite number of at least 0, got -1.0") for m, ws in NEGATIVE.items() for w in ws),
    *(("slow", {"rate": rate}, f"rate must be positive and finite, got {rate}") for rate in (0.0, math.inf)),
    *(("topographic", {"neighbours": n}, f"{PLACES_OF_5} {n}") for n in (2, 7, -1)),
    ("topographic", {"capsules": 3}, "latent must be a multiple of capsules, got 10 and 3"),
    ("vae", {"likelihood": "poisson"}, "unknown likelihood 'poisson'; known: bernoulli, continuous-bernoulli, gaus"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED)
def test_bad_options_are_refused_with_what_came(build, name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def test_what_does_not_go_together_is_refused(build):
    with pytest.raises(ValueError, match="needs a flow along a potential, got one along a FreeField: set hamilton"):
        FlowFactorizedVAE(*encoder_and_decoder(), Flow(FreeField(LATENT, K, 5, horizon=T)), DiffusionPrior(K))
    batch = batch_of(2)
    batch.times[:, 1:] = torch.tensor([1, 3])
    for name in ("slow", "topographic"):
        with pytest.raises(ValueError, match=r"frames that follow one another.*got times \[0, 1, 3\]"):
            build(name).terms(batch)


def test_vae_terms_are_those_of_every_frame_by_itself(build):
    vae, batch = build("vae", beta=3.0), batch_of(2)
    terms, noise = vae.terms(batch, generator()), torch.randn(18, LATENT, generator=generator())
    for position, x in enumerate(batch.frames.flatten(0, 1)):
        z, _, _, kl = code(vae, x, noise[position])
        found = terms.reconstruction[position], terms.kl[position]
        torch.testing.assert_close(found, (log_likelihood(vae, x, z), kl))
    torch.testing.assert_close(terms.loss, (3 * terms.kl - terms.reconstruction).mean())
    for log_scale, clamped in ((50.0, 4.0), (-50.0, -8.0), (1.0, 1.0)):  # posterior scales stay within reason
        posterior = VAE(lambda x, value=log_scale: torch.tensor([[0.5, value]]), nn.Identity()).encode(batch.frames)
        assert (posterior.mean.item(), posterior.base_dist.scale.log().item()) == pytest.approx((0.5, clamped))


def test_factor_terms_are_those_of_the_vae_and_two_more_which_send_each_other_no_gradient(build):
    model, batch, draws = build("factor", gamma=5.0), batch_of(2), generator()
    terms = model.terms(batch, generator())
    mean, log_scale = model.encoder(batch.frames.flatten(0, 1)).chunk(2, 1)
    z = mean + log_scale.exp() * torch.randn(18, LATENT, generator=draws)
    torch.testing.assert_close(terms.kl, gaussian_kl(mean, log_scale.exp()))
    torch.testing.assert_close(terms.penalties["total_correlation"], 5 * total_correlation(model.critic(z)))
    log_p = F.log_softmax(model.critic(torch.cat([z, permute_dimensions(z, draws)])), 1)
    torch.testing.assert_close(terms.penalties["critic"], -0.5 * (log_p[:18, 0] + log_p[18:, 1]))
    for name, part in {"critic": "critic", "total_correlation": "encoder"}.items():
        model.zero_grad()
        model.terms(batch, generator()).penalties[name].mean().backward()
        moved = {n for n, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}
        assert moved == {n for n, _ in model.named_parameters() if n.startswith(part)}


def test_permuted_dimensions_lose_each_other_and_a_critic_finds_the_total_correlation_of_a_gaussian():
    """-½ log(1 - ρ²) for ρ = 0.8: 0.51 nats."""
    equal = torch.randn(2000, 1, generator=generator()).expand(-1, 3)
    permuted = permute_dimensions(equal, generator(1))
    torch.testing.assert_close(permuted.sort(0).values, equal.sort(0).values)
    assert torch.corrcoef(permuted.T).fill_diagonal_(0).abs().max() < 0.1
    critic, draws = FactorVAE(*encoder_and_decoder(2), 2, width=32).critic, generator()
    optimizer, mix = torch.optim.Adam(critic.parameters(), 3e-3), torch.tensor([[1, 0.8], [0, 0.6]])
    for _ in range(400):
        z = torch.randn(512, 2, generator=draws) @ mix
        logits = critic(torch.cat([z, permute_dimensions(z, draws)]))
        optimizer.zero_grad()
        F.cross_entropy(logits, torch.arange(2).repeat_interleave(512)).backward()
        optimizer.step()
    found = total_correlation(critic(torch.randn(20_000, 2, generator=draws) @ mix)).mean().item()
    assert found == pytest.approx(0.511, abs=0.1)


@pytest.mark.parametrize("frames", [2, 3])
def test_slow_terms_equal_a_slow_recomputation_of_each_sequence(build, frames):
    model, batch = build("slow", beta=0.5, rate=3.0, transition=2.0), batch_of(frames, consecutive=True)
    terms, noise = model.terms(batch, generator()), torch.randn(6, frames + 1, LATENT, generator=generator())
    for b in range(6):
        coded = [code(model, x, own) for x, own in zip(batch.frames[b], noise[b], strict=True)]
        z, mean, scale, kl = (torch.stack(part) for part in zip(*coded, strict=True))
        seen = sum(log_likelihood(model, *pair) for pair in zip(batch.frames[b], z, strict=True))
        moved = laplace_transition_kl(mean[2:], scale[2:], z[1:-1], 3.0).sum()  # from the second frame of the run on
        found = terms.reconstruction[b], terms.kl[b], terms.penalties["transition"][b]
        expected = tuple(term / (frames + 1) for term in (seen, kl[:2].sum(), 2 * moved))
        torch.testing.assert_close(found, expected)
    assert terms.kl_weight == 0.5


def test_a_roll_turns_each_capsule_by_itself_and_rollout_is_the_roll_of_the_code(build):
    model, z, k = build("topographic"), torch.randn(5, 2 * PLACES), torch.tensor([0, 1, 2, 0, 1])
    assert model.roll(torch.arange(10), 1).tolist() == [4, 0, 1, 2, 3, 9, 5, 6, 7, 8]
    assert torch.equal(model.roll(torch.arange(10), 5), torch.arange(10))  # all the way round
    start = model.code(z[:, :PLACES], z[:, PLACES:].square())
    for clock in (range(8), range(7, -1, -1)):
        path = model.rollout(z, k, clock)
        for i, turned in enumerate(t - clock[0] for t in clock):
            own, scale = path.z[:, i].chunk(2, 1)
            torch.testing.assert_close(model.code(own, scale.square()), model.roll(start, turned), rtol=1e-12, atol=0)
        density = model.log_prior(path.z, torch.arange(8).expand(5, -1), k)
        torch.testing.assert_close(density, density[:, :1].expand(-1, 8))


def test_code_variables_are_student_t_with_as_many_degrees_of_freedom_as_neighbours(build):
    """z / √(mean of m squared normals) is t-distributed by definition."""
    z, u = torch.randn(2, 20_000, PLACES, generator=generator())
    for neighbours in (1, 3, 5):
        s = build("topographic", neighbours=neighbours, offset=0.0).code(z, u.square())[:, 3].detach().numpy()
        assert stats.kstest(s, "t", args=(neighbours,)).pvalue > 0.01
        assert stats.kstest(s, "norm").pvalue < 1e-6


def test_topographic_terms_equal_a_slow_recomputation(build):
    model, batch = build("topographic", beta=0.3), batch_of(3, consecutive=True)
    terms, noise = model.terms(batch, generator()), torch.randn(24, 2 * PLACES, generator=generator())
    for b in range(6):
        coded = [code(model, batch.frames[b, i], noise[4 * b + i]) for i in range(4)]
        torch.testing.assert_close(terms.kl[4 * b : 4 * b + 4], torch.stack([kl for *_, kl in coded]))
        z, u = torch.stack([both for both, *_ in coded]).view(4, 2, CAPSULES, 5).unbind(1)
        for i in range(4):
            window, s = [0] if i == 0 else [1, 2, 3], torch.empty(CAPSULES, 5)
            for c, d in itertools.product(range(CAPSULES), range(5)):
                near = [u[m][c, (d + e - (i - m)) % 5] ** 2 for m in window for e in (-1, 0, 1)]
                s[c, d] = (z[i][c, d] + model.offset) / (sum(near) / len(near) + 1e-6).sqrt()
            expected = log_likelihood(model, batch.frames[b, i], s.flatten())
            torch.testing.assert_close(terms.reconstruction[4 * b + i], expected)
    torch.testing.assert_close(terms.loss, (0.3 * terms.kl - terms.reconstruction).mean())


def test_poflow_terms_equal_a_slow_recomputation_of_each_sequence(build):
    model, batch, draws = build("poflow"), batch_of(2), generator()
    terms = model.terms(batch, generator())
    noise = torch.randn(6, LATENT, generator=draws)
    frame, shown = torch.randint(T, (6,), generator=draws), torch.randint(1, 3, (6,), generator=draws)
    speed = torch.log1p(model.raw_speed.exp())
    for b in range(6):
        u, (start, _, _, kl) = potential(model, batch, b), code(model, batch.frames[b, 0], noise[b])
        z, wave = [start], 0.0
        for t in torch.arange(float(T)):
            laplacian = torch.trace(hessian(u)(z[-1], t))
            wave = wave + (grad(grad(u, 1), 1)(z[-1], t) - speed[batch.k[b]] ** 2 * laplacian) ** 2
            z.append(z[-1] + grad(u)(z[-1], t))

        def image(point):
            return torch.sigmoid(model.decoder(point[None])[0])

        change = jacrev(image)(z[frame[b]]) @ (z[frame[b] + 1] - z[frame[b]])
        pair = torch.stack([batch.frames[b, 0], image(z[batch.times[b, shown[b]]])])[None]
        expected = {
            "wave": 0.3 * wave,
            "initial": 0.7 * (z[1] - z[0]).square().sum(),
            "jacobian": -0.6 * torch.log1p(change.square().sum()),
            "classification": -0.9 * model.classifier(pair)[0].log_softmax(0)[batch.k[b]],
        }
        torch.testing.assert_close({name: term[b] for name, term in terms.penalties.items()}, expected)
        torch.testing.assert_close((terms.reconstruction[b], terms.kl[b]), (reconstruction(model, batch, b, z), kl))


def test_a_step_of_poflow_works_out_no_determinant(build):
    model = build("poflow")
    model.flow._log_det = lambda *_: pytest.fail("a log-determinant that no term of the objective reads")
    model.terms(batch_of(2), generator())


def test_poflow_is_refused_along_a_field_without_a_potential():
    flow = Flow(FreeField(LATENT, K))
    with pytest.raises(ValueError, match="PoFlow needs a flow along a potential, got one along a FreeField"):
        poflow(encoder_and_decoder(LATENT), flow, SHAPE)


def test_a_plane_wave_has_no_residual_at_its_own_speed(build):
    """u = sin(w·z - c‖w‖t), moved along by its own gradient."""
    w, c, model = torch.tensor([0.6, -1.1]), 0.7, build("poflow")
    model.flow = Flow(AutogradPotential(lambda z, t: torch.sin(z @ w - c * w.norm() * t), 2))
    model.raw_speed = nn.Parameter(torch.tensor([math.log(math.expm1(c))]))
    path = model.rollout(torch.randn(5, 2), torch.zeros(5, dtype=torch.long), range(4))
    assert model.residuals(path).abs().max() < 1e-12
    model.raw_speed.data += 1
    assert model.residuals(path).abs().max() > 0.1


def slow_terms(model, batch, b, noise, drawn, second_noise):
    """The objective of one sequence with every derivative by automatic differentiation and no batching."""
    u, y = potential(model, batch, b), F.one_hot(batch.k[b : b + 1], K).double()
    z, mean, scale, kl = code(model, batch.frames[b, 0], noise[b])
    log_q, path, squares = Normal(mean, scale).log_prob(z).sum(), [z], 0.0
    joint = isinstance(model.prior, PushforwardPrior)  # all frames share z_0, and its divergence
    diffusion = 0.0 if joint else model.prior.diffusion[batch.k[b]]
    densities, variance = [log_q], 1 + 2 * diffusion * torch.arange(T + 1)
    for t in range(T):
        now = torch.tensor(float(t))
        velocity = grad(u)(z, now)
        squares = squares + (grad(u, 1)(z, now) + 0.5 * velocity @ velocity - model.force(z[None], now, y)[0]) ** 2
        log_q = log_q - torch.linalg.det(torch.eye(LATENT) + hessian(u)(z, now)).abs().log()
        z = z + velocity
        path.append(z)
        densities.append(log_q)
        log_p = MultivariateNormal(torch.zeros(LATENT), variance[t + 1] * torch.eye(LATENT)).log_prob(z)
        kl = kl if joint else kl + log_q - log_p
    x, there = batch.frames[b, drawn[b]], batch.times[b, drawn[b]]
    own, mean, scale, _ = code(model, x, second_noise[b])
    ratio = scale**2 / variance[there]
    own_kl = 0.5 * (mean**2 / variance[there] + ratio - 1 - ratio.log()).sum()
    elbo = T * (log_likelihood(model, x, own) - model.beta * own_kl)
    apart = T * (densities[there] - Normal(mean, scale).log_prob(path[there]).sum())
    start = (path[1] - path[0]).square().sum()
    seen = reconstruction(model, batch, b, path)
    return torch.stack([seen, kl, -0.3 * elbo, 0.2 * apart, 0.5 * squares, 0.7 * start])


@pytest.mark.parametrize(("prior", "frames"), [*(("diffusing", n) for n in (None, 1, 2)), ("static", 2), ("pushed", 2)])
def test_flow_terms_equal_a_slow_recomputation_of_each_sequence(build, prior, frames):
    model, batch, draws = build("flow-factorized"), batch_of(frames), generator(7)
    known = {"diffusing": model.prior, "static": StaticPrior(K), "pushed": PushforwardPrior(model.flow)}
    model.prior = known[prior]
    terms = model.terms(batch, generator(7))
    noise = torch.randn(6, LATENT, generator=draws)
    drawn = torch.randint(1, batch.frames.shape[1], (6,), generator=draws)
    second_noise = torch.randn(6, LATENT, generator=draws)
    assert list(terms.penalties) == ["autoencoding", "consistency", "hamilton_jacobi", "initial"]
    found = torch.stack([terms.reconstruction, terms.kl, *terms.penalties.values()], 1)
    slow = torch.stack([slow_terms(model, batch, b, noise, drawn, second_noise) for b in range(6)])
    torch.testing.assert_close(found, slow)
    torch.testing.assert_close(terms.loss, (slow @ torch.tensor([-1, 0.4, 1, 1, 1, 1])).mean())
    by_weight = model.terms(replace(batch, k=F.one_hot(batch.k, K).double()), generator(7))
    torch.testing.assert_close(by_weight.loss, terms.loss)


@pytest.mark.parametrize("name", ["flow-factorized", "poflow"])
def test_the_directions_of_an_estimated_determinant_come_from_the_generator_too(make_potential, name):
    flow = Flow(make_potential(LATENT, K, horizon=T), log_det="hutchinson")
    model, before = MODELS[name](encoder_and_decoder(LATENT), flow, SHAPE), torch.get_rng_state()
    first, again, other = (model.terms(batch_of(2), generator(seed)).loss for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again != other


def test_without_penalties_drawing_some_frames_is_unbiased_for_the_sum_over_all(build):
    off, whole, found = dict.fromkeys(FLOW_WEIGHTS, 0.0) | {"beta": 0.4}, batch_of(), []
    model = build("flow-factorized", **off)
    full = model.terms(whole, generator(3))
    assert full.penalties == {}
    torch.testing.assert_close(full.loss, (0.4 * full.kl - full.reconstruction).mean())
    for drawn in itertools.combinations(range(1, T + 1), 2):
        times = torch.tensor([0, *drawn]).expand(6, -1)
        terms = model.terms(replace(whole, frames=whole.frames[:, [0, *drawn]], times=times), generator(3))
        torch.testing.assert_close(terms.kl, full.kl)
        found.append(terms.reconstruction)
    torch.testing.assert_close(torch.stack(found).mean(0), full.reconstruction)
    assert torch.stack(found).std(0).min() > 1e-3


def test_kl_vanishes_at_every_sample_when_the_flow_carries_the_prior_onto_itself(make_quadratic):
    """N(0, I) stretched by √(1 + 2D) is p_1, so log q_1 - log p_1 is 0 at whatever z_1 was drawn."""
    diffusion, prior = torch.tensor([0.3, 1.5]), DiffusionPrior(2)
    prior.raw.data.copy_(torch.expm1(diffusion).log())
    stretch = ((1 + 2 * diffusion).sqrt() - 1)[:, None, None] * torch.eye(LATENT)
    model = FlowFactorizedVAE(*encoder_and_decoder(), Flow(make_quadratic(stretch)), prior)
    for parameter in model.encoder.parameters():
        parameter.data.zero_()  # q_0 = N(0, I)
    batch = Batch(torch.rand(4, 2, *SHAPE), torch.arange(2).expand(4, -1), torch.tensor([0, 1, 1, 0]), 1)
    torch.testing.assert_close(model.terms(batch, generator()).kl, torch.zeros(4), atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_the_bound_is_tight_if_posteriors_flow_into_posteriors_and_never_exceeds_the_exact_value(
    monkeypatch, make_quadratic, seed
):
    """x_t = A z_t + ε with orthogonal columns of A, whose exact posterior is encoded and flows into that of frame 1."""
    monkeypatch.setitem(LIKELIHOODS, "linear-gaussian", lambda mean: Normal(mean, 1.0))
    matrix, eye, zero = torch.zeros(48, LATENT), torch.eye(48), torch.zeros(48)
    matrix[:8, 0], matrix[8:16, 1] = 0.5, 0.5  # AᵀA = 2 I, so that the posterior of z_0 has precision 1 + 2
    diffusion, precision = 0.4, 1 / (1 + 2 * 0.4) + 2  # that of the posterior of z_1
    stretch, (encoder, decoder) = math.sqrt(3 / precision), encoder_and_decoder()
    encoder[1].weight.data.copy_(torch.cat([matrix.T / 3, torch.zeros_like(matrix.T)]))
    encoder[1].bias.data.copy_(-0.5 * math.log(3) * torch.tensor([0.0, 0.0, 1.0, 1.0]))
    decoder[0].weight.data.copy_(matrix)
    decoder[0].bias.data.zero_()
    flow = Flow(make_quadratic((stretch - 1) * torch.eye(LATENT)[None]))
    options = {"likelihood": "linear-gaussian", "hamilton_jacobi": 0.0, "autoencoding": 0.0}
    model = FlowFactorizedVAE(encoder, decoder, flow, DiffusionPrior(1, diffusion), **options)
    pair, draws = torch.rand(2, *SHAPE, generator=generator(seed or 0)), 20_000
    if seed is None:
        pair[1] = stretch * precision / 3 * pair[0]  # its posterior mean is where the flow carries that of frame 0
    else:
        encoder[1].bias.data.add_(0.3 * torch.randn(2 * LATENT, generator=generator(seed)))
    times, k = torch.arange(2).expand(draws, -1), torch.zeros(draws, dtype=torch.long)
    elbo = model.terms(Batch(pair.expand(draws, *pair.shape), times, k, 1), generator()).elbo
    covariances = [(1 + 2 * diffusion * t) * matrix @ matrix.T + eye for t in range(2)]
    exact = sum(MultivariateNormal(zero, c).log_prob(x.flatten()) for c, x in zip(covariances, pair, strict=True))
    error = 4 * elbo.std() / draws**0.5
    assert error < 0.2
    assert exact - (error if seed is None else 5) < elbo.mean() < exact + error


def test_the_joint_bound_never_exceeds_the_sequence_likelihood_and_is_tight_at_the_posterior(
    monkeypatch, make_quadratic
):
    """x_t = A φ_t(z_0) + ε with orthogonal A and a turning φ: the posterior given all frames is isotropic."""
    monkeypatch.setitem(LIKELIHOODS, "linear-gaussian", lambda mean: Normal(mean, 1.0))
    matrix = torch.zeros(48, LATENT)
    matrix[:8, 0], matrix[8:16, 1] = 0.5, 0.5  # AᵀA = 2 I
    encoder, decoder = encoder_and_decoder()
    flow = Flow(make_quadratic((0.5 - 1) * torch.eye(LATENT)[None]))  # z_1 = z_0 / 2
    decoder[0].weight.data.copy_(matrix)
    decoder[0].bias.data.zero_()
    x0 = torch.rand(1, *SHAPE, generator=generator())
    pair = torch.stack([x0[0], 0.5 * x0[0]])  # the posterior mean of both frames is a linear map of x_0
    precision = 1 + 2 * (1 + 0.25)
    encoder[1].weight.data.copy_(torch.cat([1.25 * matrix.T / precision, 0 * matrix.T]))
    encoder[1].bias.data.copy_(-0.5 * math.log(precision) * torch.tensor([0.0, 0.0, 1.0, 1.0]))
    options = {"likelihood": "linear-gaussian", "hamilton_jacobi": 0.0, "autoencoding": 0.0}
    model, draws = FlowFactorizedVAE(encoder, decoder, flow, PushforwardPrior(flow), **options), 20_000
    loading = torch.cat([matrix, 0.5 * matrix])
    exact = MultivariateNormal(torch.zeros(96), loading @ loading.T + torch.eye(96)).log_prob(pair.flatten())
    batch = Batch(pair.expand(draws, *pair.shape), torch.arange(2).expand(draws, -1), torch.zeros(draws).long(), 1)
    elbo = model.terms(batch, generator()).elbo
    assert elbo.mean().item() == pytest.approx(exact.item(), abs=4 * elbo.std().item() / draws**0.5 + 1e-9)
    encoder[1].bias.data.add_(0.3)
    assert model.terms(batch, generator()).elbo.mean() < exact - 0.05


# --- MSP ----------------------------------------------------------------------------------------------------------


def msp(rows=2, latent=6, **options):
    return models.MSP(*encoder_and_decoder(latent), rows, **options)


def test_msp_solves_for_the_matrix_that_moves_its_codes():
    model, z, matrix = msp(ridge=1e-12), torch.randn(5, 6), torch.randn(5, 2, 2)
    after = (matrix @ z.unflatten(1, (2, 3))).flatten(1)
    y = model.solve(z, after)
    torch.testing.assert_close(y, matrix.flatten(1), atol=1e-6, rtol=1e-6)
    assert torch.allclose(model.solve(z, z), torch.eye(2).flatten().expand(5, -1))
    path = model.rollout(z, y, (0, 1, 3, 3.5))
    torch.testing.assert_close(path.z[:, 1], after, atol=1e-6, rtol=1e-6)
    cubed = (torch.linalg.matrix_power(matrix, 3) @ z.unflatten(1, (2, 3))).flatten(1)
    torch.testing.assert_close(path.z[:, 2], cubed, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(path.log_det[:, 1], 2 * 3 * torch.linalg.det(matrix).abs().log(), atol=1e-5, rtol=1e-5)
    back = model.rollout(path.z[:, 2], y, (3, 1, 0))
    torch.testing.assert_close(back.z[:, -1], z, atol=1e-4, rtol=1e-4)


def test_the_ridge_of_msp_draws_its_matrix_to_the_identity_in_the_unit_of_the_codes():
    """‖M Z - Z'‖² + ε s ‖M - I‖² is the square of one residual with more columns, s the mean square of a row of Z."""
    model, (z, after) = msp(ridge=0.3), torch.randn(2, 5, 6)
    first, second = (codes.unflatten(1, (2, 3)) for codes in (z, after))
    own = (0.3 * first.square().sum(2).mean(1)).sqrt()[:, None, None] * torch.eye(2)
    rows = (torch.cat([codes, own], 2).mT for codes in (first, second))
    found = model.solve(z, after)
    torch.testing.assert_close(found, torch.linalg.lstsq(*rows).solution.mT.flatten(1))
    torch.testing.assert_close(model.solve(10 * z, 10 * after), found)


def test_between_two_frames_msp_moves_straight_and_arrives_where_whole_steps_do():
    """By a quarter turn, two half steps of I + ½ (M - I) would shrink what they turn to half its size."""
    model, z, turn = msp(), torch.randn(1, 6), torch.tensor([[0.0, -1.0, 1.0, 0.0]])
    for clock in ((0.0, 1.0, 2.0), (2.0, 1.0, 0.0)):
        whole, first, last = model.rollout(z, turn, clock), *clock[:2]
        parts = model.rollout(z, turn, (first, 0.75 * first + 0.25 * last, 0.5 * (first + last), last, clock[2]))
        torch.testing.assert_close(parts.z[:, [0, 3, 4]], whole.z)
        torch.testing.assert_close(parts.z[:, 1], torch.lerp(whole.z[:, 0], whole.z[:, 1], 0.25))
        torch.testing.assert_close(parts.log_det.cumsum(1)[:, [2, 3]], whole.log_det.cumsum(1))


def test_msp_looks_at_no_k_and_predicts_from_two_frames_what_moves_linearly():
    model, batch = msp(beta=0.4, autoencoding=0.3), batch_of(3, first_two=True)
    terms, other = (model.terms(batch.with_k(k), generator(7)) for k in (batch.k, (batch.k + 1) % K))
    assert torch.equal(terms.loss, other.loss)
    noise = torch.randn(18, 6, generator=generator(7)).view(6, 3, 6)
    for b in range(6):
        codes = model.encode(batch.frames[b])
        y = model.solve(codes.mean[:1], codes.mean[1:2])
        z, last = (codes.mean[i] + codes.base_dist.scale[i] * noise[b, n] for i, n in ((0, 0), (-1, 2)))
        path = model.rollout(z[None], y, range(T + 1)).z[0, batch.times[b]]
        seen = model.decode(path).log_prob(batch.frames[b]) @ torch.tensor([1.0, 1.0, (T - 1) / 2, (T - 1) / 2])
        kl = gaussian_kl(codes.mean, codes.base_dist.scale)
        torch.testing.assert_close((terms.reconstruction[b], terms.kl[b]), (seen, kl[0]))
        elbo = model.decode(last[None]).log_prob(batch.frames[b, -1:])[0] - 0.4 * kl[-1]
        torch.testing.assert_close(terms.penalties["autoencoding"][b], -0.3 * T * elbo)
    assert not msp(autoencoding=0.0).terms(batch, generator(7)).penalties
    own = model.infer(batch_of().frames)
    assert (model.names_k, own.shape) == (False, (6, 4))
    with pytest.raises(ValueError, match=r"MSP is moved by matrices y \(6, 4\), as infer\(frames\) gives"):
        model.rollout(torch.randn(6, 6), batch.k, range(2))
    for wrong in (batch_of(1, first_two=True), batch_of(2, consecutive=True)):
        with pytest.raises(ValueError, match=r"MSP needs frames 0 and 1 and one to be predicted.*got times \[0, "):
            model.terms(wrong)
    for rows, ridge in ((0, 1.0), (2, 0.0)):
        with pytest.raises(ValueError, match="MSP needs at least 1 row and a positive ridge"):
            msp(rows, ridge=ridge)


@pytest.mark.parametrize("name", NAMED)
def test_no_step_waits_for_its_numbers(name):
    """On PyTorch's meta device there are none: whatever reads one back, which a GPU would be waited for, fails."""
    settings = recipe("digits", "smoke", name, channels=(4, 4), hidden=8)
    training = TransformationSequences(torch.rand(6, 3, 28, 28, dtype=torch.float32), labelled=3)
    model = build_model(name, settings, training.image_shape, K).to("meta")
    ones = name in ("weakly-supervised", "poflow")  # take one k only
    for there in (training,) if ones else (training, AllAtOnce(training)):
        batch = there.to("meta").sample(4, 2, generator(), **model.draws).to("meta")
        model.terms(batch).loss.backward()
