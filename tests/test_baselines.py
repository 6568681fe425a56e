"""SlowVAE and FactorVAE: every term recomputed slowly, gradients kept where they belong, and learning."""

import math

import pytest
import torch
from tiny import SHAPE, encoder_and_decoder, generator
from torch.nn import functional as F

from poflow_lite.datasets import TransformationSequences, load_stills
from poflow_lite.models import FactorVAE, SlowVAE
from poflow_lite.models.factor import permute_dimensions
from poflow_lite.networks import ConvDecoder, ConvEncoder
from poflow_lite.objectives import gaussian_kl, laplace_transition_kl, total_correlation
from poflow_lite.training import Schedule, fit

LATENT, T = 3, 4
pytestmark = pytest.mark.usefixtures("double")


def batch_of(frames, consecutive=False, count=6):
    sequences = TransformationSequences(torch.rand(6, *SHAPE, generator=generator()), horizon=T)
    return sequences.sample(count, frames, generator(1), consecutive)


def cross_entropy(frame, logits):
    p = torch.sigmoid(logits)
    return (frame * p.log() + (1 - frame) * (1 - p).log()).sum()


# --- SlowVAE ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [2, 3])
def test_slow_terms_equal_a_slow_recomputation_of_each_sequence(frames):
    model, batch = SlowVAE(*encoder_and_decoder(LATENT), beta=0.5, rate=3.0, transition=2.0), batch_of(frames, True)
    terms, noise = model.terms(batch, generator()), torch.randn(6 * (frames + 1), LATENT, generator=generator())
    for b in range(6):
        reconstruction, kl, moved, before = 0.0, 0.0, 0.0, None
        for i, frame in enumerate(batch.frames[b]):
            mean, log_scale = model.encoder(frame[None])[0].chunk(2)
            z = mean + log_scale.exp() * noise[b * (frames + 1) + i]
            reconstruction = reconstruction + cross_entropy(frame, model.decoder(z[None])[0])
            if i < 2:  # frame 0, and the first of the run
                kl = kl + gaussian_kl(mean[None], log_scale.exp()[None])[0]
            else:
                moved = moved + laplace_transition_kl(mean[None], log_scale.exp()[None], before[None], 3.0)[0]
            before = z
        torch.testing.assert_close(terms.reconstruction[b], reconstruction / (frames + 1))
        torch.testing.assert_close(terms.kl[b], kl / (frames + 1))
        torch.testing.assert_close(terms.penalties["transition"][b], 2 * moved / (frames + 1))
    assert terms.kl_weight == 0.5


def test_slow_refuses_frames_that_do_not_follow_one_another():
    model = SlowVAE(*encoder_and_decoder(LATENT))
    batch = batch_of(2)
    batch.times[:, 1:] = torch.tensor([1, 3])
    with pytest.raises(ValueError, match=r"frames that follow one another.*got times \[0, 1, 3\]"):
        model.terms(batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "rate must be positive and finite, got 0.0"),
        ({"rate": math.inf}, "rate must be positive and finite, got inf"),
        ({"transition": -1.0}, "transition must be a finite number of at least 0, got -1.0"),
    ],
)
def test_bad_options_of_slow_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SlowVAE(*encoder_and_decoder(LATENT), **options)


# --- FactorVAE ----------------------------------------------------------------------------------------------------


def test_factor_terms_are_those_of_the_vae_and_two_more():
    model, batch = FactorVAE(*encoder_and_decoder(LATENT), LATENT, gamma=5.0, width=8), batch_of(2)
    terms, x = model.terms(batch, generator()), batch.frames.flatten(0, 1)
    draws = generator()
    mean, log_scale = model.encoder(x).chunk(2, 1)
    z = mean + log_scale.exp() * torch.randn(18, LATENT, generator=draws)
    torch.testing.assert_close(terms.kl, gaussian_kl(mean, log_scale.exp()))
    torch.testing.assert_close(terms.penalties["total_correlation"], 5 * total_correlation(model.critic(z)))
    permuted = permute_dimensions(z, draws)
    log_p = F.log_softmax(model.critic(torch.cat([z, permuted])), 1)
    torch.testing.assert_close(terms.penalties["critic"], -0.5 * (log_p[:18, 0] + log_p[18:, 1]))


def test_the_critic_and_the_model_send_each_other_no_gradient():
    model, batch = FactorVAE(*encoder_and_decoder(LATENT), LATENT, width=8), batch_of(2)

    def moved_by(name):
        model.zero_grad()
        model.terms(batch, generator()).penalties[name].mean().backward()
        return {n for n, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}

    assert moved_by("critic") == {name for name, _ in model.named_parameters() if name.startswith("critic")}
    assert moved_by("total_correlation") == {name for name, _ in model.named_parameters() if name.startswith("encoder")}


def test_permuted_dimensions_keep_their_values_and_lose_each_other():
    z = torch.randn(2000, 1, generator=generator()).expand(-1, 3)  # all dimensions equal
    permuted = permute_dimensions(z, generator(1))
    torch.testing.assert_close(permuted.sort(0).values, z.sort(0).values)
    assert torch.corrcoef(permuted.T).fill_diagonal_(0).abs().max() < 0.1
    assert torch.equal(permuted, permute_dimensions(z, generator(1)))


def test_a_trained_critic_estimates_the_total_correlation_of_a_gaussian():
    """-½ log(1 - ρ²) for ρ = 0.8: 0.51 nats."""
    torch.manual_seed(0)
    critic = FactorVAE(*encoder_and_decoder(2), 2, width=32).critic
    optimizer, draws = torch.optim.Adam(critic.parameters(), 3e-3), generator()

    def correlated(count):
        z = torch.randn(count, 2, generator=draws)
        return torch.stack([z[:, 0], 0.8 * z[:, 0] + 0.6 * z[:, 1]], 1)

    classes = torch.arange(2).repeat_interleave(512)
    for _ in range(400):
        z = correlated(512)
        optimizer.zero_grad()
        F.cross_entropy(critic(torch.cat([z, permute_dimensions(z, draws)])), classes).backward()
        optimizer.step()
    found = total_correlation(critic(correlated(20_000))).mean().item()
    assert found == pytest.approx(-0.5 * math.log(1 - 0.64), abs=0.1)


def test_a_negative_gamma_is_refused():
    with pytest.raises(ValueError, match="gamma must be a finite number of at least 0"):
        FactorVAE(*encoder_and_decoder(LATENT), LATENT, gamma=-2.0)


# --- both ---------------------------------------------------------------------------------------------------------

MODELS = {
    "slow": lambda *parts: SlowVAE(*parts),
    "factor": lambda encoder, decoder: FactorVAE(encoder, decoder, 8, gamma=2.0, width=32),
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_parameter_gets_a_finite_gradient(kind):
    model = MODELS[kind](*encoder_and_decoder(8))
    model.terms(batch_of(2, consecutive=True), generator()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", MODELS)
def test_every_model_overfits_a_few_sequences(kind):
    torch.set_default_dtype(torch.float32)
    digits = TransformationSequences(load_stills("digits", "train").images[:32], horizon=T)
    shape, channels = digits.image_shape, (8, 16)
    model = MODELS[kind](ConvEncoder(shape, 8, channels, 64), ConvDecoder(shape, 8, channels, 64))
    batch = digits.sample(32, 2, generator(), consecutive=True)
    history = fit(model, lambda _: batch, Schedule(80, 5e-3, warmup=5), log_every=1, progress=False)
    assert history[-1]["reconstruction"] > 0.4 * history[0]["reconstruction"]
