"""PoFlow: every term recomputed slowly, a plane wave, gradients, and learning."""

import math

import pytest
import torch
from tiny import SHAPE, encoder_and_decoder, generator
from torch.func import jacrev

from poflow_lite.datasets import TransformationSequences, load_stills
from poflow_lite.fields import FunctionPotential
from poflow_lite.flows import PotentialFlow
from poflow_lite.models import PoFlow, TransformationEncoder
from poflow_lite.networks import ConvDecoder, ConvEncoder
from poflow_lite.objectives import gaussian_kl
from poflow_lite.potentials import Potential
from poflow_lite.training import Schedule, fit

LATENT, T, K = 2, 4, 3
pytestmark = pytest.mark.usefixtures("double")
OPTIONS = {"beta": 0.4, "wave": 0.3, "initial": 0.7, "jacobian": 0.6, "naming": 0.9}


@pytest.fixture
def build(make_potential):
    def make(**options):
        classifier = TransformationEncoder(SHAPE, K, channels=(4,), hidden=6)
        flow = PotentialFlow(make_potential(LATENT, K, horizon=T))
        model = PoFlow(*encoder_and_decoder(LATENT), flow, classifier, **{**OPTIONS, **options})
        with torch.no_grad():
            model.raw_speed.copy_(torch.randn(K))
        return model

    return make


def batch_of(count=6, frames=2):
    sequences = TransformationSequences(torch.rand(count, *SHAPE, generator=generator()), horizon=T)
    return sequences.sample(count, frames, generator(1))


def test_terms_equal_a_slow_recomputation_of_each_sequence(build):
    model, batch, draws = build(), batch_of(), generator()
    terms = model.terms(batch, generator())
    noise = torch.randn(6, LATENT, generator=draws)
    frame, shown = torch.randint(T, (6,), generator=draws), torch.randint(1, 3, (6,), generator=draws)
    speed = torch.log1p(model.raw_speed.exp())
    for b in range(6):
        k = batch.k[b : b + 1]

        def u(z, t, k=k):
            return model.flow.potential.value(z[None], t[None], k)[0]

        mean, log_scale = model.encoder(batch.frames[b, :1])[0].chunk(2)
        z, wave = [mean + log_scale.exp() * noise[b]], 0.0
        for t in range(T):
            now = torch.tensor(float(t))
            z.append(z[-1] + torch.func.grad(u)(z[-1], now))
            second = torch.func.grad(torch.func.grad(u, 1), 1)(z[-2], now)
            wave = wave + (second - speed[k[0]] ** 2 * torch.trace(torch.func.hessian(u)(z[-2], now))) ** 2

        def image(point):
            return torch.sigmoid(model.decoder(point[None])[0])

        reconstruction, weights = 0.0, [1.0, T / 2, T / 2]
        for weight, t, x in zip(weights, batch.times[b], batch.frames[b], strict=True):
            p = image(z[t])
            reconstruction = reconstruction + weight * (x * p.log() + (1 - x) * (1 - p).log()).sum()
        torch.testing.assert_close(terms.reconstruction[b], reconstruction)
        torch.testing.assert_close(terms.kl[b], gaussian_kl(mean[None], log_scale.exp()[None])[0])
        torch.testing.assert_close(terms.penalties["wave"][b], 0.3 * wave)
        torch.testing.assert_close(terms.penalties["initial"][b], 0.7 * (z[1] - z[0]).square().sum())
        change = jacrev(image)(z[frame[b]]) @ (z[frame[b] + 1] - z[frame[b]])
        torch.testing.assert_close(terms.penalties["jacobian"][b], -0.6 * torch.log1p(change.square().sum()))
        pair = torch.stack([batch.frames[b, 0], image(z[batch.times[b, shown[b]]])])[None]
        named = model.classifier(pair)[0].log_softmax(0)[k[0]]
        torch.testing.assert_close(terms.penalties["naming"][b], -0.9 * named)


def test_a_plane_wave_has_no_residual_at_its_own_speed(build):
    """u = sin(w·z - c‖w‖t), moved along by its own gradient."""
    w, c = torch.tensor([0.6, -1.1]), 0.7

    class Wave(FunctionPotential):
        def second_time_derivative(self, z, t, k):
            return -((c * w.norm()) ** 2) * self.value(z, t, k)

    model = build()
    model.flow = PotentialFlow(Wave(lambda z, t: torch.sin(z @ w - c * w.norm() * t), 2))
    model.raw_speed = torch.nn.Parameter(torch.tensor([math.log(math.expm1(c))]))
    k = torch.zeros(5, dtype=torch.long)
    path = model.transport(torch.randn(5, 2), k, 3)
    assert model.residuals(path, k).abs().max() < 1e-12
    model.raw_speed.data += 1
    assert model.residuals(path, k).abs().max() > 0.1


def test_every_parameter_gets_a_finite_gradient(build):
    model = build()
    model.terms(batch_of(), generator()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("name", ["wave", "initial", "jacobian", "naming"])
def test_weights_must_be_finite_and_not_negative(build, name):
    with pytest.raises(ValueError, match=f"{name} must be a finite number of at least 0, got -1.0"):
        build(**{name: -1.0})


def test_it_overfits_a_few_sequences():
    torch.set_default_dtype(torch.float32)
    digits = TransformationSequences(load_stills("digits", "train").images[:32], horizon=T)
    shape, networks = digits.image_shape, (8, (8, 16), 64)
    classifier = TransformationEncoder(shape, K, (8,), 16)
    flow = PotentialFlow(Potential(8, K, 16, T))
    model = PoFlow(ConvEncoder(shape, *networks), ConvDecoder(shape, *networks), flow, classifier)
    batch = digits.sample(32, 2, generator())
    history = fit(model, lambda _: batch, Schedule(80, 5e-3, warmup=5), log_every=1, progress=False)
    assert history[-1]["loss"] < 0.4 * history[0]["loss"]
