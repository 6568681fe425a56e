"""Models that are not told k: KL terms, noise, gradients, that no label is seen, and that they find out."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from tiny import SHAPE, encoder_and_decoder, generator
from torch.distributions import Bernoulli, Categorical, Normal, kl_divergence
from torch.nn import functional as F

from poflow_lite.datasets import Batch, Transformation, TransformationSequences
from poflow_lite.fields import DivergenceFreeField, Force, FreeField, MixedFields, Potential
from poflow_lite.flows import DiffusionPrior, Flow
from poflow_lite.metrics import equivariance_errors, match_transformations, persistence, predict
from poflow_lite.metrics.assignment import Donors, field_use, infer_all
from poflow_lite.models import FlowFactorizedVAE, GumbelSoftmax, InferredFlowVAE, SpikeAndSlab
from poflow_lite.networks import TransformationEncoder
from poflow_lite.training import Schedule, fit

LATENT, T, K = 2, 4, 3
pytestmark = pytest.mark.usefixtures("double")
both = pytest.mark.parametrize("posterior", [GumbelSoftmax(), SpikeAndSlab(0.3, 2.0)], ids=["gumbel", "slab"])


@pytest.fixture
def build(make_potential):
    """A tiny model with every parameter random; three potentials, or for coefficients two and a field that turns."""

    def make(posterior=None, **options):
        posterior, prior = posterior or GumbelSoftmax(), DiffusionPrior(K, 0.2)
        field, force = make_potential(LATENT, K, horizon=T), Force(LATENT, K, 8, T)
        if not posterior.names_k:
            turning = DivergenceFreeField(LATENT, 1, width=5, horizon=T)
            field, force = MixedFields([make_potential(LATENT, 2, horizon=T), turning]), None
            options = {"hamilton_jacobi": 0.0} | options
        with torch.no_grad():
            prior.raw.add_(torch.randn(K))
        inference = TransformationEncoder(SHAPE, K if posterior.names_k else 3 * K, channels=(4,), hidden=6)
        parts = *encoder_and_decoder(LATENT), Flow(field), prior, force
        return InferredFlowVAE(*parts, inference=inference, posterior=posterior, **options)

    return make


def batch_of(count=6, frames=2):
    sequences = TransformationSequences(torch.rand(count, *SHAPE, generator=generator()), horizon=T)
    return sequences.sample(count, frames, generator(1))


# --- posteriors ---------------------------------------------------------------------------------------------------


def random_raw(count=5):
    return torch.randn(count, 9, generator=generator()) * torch.tensor([2.0, 1.0, 1.0]).repeat_interleave(3)


@pytest.mark.parametrize("empty", [0.0, 1.5, 40.0])
def test_spike_kl_is_the_sum_over_all_codes_of_the_prior_that_avoids_the_empty_one(empty):
    logits = random_raw()[:, :3]
    codes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))  # (8, M)
    log_p = Bernoulli(torch.tensor(0.2)).log_prob(codes).sum(1) - empty * (codes.sum(1) == 0)
    log_q = Bernoulli(logits=logits[:, None]).log_prob(codes).sum(-1)  # (B, 8)
    expected = (log_q.exp() * (log_q - log_p.log_softmax(0))).sum(1)
    torch.testing.assert_close(SpikeAndSlab(0.2, empty).spike_kl(logits), expected)


def test_spike_kl_is_finite_where_a_field_is_hardly_ever_on():
    """log(1 - (1 - π)^M) = log(M π) for the smallest π; it was log 0. A field that is off pays for the empty code."""
    found = SpikeAndSlab(1e-18, 100.0).spike_kl(torch.full((1, 3), -80.0, dtype=torch.float64))
    assert found.item() == pytest.approx(100 + math.log(3e-18))


def test_slab_kl_is_paid_by_the_fields_that_are_on():
    logits, shift, log_ratio = random_raw().chunk(3, 1)
    each = kl_divergence(Normal(1.5 + shift, 0.3 * log_ratio.exp()), Normal(torch.tensor(1.5), torch.tensor(0.3)))
    found = SpikeAndSlab(slab=(1.5, 0.3)).kl(random_raw())["slab"]
    torch.testing.assert_close(found, (logits.sigmoid() * each).sum(1))


def test_both_together_are_the_divergence_of_spike_and_slab_by_monte_carlo():
    """E_q[log q(s, w) - log p(s, w)], where the slab of a field that is off has the prior for its posterior."""
    posterior, raw, draws = SpikeAndSlab(0.2, 0.0, (1.0, 0.5)), random_raw(count=1), 200_000
    logits, mean, scale = (part[0] for part in posterior.parts(raw))
    on = Bernoulli(logits=logits).sample((draws,))
    slab, prior = Normal(mean, scale), Normal(torch.tensor(1.0), torch.tensor(0.5))
    w = torch.where(on.bool(), slab.sample((draws,)), prior.sample((draws, 3)))
    ratios = Bernoulli(logits=logits).log_prob(on) - Bernoulli(torch.tensor(0.2)).log_prob(on)
    ratios = (ratios + on * (slab.log_prob(w) - prior.log_prob(w))).sum(1)
    found = sum(posterior.kl(raw).values()).item()
    assert abs(found - ratios.mean()) < 4 * ratios.std() / draws**0.5 < 0.04 * abs(found)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_relaxed_samples_have_the_probabilities_of_the_discrete_ones_at_every_temperature(temperature):
    """Logistic noise for a spike, Gumbel noise for an index; a Gumbel for a spike would be off by up to a sixth."""
    logits, draws = torch.tensor([-2.0, -0.5, 0.0, 1.0]), 40_000
    raw = torch.cat([logits, torch.zeros(4), torch.full((4,), -8.0)]).expand(draws, -1)
    spikes = (SpikeAndSlab(slab=(1.0, 0.01)).sample(raw, temperature, generator(3)) > 0.5).double().mean(0)
    indices = GumbelSoftmax().sample(logits.expand(draws, -1), temperature, generator(3)).argmax(1)
    shares = indices.bincount(minlength=4) / draws
    for found, probability in ((spikes, logits.sigmoid()), (shares, logits.softmax(0))):
        assert (found - probability).abs().max() < 4 * 0.5 / draws**0.5


@pytest.mark.parametrize("logit", [-1000.0, 1000.0])
def test_a_spike_that_is_certain_has_finite_terms_and_slopes(logit):
    raw = torch.cat([torch.full((2, 3), logit), torch.ones(2, 6)], 1).requires_grad_()
    posterior = SpikeAndSlab(0.2, 10.0, (1.0, 0.5))
    total = sum(posterior.kl(raw).values()).sum() + posterior.sample(raw, 0.3, generator()).sum()
    assert total.isfinite()
    assert torch.autograd.grad(total, raw)[0].isfinite().all()


def test_the_mode_is_the_mean_slab_of_each_probable_spike_or_the_most_probable_index():
    raw = torch.tensor([[0.1, -0.1, 3.0, 1.0, 4.0, -2.0, 0.0, 0.0, 0.0]])
    assert torch.equal(SpikeAndSlab().mode(raw), torch.tensor([[2.0, 0.0, -1.0]]))
    assert GumbelSoftmax().mode(raw).tolist() == [4]


def test_what_no_sequence_uses_is_called_back_by_a_finite_slope():
    """Where its share of the batch underflows to 0: once a NaN that ended training, then a slope that left it idle."""

    def uneven(posterior, logits):
        raw = torch.tensor([logits + [0.0] * 6 * (not posterior.names_k)]).repeat(4, 1).requires_grad_()
        found = posterior.balance(raw)
        return found.item(), torch.autograd.grad(found, raw)[0].sum(0)[:3].tolist()

    value, slope = uneven(GumbelSoftmax(), [0.0, 0.0, -1000.0])  # q̄ = (1, 1, 0) / 2
    assert value == pytest.approx(-math.log(3) + (1000 + 3 * math.log(2)) / 3)
    assert slope == pytest.approx([1 / 6, 1 / 6, -1 / 3])  # q̄ - 1/3
    value, slope = uneven(SpikeAndSlab(0.25), [0.0, -1000.0, 1000.0])
    entropy = 0.25 * math.log(0.25) + 0.75 * math.log(0.75)
    assert value == pytest.approx(3 * entropy + math.log(2) + 0.25 * 1000 + 0.75 * 1000)
    assert slope == pytest.approx([0.25, -0.25, 0.75])  # q̄ - 1/4


# --- the model ----------------------------------------------------------------------------------------------------


@both
def test_permuting_the_labels_changes_nothing(build, posterior):
    model, batch = build(posterior).eval(), batch_of()
    loss = model.terms(batch, generator()).loss
    for labels in (batch.k.flip(0), (batch.k + 1) % K, torch.zeros(6, dtype=torch.long)):
        assert torch.equal(model.terms(replace(batch, k=labels), generator()).loss, loss)


@both
def test_terms_are_those_of_the_supervised_model_at_the_sampled_weights(build, posterior):
    model, batch, draws = build(posterior, temperature=(0.7, 0.7), kl_weight=4.0, balance=50.0), batch_of(), generator()
    terms, raw = model.terms(batch, generator()), model.inference(batch.frames)
    if posterior.names_k:
        y = ((raw - torch.empty(6, K).exponential_(generator=draws).log()) / 0.7).softmax(1)
        q, uniform = Categorical(logits=raw), Categorical(torch.ones(K) / K)
        expected, uneven = {"kl_k": kl_divergence(q, uniform)}, kl_divergence(uniform, Categorical(q.probs.mean(0)))
    else:
        logits, mean, scale = posterior.parts(raw)
        u = torch.empty(6, K).uniform_(generator=draws)
        y = ((logits + u.log() - (1 - u).log()) / 0.7).sigmoid()
        y = y * (mean + scale * torch.empty(6, K).normal_(generator=draws))
        expected, used = posterior.kl(raw), Bernoulli(logits.sigmoid().mean(0))
        uneven = kl_divergence(Bernoulli(torch.tensor(0.3)), used).sum()
    expected = {name: 4 * kl for name, kl in expected.items()} | {"balance": (50 * uneven).expand(6)}
    supervised = FlowFactorizedVAE.terms(model, Batch(batch.frames, batch.times, y, T), draws)
    torch.testing.assert_close(terms.reconstruction, supervised.reconstruction)
    torch.testing.assert_close(terms.kl, supervised.kl)
    torch.testing.assert_close(terms.penalties, supervised.penalties | expected)


@both
def test_noise_comes_from_the_generator_and_inference_has_none(build, posterior):
    model, batch = build(posterior).eval(), batch_of(frames=3)
    before = torch.get_rng_state()
    one, same, other = (model.terms(batch, generator(seed)).loss for seed in (0, 0, 1))
    pairs = sum(model.inference(batch.frames[:, [0, i]]) for i in (1, 2, 3)) / 3
    torch.testing.assert_close(model.inference(batch.frames), pairs)
    torch.testing.assert_close(model.infer(batch.frames), posterior.mode(pairs))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_temperature_and_balance_fall_with_the_training_steps_and_survive_a_checkpoint(build):
    taus = []

    class Recorded(SpikeAndSlab):
        def sample(self, raw, temperature, generator=None):
            taus.append(temperature)
            return super().sample(raw, temperature, generator)

    options = {"posterior": Recorded(), "temperature": (2.0, 0.5), "annealing": 4, "balance": 8.0}
    model, resumed, batch = build(**options), build(**options), batch_of()
    balances = [model.terms(batch, generator()).penalties["balance"][0].item() for _ in range(3)]
    resumed.load_state_dict(model.state_dict())
    balances += [resumed.terms(batch, generator()).penalties["balance"][0].item() for _ in range(3)]
    resumed.eval().terms(batch, generator())
    assert taus == pytest.approx([2.0, 2**0.5, 1.0, 2**-0.5, 0.5, 0.5, 0.5])
    assert balances == pytest.approx([balances[0] * share for share in (1, 0.75, 0.5, 0.25, 0, 0)])
    assert balances[0] > 0
    assert resumed.steps_taken == 6  # evaluation does not count


@both
def test_every_parameter_gets_a_finite_gradient(build, posterior):
    model = build(posterior, initial=0.5)
    model.terms(batch_of(), generator()).loss.backward()
    for name, parameter in model.named_parameters():
        if posterior.names_k or not name.endswith("gauge"):  # which serves the Hamilton-Jacobi residual alone
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": (0.0, 1.0)}, r"temperatures must be positive and finite, got \(0.0, 1.0\)"),
        ({"temperature": (1.0, math.nan)}, "temperatures must be positive"),
        ({"annealing": 0}, "annealing must last at least 1 step, got 0"),
        ({"balance": -1.0}, "balance must be a finite number of at least 0, got -1.0"),
        ({"classification": -1.0}, "classification must be a finite number of at least 0, got -1.0"),
        ({"kl_weight": math.inf}, "kl_weight must be a finite number"),
        ({"activity": 0.0}, "activity is a share of sequences, between 0 and 1, got 0.0"),
        ({"activity": 1.0}, "activity is a share"),
        ({"slab": (1.0, 0.0)}, r"slab needs a finite mean and a positive finite standard deviation, got \(1.0, 0.0\)"),
        ({"slab": (math.nan, 1.0)}, "slab needs a finite mean"),
        ({"empty": -0.1}, "empty must be a finite number"),
    ],
)
def test_bad_options_are_refused(build, options, message):
    with pytest.raises(ValueError, match=message):
        SpikeAndSlab(**options) if options.keys() & {"activity", "slab", "empty"} else build(**options)


def test_a_prior_for_another_number_of_fields_is_refused(build):
    parts = *encoder_and_decoder(LATENT), build().flow, DiffusionPrior(2)
    with pytest.raises(ValueError, match="the prior needs as many transformations as the flow, got 2 for 3 fields"):
        InferredFlowVAE(*parts, inference=torch.nn.Identity(), posterior=GumbelSoftmax())
    with pytest.raises(ValueError, match="the prior needs as many transformations as the flow, got 2 for 3 fields"):
        FlowFactorizedVAE(*parts, hamilton_jacobi=0.0)


def test_what_could_not_be_renumbered_after_training_is_refused_before_it(build, make_potential):
    """A field that several transformations share has no row for each; nor has a network of another width."""
    flow, named = build().flow, {"posterior": GumbelSoftmax(), "hamilton_jacobi": 0.0}
    shared = Flow(MixedFields([make_potential(LATENT, 2), DivergenceFreeField(LATENT, 1)]))
    own = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(K))
    own(torch.zeros(1, 3, *SHAPE))
    for moved, inference in ((shared, own), (flow, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, K + 1)))):
        with pytest.raises(ValueError, match="a model that names 3 transformations needs 3 rows, one for each"):
            InferredFlowVAE(*encoder_and_decoder(LATENT), moved, DiffusionPrior(K), inference=inference, **named)
    with pytest.raises(ValueError, match="Identity has no parameters, so that its outputs keep their order"):
        InferredFlowVAE(*encoder_and_decoder(LATENT), flow, DiffusionPrior(K), inference=torch.nn.Identity(), **named)
    model = InferredFlowVAE(*encoder_and_decoder(LATENT), flow, DiffusionPrior(K), inference=own, **named)
    before = own[-1].bias.detach().clone()
    model.reorder(torch.tensor([1, 2, 0]))
    assert torch.equal(own[-1].bias, before[[1, 2, 0]])


def test_labels_are_refused_where_nothing_is_named(build):
    with pytest.raises(ValueError, match="SpikeAndSlab names no k that a label could be held to"):
        build(SpikeAndSlab(), classification=1.0)


# --- some labels, and names ---------------------------------------------------------------------------------------


def test_only_labelled_sequences_pay_the_cross_entropy_and_only_their_labels_are_looked_at(build):
    model, told = build(classification=20.0).eval(), torch.tensor([True, False, True, False, False, True])
    batch = replace(batch_of(), labelled=told)
    terms = model.terms(batch, generator())
    expected = 20 * F.cross_entropy(model.inference(batch.frames), batch.k, reduction="none")
    torch.testing.assert_close(terms.penalties["classification"], torch.where(told, expected, 0.0))
    others = replace(batch, k=torch.where(told, batch.k, (batch.k + 1) % K))
    assert torch.equal(model.terms(others, generator()).loss, terms.loss)
    assert model.terms(replace(batch, k=(batch.k + 1) % K), generator()).loss != terms.loss


def test_reordering_renames_and_changes_nothing_else(build):
    """A cyclic order: a swap is its own inverse, and would hide one that is taken the wrong way round."""
    model, batch, order, z = build().eval(), batch_of(), torch.tensor([1, 2, 0]), torch.randn(6, LATENT)

    def of(k):
        path = model.rollout(z, k, range(T + 1)).z
        prior = model.log_prior(path, torch.arange(T + 1).expand(6, -1), k)
        return path, prior, model.force(z, 1.0, F.one_hot(k, K).double())

    before, raw = of(order[batch.k]), model.inference(batch.frames)
    model.reorder(order)
    torch.testing.assert_close(of(batch.k), before)
    torch.testing.assert_close(model.inference(batch.frames), raw[:, order])
    for wrong in ([0, 0, 1], [0, 1], [1, 2, 3]):
        with pytest.raises(ValueError, match=r"indices must hold each of 0..2 once"):
            model.reorder(torch.tensor(wrong))


def test_after_reordering_by_the_matching_the_indices_are_the_true_ones(build):
    model, batch = build().eval(), batch_of(60, frames=None)
    true = torch.tensor([2, 0, 1])[model.infer(batch.frames)]  # as a model that is right up to names would be told
    matching, share = match_transformations(model.infer(batch.frames), true, K)
    assert share == 1.0
    model.reorder(matching)
    assert torch.equal(model.infer(batch.frames), true)


# --- that they find out -------------------------------------------------------------------------------------------


class Colours(torch.nn.Module):
    """Codes images of one colour exactly, as the logits of their channels."""

    def forward(self, x):
        if x.shape[-1] == 3:
            return x[..., None, None].expand(-1, -1, 8, 8)
        mean = torch.logit(x.mean((-1, -2)), 1e-3)
        return torch.cat([mean, torch.full_like(mean, -3.0)], -1)


def fading(channel):
    def recolour(x, a):
        return x * torch.where(torch.arange(3) == channel, torch.exp(-a)[:, None], 1.0)[..., None, None]

    return Transformation(f"fade {channel}", lambda t: 0.8 * t, (0.0, 1.0), recolour=recolour)


@pytest.mark.parametrize(
    ("posterior", "options", "steps"),
    [(GumbelSoftmax(), {}, 150), (SpikeAndSlab(0.25), {"kl_weight": 5.0}, 300)],
    ids=["gumbel", "slab"],
)
def test_three_transformations_are_told_apart_without_a_label(posterior, options, steps):
    """Colours that fade, one at a time: the coding is given and exact, what moves is to be found."""
    torch.set_default_dtype(torch.float32)
    images = (0.75 + 0.2 * torch.rand(300, 3, 1, 1, generator=generator())).expand(-1, -1, 8, 8)
    moved = [TransformationSequences(part, list(map(fading, range(3))), horizon=2) for part in images.split([200, 100])]
    families = [(FreeField, 3)] if posterior.names_k else [(Potential, 3), (DivergenceFreeField, 1)]
    field = MixedFields([family(3, number, width=4, horizon=2, frequencies=0) for family, number in families])
    parts = Colours(), Colours(), Flow(field), DiffusionPrior(field.transformations)
    inference = TransformationEncoder((3, 8, 8), 3 if posterior.names_k else 12, (8,), 16)
    weights = {"balance": 100.0, "beta": 0.0, "hamilton_jacobi": 0.0, "autoencoding": 0.0, "annealing": steps // 2}
    model = InferredFlowVAE(*parts, inference=inference, posterior=posterior, **options, **weights)
    fit(model, lambda draws: moved[0].sample(32, 1, draws), Schedule(steps, 2e-2, warmup=20), progress=False)
    found, true = infer_all(model, moved[1])
    if posterior.names_k:
        assert match_transformations(found, true, 3)[1] >= 0.95
    else:
        assert field_use(found, true).purity >= 0.9
        lent = Donors(model, moved[0], images=50)  # what moves other sequences so, moves these so
        errors = equivariance_errors({"flow": lambda b: predict(model, lent(b)), "still": persistence}, moved[1])
        assert all(errors["flow"][k] < 0.5 * errors["still"][k] for k in moved[1].names)
