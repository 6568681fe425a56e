"""The sparse flow model: its KL terms, its relaxed samples, that no label is seen, and what it learns without one."""

import itertools
import math

import pytest
import torch
from tiny import SHAPE, encoder_and_decoder, generator
from torch.distributions import Bernoulli, Normal, kl_divergence

from poflow_lite.datasets import Batch, TransformationSequences
from poflow_lite.fields import DivergenceFreeField
from poflow_lite.flows import Flow
from poflow_lite.mixtures import MixedFields
from poflow_lite.models import (
    FlowFactorizedVAE,
    SparseFlowVAE,
    SpikeAndSlab,
    TransformationEncoder,
    UnsignedDiffusionPrior,
)

LATENT, T, M = 2, 4, 3
pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def build(make_potential):
    """A tiny model with two gradient fields and a divergence-free one, in which all parameters are random."""

    def make(**options):
        turning = DivergenceFreeField(LATENT, 1, width=5, horizon=T)
        prior = UnsignedDiffusionPrior(M, 0.2)
        with torch.no_grad():
            for parameter in turning.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape))
            prior.raw.add_(torch.randn(M))
        flow = Flow(MixedFields([make_potential(LATENT, 2, horizon=T), turning]))
        inference = TransformationEncoder(SHAPE, 3 * M, channels=(4,), hidden=6)
        return SparseFlowVAE(*encoder_and_decoder(LATENT), flow, prior, inference=inference, **options)

    return make


def batch_of(count=6, frames=2):
    sequences = TransformationSequences(torch.rand(count, *SHAPE, generator=generator()), horizon=T)
    return sequences.sample(count, frames, generator(1))


def posterior_of(count=5, fields=3):
    logits, mean, log_scale = torch.randn(3, count, fields, generator=generator())
    return SpikeAndSlab(2 * logits, mean, log_scale.exp())


# --- spike and slab -----------------------------------------------------------------------------------------------


def test_spike_kl_is_that_of_independent_bernoullis():
    q = posterior_of()
    expected = kl_divergence(Bernoulli(logits=q.logits), Bernoulli(torch.tensor(0.2))).sum(1)
    torch.testing.assert_close(q.spike_kl(0.2), expected)


@pytest.mark.parametrize("empty", [0.0, 1.5, 40.0])
def test_spike_kl_is_the_sum_over_all_codes_of_the_prior_that_avoids_the_empty_one(empty):
    q, activity = posterior_of(), 0.2
    codes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))  # (8, M)
    weight = torch.tensor([activity ** c.sum() * (1 - activity) ** (3 - c.sum()) for c in codes])
    weight[0] *= math.exp(-empty)
    log_p = (weight / weight.sum()).log()
    log_q = Bernoulli(logits=q.logits[:, None]).log_prob(codes).sum(-1)  # (B, 8)
    torch.testing.assert_close(q.spike_kl(activity, empty), (log_q.exp() * (log_q - log_p)).sum(1))


def test_slab_kl_is_paid_by_the_fields_that_are_on():
    q = posterior_of()
    each = kl_divergence(Normal(q.mean, q.scale), Normal(torch.tensor(1.0), torch.tensor(0.3)))
    torch.testing.assert_close(q.slab_kl(1.0, 0.3), (q.logits.sigmoid() * each).sum(1))


def test_both_together_are_the_divergence_of_spike_and_slab_by_monte_carlo():
    """E_q[log q(s, w) - log p(s, w)], where the slab of a field that is off has the prior for its posterior."""
    q, draws = posterior_of(count=1), 200_000
    torch.manual_seed(2)
    on = Bernoulli(logits=q.logits[0]).sample((draws,))
    slab, prior = Normal(q.mean[0], q.scale[0]), Normal(torch.tensor(1.0), torch.tensor(0.5))
    w = torch.where(on.bool(), slab.sample((draws,)), prior.sample((draws, 3)))
    ratios = Bernoulli(logits=q.logits[0]).log_prob(on) - Bernoulli(torch.tensor(0.2)).log_prob(on)
    ratios = (ratios + on * (slab.log_prob(w) - prior.log_prob(w))).sum(1)
    found = (q.spike_kl(0.2) + q.slab_kl(1.0, 0.5)).item()
    assert abs(found - ratios.mean()) < 4 * ratios.std() / draws**0.5
    assert ratios.std() / draws**0.5 < 0.01 * abs(found)


