"""The Topographic VAE: rolls are exact, s is Student-t, terms are recomputed slowly, and it learns."""

import pytest
import torch
from scipy import stats
from tiny import SHAPE, encoder_and_decoder, generator
from torch import nn

from poflow_lite.datasets import TransformationSequences, load_stills
from poflow_lite.models import TopographicVAE
from poflow_lite.networks import ConvDecoder, ConvEncoder
from poflow_lite.objectives import gaussian_kl
from poflow_lite.training import Schedule, fit

LATENT, CAPSULES, T = 10, 2, 4
pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TopographicVAE(encoder_and_decoder(2 * LATENT)[0], encoder_and_decoder(LATENT)[1], LATENT, CAPSULES)


def batch_of(frames=3, consecutive=True):
    sequences = TransformationSequences(torch.rand(6, *SHAPE, generator=generator()), horizon=T)
    return sequences.sample(6, frames, generator(1), consecutive)


def test_a_roll_turns_each_capsule_by_itself(model):
    assert model.roll(torch.arange(10), 1).tolist() == [4, 0, 1, 2, 3, 9, 5, 6, 7, 8]
    assert torch.equal(model.roll(model.roll(torch.arange(10), 3), -3), torch.arange(10))
    assert torch.equal(model.roll(torch.arange(10), 5), torch.arange(10))  # all the way round


@pytest.mark.parametrize("places", [1, 2, -3])
def test_the_code_rolls_exactly_when_z_and_u_do(model, places):
    z, u = torch.randn(2, 7, LATENT)
    rolled = model.code(model.roll(z, places), model.roll(u.square(), places))
    torch.testing.assert_close(rolled, model.roll(model.code(z, u.square()), places), rtol=1e-12, atol=0)


def test_transport_is_the_roll_of_the_code_and_keeps_densities(model):
    z, k = torch.randn(5, 2 * LATENT), torch.tensor([0, 1, 2, 0, 1])
    path = model.transport(z, k, 3)
    start = model.code(*(half if i == 0 else half.square() for i, half in enumerate(z.chunk(2, 1))))
    for t in range(4):
        by_code = super(TopographicVAE, model).decode(model.roll(start, t)).mean
        torch.testing.assert_close(model.decode(path.z[:, t]).mean, by_code)
    assert torch.equal(path.log_det, torch.zeros(5, 3))
    times = torch.arange(4).expand(5, -1)
    density = model.log_prior(path.z, times, k)
    torch.testing.assert_close(density, density[:, :1].expand(-1, 4))
    torch.testing.assert_close(path.velocity, path.z.diff(dim=1))


@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_code_variables_are_student_t_with_as_many_degrees_of_freedom_as_neighbours(neighbours):
    """z / √(mean of m squared normals) is t-distributed by definition."""
    model = TopographicVAE(nn.Identity(), nn.Identity(), LATENT, CAPSULES, neighbours=neighbours, offset=0.0)
    draws = generator()
    z, u = (torch.randn(20_000, LATENT, generator=draws) for _ in range(2))
    s = model.code(z, u.square())[:, 3].detach().numpy()
    assert stats.kstest(s, "t", args=(neighbours,)).pvalue > 0.01
    assert stats.kstest(s, "norm").pvalue < 1e-6


def test_terms_equal_a_slow_recomputation(model):
    model.beta, batch = 0.3, batch_of()
    terms, noise = model.terms(batch, generator()), torch.randn(24, 2 * LATENT, generator=generator())

    def places(values):
        return values.view(CAPSULES, 5)

    for b in range(6):
        z, u = [], []
        for i in range(4):
            mean, log_scale = model.encoder(batch.frames[b, i][None])[0].chunk(2)
            both = mean + log_scale.exp() * noise[4 * b + i]
            z.append(places(both[:LATENT]))
            u.append(places(both[LATENT:]))
            torch.testing.assert_close(terms.kl[4 * b + i], gaussian_kl(mean[None], log_scale.exp()[None])[0])
        for i in range(4):
            window = [0] if i == 0 else [1, 2, 3]
            s = torch.empty(CAPSULES, 5)
            for c in range(CAPSULES):
                for d in range(5):
                    near = [u[m][c, (d + e - (i - m)) % 5] ** 2 for m in window for e in (-1, 0, 1)]
                    s[c, d] = (z[i][c, d] + model.offset) / (sum(near) / len(near) + 1e-6).sqrt()
            p, x = torch.sigmoid(model.decoder(s.view(1, LATENT))[0]), batch.frames[b, i]
            reconstruction = (x * p.log() + (1 - x) * (1 - p).log()).sum()
            torch.testing.assert_close(terms.reconstruction[4 * b + i], reconstruction)
    torch.testing.assert_close(terms.loss, (0.3 * terms.kl - terms.reconstruction).mean())


def test_every_parameter_gets_a_finite_gradient(model):
    model.terms(batch_of(), generator()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_bad_capsules_and_frames_are_refused(model):
    parts = nn.Identity(), nn.Identity()
    with pytest.raises(ValueError, match="latent must be a multiple of capsules, got 10 and 3"):
        TopographicVAE(*parts, 10, 3)
    for neighbours in (2, 7, -1):
        with pytest.raises(ValueError, match=f"odd number from 1 to the 5 places of a capsule, got {neighbours}"):
            TopographicVAE(*parts, 10, 2, neighbours=neighbours)
    batch = batch_of(2)
    batch.times[:, 1:] = torch.tensor([1, 4])
    with pytest.raises(ValueError, match=r"frames that follow one another.*got times \[0, 1, 4\]"):
        model.terms(batch)


def test_it_overfits_a_few_sequences():
    torch.set_default_dtype(torch.float32)
    digits = TransformationSequences(load_stills("digits", "train").images[:32], horizon=T)
    shape, networks = digits.image_shape, ((8, 16), 64)
    model = TopographicVAE(ConvEncoder(shape, 40, *networks), ConvDecoder(shape, 20, *networks), 20, 2)
    batch = digits.sample(32, 2, generator(), consecutive=True)
    history = fit(model, lambda _: batch, Schedule(120, 5e-3, warmup=5), log_every=1, progress=False)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
