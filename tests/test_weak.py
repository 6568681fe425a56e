"""The model that is not told k: no label in the loss, the noise it draws, its gradients, and that it finds out."""

import math

import pytest
import torch
from tiny import SHAPE, encoder_and_decoder, generator
from torch.nn import functional as F

from poflow_lite.datasets import TransformationSequences, load_stills
from poflow_lite.flows import DiffusionPrior, PotentialFlow
from poflow_lite.metrics import match_transformations
from poflow_lite.models import FlowFactorizedVAE, TransformationEncoder, WeaklySupervisedVAE
from poflow_lite.networks import ConvDecoder, ConvEncoder
from poflow_lite.potentials import Force, Potential
from poflow_lite.training import Schedule, fit

LATENT, T, K = 2, 4, 3
pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def build(make_potential):
    """A tiny weakly supervised model in which all parameters are random."""

    def make(**options):
        flow, prior = PotentialFlow(make_potential(LATENT, K, horizon=T)), DiffusionPrior(K, 0.2)
        with torch.no_grad():
            prior.raw.add_(torch.randn(K))
        inference = TransformationEncoder(SHAPE, K, channels=(4,), hidden=6)
        return WeaklySupervisedVAE(
            *encoder_and_decoder(LATENT), flow, prior, Force(LATENT, K, 8, T), inference=inference, **options
        )

    return make


def batch_of(count=6, frames=2):
    sequences = TransformationSequences(torch.rand(count, *SHAPE, generator=generator()), horizon=T)
    return sequences.sample(count, frames, generator(1))


def test_permuting_the_labels_changes_nothing(build):
    model, batch = build().eval(), batch_of()
    loss = model.terms(batch, generator()).loss
    for labels in (batch.k.flip(0), (batch.k + 1) % K, torch.zeros(6, dtype=torch.long)):
        batch.k = labels
        assert torch.equal(model.terms(batch, generator()).loss, loss)


def test_terms_are_those_of_the_supervised_model_at_the_sampled_weights(build, monkeypatch):
    """Gumbel-Softmax by hand, softmax((logits - log(-log U)) / τ), must be what PyTorch's function returned."""
    model, batch, seen = build(temperature=(0.7, 0.7), use=50.0), batch_of(), {}
    original = F.gumbel_softmax

    def keep(logits, tau):
        before = torch.get_rng_state()
        seen["y"] = original(logits, tau=tau)
        torch.set_rng_state(before)
        gumbel = -torch.empty_like(logits).exponential_().log()
        seen["by hand"] = ((logits + gumbel) / tau).softmax(1)
        return seen["y"]

    monkeypatch.setattr(F, "gumbel_softmax", keep)
    draws = generator()
    terms = model.terms(batch, draws)
    torch.testing.assert_close(seen["y"], seen["by hand"])

    logits = model.inference(batch.frames)
    q = logits.softmax(1)
    torch.testing.assert_close(terms.penalties["index"], (q * (K * q).log()).sum(1))
    used = q.mean(0)
    torch.testing.assert_close(terms.penalties["use"], (-50 * (K * used).log().mean()).expand(6))

    draws = generator()
    torch.randint(2**62, (), generator=draws)  # the seed of the Gumbel noise
    batch.k = seen["y"]
    supervised = FlowFactorizedVAE.terms(model, batch, draws)
    torch.testing.assert_close(terms.reconstruction, supervised.reconstruction)
    torch.testing.assert_close(terms.kl, supervised.kl)
    for name, penalty in supervised.penalties.items():
        torch.testing.assert_close(terms.penalties[name], penalty)