@pytest.mark.parametrize("logit", [-1000.0, 1000.0])
def test_a_spike_that_is_certain_has_finite_terms_and_slopes(logit):
    logits = torch.full((2, 3), logit, requires_grad=True)
    q = SpikeAndSlab(logits, torch.ones(2, 3), torch.ones(2, 3))
    total = (q.spike_kl(0.2, 10.0) + q.slab_kl(1.0, 0.5) + q.sample(0.3, generator()).sum(1)).sum()
    (slope,) = torch.autograd.grad(total, logits)
    assert total.isfinite()
    assert slope.isfinite().all()


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_a_relaxed_spike_is_above_one_half_with_the_probability_of_the_spike(temperature):
    """Logistic noise; the difference of a Gumbel and nothing, a common mistake, is off by up to a sixth."""
    logits, draws = torch.tensor([-2.0, -0.5, 0.0, 1.0]), 40_000
    q = SpikeAndSlab(logits.expand(draws, -1), torch.ones(draws, 4), torch.zeros(draws, 4))
    share = (q.sample(temperature, generator(3)) > 0.5).double().mean(0)
    assert (share - logits.sigmoid()).abs().max() < 4 * 0.5 / draws**0.5


def test_as_the_temperature_falls_a_sample_becomes_the_spike_times_the_slab():
    draws = 40_000
    q = SpikeAndSlab(torch.zeros(draws, 1), torch.full((draws, 1), 3.0), torch.full((draws, 1), 0.5))
    g = q.sample(1e-4, generator(4))[:, 0]
    on = g.abs() > 0.5
    assert ((g.abs() > 0.01) & ~on).double().mean() < 0.001
    assert g[on].mean() == pytest.approx(3.0, abs=0.02)
    assert g[on].std() == pytest.approx(0.5, abs=0.02)
    assert on.double().mean() == pytest.approx(0.5, abs=0.01)


def test_the_coefficients_are_the_mean_slabs_of_the_probable_spikes():
    q = SpikeAndSlab(torch.tensor([[0.1, -0.1, 3.0]]), torch.tensor([[2.0, 5.0, -1.0]]), torch.ones(1, 3))
    assert torch.equal(q.coefficients, torch.tensor([[2.0, 0.0, -1.0]]))


# --- the prior ----------------------------------------------------------------------------------------------------


def test_the_prior_spreads_by_the_size_of_the_coefficients_whatever_their_sign():
    prior, g, z = UnsignedDiffusionPrior(M, 0.2), torch.tensor([[1.0, -2.0, 0.0]]), torch.ones(1, LATENT)
    with torch.no_grad():
        prior.raw.add_(torch.randn(M))
    spread = 1 + 2 * 3.0 * (prior.diffusion[0] + 2 * prior.diffusion[1])
    torch.testing.assert_close(prior.variance(3.0, g), spread[None])
    expected = Normal(0.0, spread.sqrt()).log_prob(z).sum(1)
    torch.testing.assert_close(prior.log_prob(z, 3.0, g), expected)
    torch.testing.assert_close(prior.potential(z, 3.0, g), -(spread - 1) / 6 * expected)
    assert prior.variance(3.0, torch.tensor([1])) == 1 + 6 * prior.diffusion[1]


# --- the model ----------------------------------------------------------------------------------------------------


def test_permuting_the_labels_changes_nothing(build):
    model, batch = build().eval(), batch_of()
    loss = model.terms(batch, generator()).loss
    for labels in (batch.k.flip(0), (batch.k + 1) % 3, torch.zeros(6, dtype=torch.long)):
        batch.k = labels
        assert torch.equal(model.terms(batch, generator()).loss, loss)


def test_terms_are_those_of_the_supervised_model_at_the_sampled_coefficients(build):
    model, batch = build(temperature=(0.7, 0.7), sparsity=4.0, use=50.0, empty=2.0, activity=0.3), batch_of()
    draws = generator()
    terms = model.terms(batch, draws)
    assert set(terms.penalties) == {"autoencoding", "spike", "slab", "use"}

    draws, posterior = generator(), model.posterior(batch.frames)
    u = torch.rand(6, M, generator=draws)
    spike = torch.sigmoid((posterior.logits + u.log() - (1 - u).log()) / 0.7)
    g = spike * (posterior.mean + posterior.scale * torch.randn(6, M, generator=draws))
    supervised = FlowFactorizedVAE.terms(model, Batch(batch.frames, batch.times, g, T), draws)
    torch.testing.assert_close(terms.reconstruction, supervised.reconstruction)
    torch.testing.assert_close(terms.kl, supervised.kl)
    torch.testing.assert_close(terms.penalties["spike"], 4 * posterior.spike_kl(0.3, 2.0))
    torch.testing.assert_close(terms.penalties["slab"], 4 * posterior.slab_kl(1.0, 0.1))
    mean = posterior.logits.sigmoid().mean(0)
    idle = kl_divergence(Bernoulli(torch.tensor(0.3)), Bernoulli(mean)).sum()
    torch.testing.assert_close(terms.penalties["use"], (50 * idle).expand(6))


