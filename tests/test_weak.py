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
    torch.testing.assert_close(terms.penalties["use"], (50 * (used * (K * used).log()).sum()).expand(6))

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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": (0.0, 1.0)}, r"temperatures must be positive and finite, got \(0.0, 1.0\)"),
        ({"temperature": (1.0, math.nan)}, "temperatures must be positive"),
        ({"annealing": 0}, "annealing must last at least 1 step, got 0"),
        ({"use": -1.0}, "use must be a finite number of at least 0, got -1.0"),
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