def test_noise_comes_from_the_generator_and_the_global_state_is_left_alone(build):
    model, batch = build().eval(), batch_of()
    before = torch.get_rng_state()
    one, same, other = (model.terms(batch, generator(seed)).loss for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_inference_has_no_noise_and_looks_at_all_pairs(build):
    model, frames = build(), batch_of(frames=3).frames
    assert torch.equal(model.infer(frames), model.infer(frames))
    pairs = [model.inference(frames[:, [0, i]]) for i in (1, 2, 3)]
    torch.testing.assert_close(model.inference(frames), sum(pairs) / 3)
    assert torch.equal(model.infer(frames), model.inference(frames[:, [0, 3, 1, 2]]).argmax(1))


def test_temperature_falls_with_the_training_steps_and_survives_a_checkpoint(build, monkeypatch):
    model, batch, taus = build(temperature=(2.0, 0.5), annealing=4), batch_of(), []
    original = F.gumbel_softmax
    monkeypatch.setattr(F, "gumbel_softmax", lambda logits, tau: taus.append(tau) or original(logits, tau=tau))
    for _ in range(3):
        model.terms(batch, generator())
    resumed = build(temperature=(2.0, 0.5), annealing=4)
    resumed.load_state_dict(model.state_dict())
    for _ in range(3):
        resumed.terms(batch, generator())
    resumed.eval().terms(batch, generator())
    assert taus == pytest.approx([2.0, 2**0.5, 1.0, 2**-0.5, 0.5, 0.5, 0.5])
    assert resumed.steps_taken == 6  # evaluation does not count


def test_every_parameter_gets_a_finite_gradient(build):
    model = build(initial=0.5)
    model.terms(batch_of(), generator()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_an_index_that_no_sequence_uses_is_called_back_by_a_finite_gradient(build):
    """Its share of the batch underflows to 0: once a NaN that ended training, then a slope of 0 that left it idle."""
    model = build(use=60.0)
    with torch.no_grad():
        model.inference.network[-1].weight.zero_()
        model.inference.network[-1].bias.copy_(torch.tensor([0.0, 0.0, -1000.0]))
    terms = model.terms(batch_of(), generator())
    expected = 60 * (-math.log(K) + (1000 + 3 * math.log(2)) / 3)  # -mean log q̄, q̄ = (1, 1, e^-1000) / 2
    torch.testing.assert_close(terms.penalties["use"], torch.full((6,), expected))
    (slope,) = torch.autograd.grad(terms.penalties["use"].mean(), model.inference.network[-1].bias, retain_graph=True)
    torch.testing.assert_close(slope, torch.tensor([10.0, 10.0, -20.0]))  # use × (q̄ - 1/K)
    terms.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": (0.0, 1.0)}, r"temperatures must be positive and finite, got \(0.0, 1.0\)"),
        ({"temperature": (1.0, math.nan)}, "temperatures must be positive"),
        ({"annealing": 0}, "annealing must last at least 1 step, got 0"),
        ({"use": -1.0}, "use must be a finite number of at least 0, got -1.0"),
        ({"naming": -1.0}, "naming must be a finite number of at least 0, got -1.0"),
    ],
)
def test_bad_options_are_refused(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_the_three_transformations_of_digits_are_told_apart_without_a_label():
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    training, held_out = (TransformationSequences(load_stills("digits", n).images) for n in ("train", "validation"))
    shape, networks = training.image_shape, (8, (8, 16), 64)
    model = WeaklySupervisedVAE(
        ConvEncoder(shape, *networks),
        ConvDecoder(shape, *networks),
        PotentialFlow(Potential(8, K, 16)),
        DiffusionPrior(K),
        Force(8, K),
        beta=0.1,
        inference=TransformationEncoder(shape, K, (8,), 32),
        annealing=150,
    )
    fit(model, lambda g: training.sample(32, 1, g), Schedule(300, 8e-3, warmup=20), progress=False)
    inferred = torch.cat([model.infer(held_out.batch(torch.arange(60), k).frames) for k in range(K)])
    assert match_transformations(inferred, torch.arange(K).repeat_interleave(60), K)[1] >= 0.95


# --- some labels --------------------------------------------------------------------------------------------------


def test_the_naming_term_is_the_cross_entropy_of_labelled_sequences_alone(build):
    model, batch = build(naming=20.0).eval(), batch_of()
    batch.labelled = torch.tensor([True, False, True, False, False, True])
    found = model.terms(batch, generator()).penalties["naming"]
    expected = 20 * F.cross_entropy(model.inference(batch.frames), batch.k, reduction="none")
    torch.testing.assert_close(found, torch.where(batch.labelled, expected, 0.0))


def test_labels_that_are_not_given_change_nothing(build):
    model, batch = build(naming=20.0).eval(), batch_of()
    batch.labelled = torch.tensor([True, False, True, False, False, True])
    loss = model.terms(batch, generator()).loss
    batch.k = torch.where(batch.labelled, batch.k, (batch.k + 1) % K)
    assert torch.equal(model.terms(batch, generator()).loss, loss)
    batch.k = (batch.k + 1) % K
    assert model.terms(batch, generator()).loss != loss


def test_without_a_labelled_sequence_the_term_is_zero(build):
    model, batch = build(naming=20.0).eval(), batch_of()
    assert not batch.labelled.any()
    assert not model.terms(batch, generator()).penalties["naming"].any()


def test_reordering_renames_and_changes_nothing_else(build):
    """A cyclic order: a swap is its own inverse, and would hide one that is taken the wrong way round."""
    model, batch, order = build().eval(), batch_of(), torch.tensor([1, 2, 0])
    z, k = torch.randn(6, LATENT), batch.k
    logits, path = model.inference(batch.frames), model.transport(z, order[k], T)
    prior = model.log_prior(path.z, torch.arange(T + 1).expand(6, -1), order[k])
    force = model.force(z, 1.0, order[k])
    loss = model.terms(batch, generator()).loss
    model.reorder(order)
    torch.testing.assert_close(model.inference(batch.frames), logits[:, order])
    torch.testing.assert_close(model.transport(z, k, T).z, path.z)
    torch.testing.assert_close(model.log_prior(path.z, torch.arange(T + 1).expand(6, -1), k), prior)
    torch.testing.assert_close(model.force(z, 1.0, k), force)
    assert model.terms(batch, generator()).kl_weight == 1.0
    assert loss.isfinite()


def test_after_reordering_by_the_matching_the_indices_are_the_true_ones(build):
    model, batch = build().eval(), batch_of(60, frames=None)
    inferred = model.infer(batch.frames)
    batch.k = torch.tensor([2, 0, 1])[inferred]  # as a model that is always right up to names would be told
    matching, share = match_transformations(inferred, batch.k, K)
    assert share == 1.0
    model.reorder(matching)
    assert torch.equal(model.infer(batch.frames), batch.k)


@pytest.mark.parametrize("order", [[0, 0, 1], [0, 1], [1, 2, 3]])
def test_an_order_that_is_no_permutation_is_refused(build, order):
    with pytest.raises(ValueError, match=r"indices must hold each of 0..2 once"):
        build().reorder(torch.tensor(order))