def test_the_density_of_the_mixed_flow_is_exact(build):
    """log q_t of the path against the determinant of the map by automatic differentiation, at mixed coefficients."""
    model, g, z = build(), torch.tensor([[1.0, 0.3, -0.5]]), torch.randn(1, LATENT, generator=generator())
    path = model.transport(z, g, T)
    jacobian = torch.autograd.functional.jacobian(lambda x: model.transport(x[None], g, T).z[0, -1], z[0])
    torch.testing.assert_close(path.log_det.sum(), torch.linalg.slogdet(jacobian).logabsdet)


def test_inference_has_no_noise_starts_at_the_slab_and_looks_at_all_pairs(build):
    model, frames = build(slab=(2.0, 0.25)), batch_of(frames=3).frames
    assert torch.equal(model.infer(frames), model.infer(frames))
    raw = sum(model.inference(frames[:, [0, i]]) for i in (1, 2, 3)) / 3
    found = model.posterior(frames)
    torch.testing.assert_close(found.logits, raw[:, :M])
    torch.testing.assert_close(found.mean, 2.0 + raw[:, M : 2 * M])
    torch.testing.assert_close(found.scale, 0.25 * raw[:, 2 * M :].exp())


def test_noise_comes_from_the_generator_and_the_global_state_is_left_alone(build):
    model, batch = build().eval(), batch_of()
    before = torch.get_rng_state()
    one, same, other = (model.terms(batch, generator(seed)).loss for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_temperature_and_use_fall_with_the_training_steps_and_survive_a_checkpoint(build, monkeypatch):
    options = {"temperature": (2.0, 0.5), "annealing": 4, "use": 8.0}
    model, batch, taus, uses = build(**options), batch_of(), [], []
    original = SpikeAndSlab.sample
    monkeypatch.setattr(SpikeAndSlab, "sample", lambda q, tau, g: taus.append(tau) or original(q, tau, g))
    for _ in range(3):
        uses.append(model.terms(batch, generator()).penalties["use"][0].item())
    resumed = build(**options)
    resumed.load_state_dict(model.state_dict())
    for _ in range(3):
        uses.append(resumed.terms(batch, generator()).penalties["use"][0].item())
    resumed.eval().terms(batch, generator())
    assert taus == pytest.approx([2.0, 2**0.5, 1.0, 2**-0.5, 0.5, 0.5, 0.5])
    assert uses == pytest.approx([uses[0] * share for share in (1, 0.75, 0.5, 0.25, 0, 0)])
    assert uses[0] > 0
    assert resumed.steps_taken == 6  # evaluation does not count


def test_every_parameter_gets_a_finite_gradient(build):
    model = build(initial=0.5)
    model.terms(batch_of(), generator()).loss.backward()
    for name, parameter in model.named_parameters():
        if name.endswith("gauge"):  # moves nothing, and there is no Hamilton-Jacobi residual for it to serve
            continue
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_field_that_no_sequence_uses_is_called_back_by_a_finite_gradient(build):
    model = build(use=60.0, activity=0.25)
    logits = torch.tensor([[0.0, -1000.0, 1000.0]]).repeat(4, 1).requires_grad_()
    idle = model._idleness(logits)
    expected = [math.log(0.25 / 0.5) * 0.25 + math.log(0.75 / 0.5) * 0.75]
    expected += [0.25 * (math.log(0.25) + 1000) + 0.75 * math.log(0.75)]
    expected += [0.25 * math.log(0.25) + 0.75 * (math.log(0.75) + 1000)]
    torch.testing.assert_close(idle, torch.tensor(sum(expected)))
    (slope,) = torch.autograd.grad(idle, logits)
    torch.testing.assert_close(slope.sum(0), torch.tensor([0.25, -0.25, 0.75]))  # q̄ - π, summed over the batch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activity": 0.0}, "activity is a share of sequences, between 0 and 1, got 0.0"),
        ({"activity": 1.0}, "activity is a share"),
        ({"slab": (1.0, 0.0)}, r"slab needs a finite mean and a positive finite standard deviation, got \(1.0, 0.0\)"),
        ({"slab": (math.nan, 1.0)}, "slab needs a finite mean"),
        ({"temperature": (1.0, 0.0)}, "temperatures must be positive and finite"),
        ({"annealing": 0}, "annealing must last at least 1 step, got 0"),
        ({"sparsity": -1.0}, "sparsity must be a finite number of at least 0, got -1.0"),
        ({"use": math.inf}, "use must be a finite number"),
        ({"empty": -0.1}, "empty must be a finite number"),
    ],
)
def test_bad_options_are_refused(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_prior_for_another_number_of_fields_is_refused(build):
    model = build()
    with pytest.raises(ValueError, match="one diffusion coefficient a field, got 2 for 3 fields"):
        SparseFlowVAE(*encoder_and_decoder(LATENT), model.flow, UnsignedDiffusionPrior(2), inference=model.inference)


def test_terms_without_weight_are_left_out(build):
    assert set(build(sparsity=0.0, use=0.0).terms(batch_of(), generator()).penalties) == {"autoencoding"}
