"""Known answers for the equivariance error, its references, and the importance-weighted log-likelihood."""

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from poflow_lite.datasets import TransformationSequences
from poflow_lite.flows import DiffusionPrior, PotentialFlow
from poflow_lite.metrics import (
    MedianFrame,
    autoencode,
    equivariance_error,
    equivariance_errors,
    index_accuracy,
    log_likelihood,
    match_transformations,
    no_motion,
    predict,
    smallest_eigenvalue,
)
from poflow_lite.models import VAE, FlowFactorizedVAE
from poflow_lite.objectives import LIKELIHOODS, gaussian_ceiling

SHAPE = (1, 1, 2)
pytestmark = pytest.mark.usefixtures("double")


def two_pixels(*images):
    return torch.tensor(images, dtype=torch.float64).view(-1, *SHAPE)


@pytest.fixture
def digits_like():
    return TransformationSequences(torch.rand(7, 3, 6, 6), horizon=3)


def linear_parts(shape, latent):
    pixels = math.prod(shape)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 2 * latent))
    return encoder, nn.Sequential(nn.Linear(latent, pixels), nn.Unflatten(1, shape))


def moving_model(potential, shape=SHAPE, **options):
    return FlowFactorizedVAE(
        *linear_parts(shape, potential.latent), PotentialFlow(potential), DiffusionPrior(3), **options
    )


@pytest.fixture
def model(make_potential):
    """A random model of three transformations on 3×6×6 images."""
    return moving_model(make_potential(4, 3), (3, 6, 6))


# --- equivariance error -------------------------------------------------------------------------------------------


def test_errors_by_hand_on_two_pixels(make_fading):
    """(1, ½) is halved twice: standing still errs by (½ + ¼) + (¾ + ⅜) = 1⅞; (0, ⅘) by 0.4 + 0.6 = 1."""
    sequences = make_fading(two_pixels((1.0, 0.5), (0.0, 0.8)))
    found = equivariance_errors({"no motion": no_motion, "truth": lambda batch: batch.frames}, sequences)
    assert found["no motion"] == pytest.approx({"halve": (1.875 + 1) / 2, "still": 0})
    assert found["truth"] == {"halve": 0, "still": 0}


def test_a_constant_offset_costs_one_unit_per_pixel_and_later_frame(digits_like):
    """Errors add up over pixels, channels and frames 1..T, not over frame 0, and are averaged over sequences."""
    found = equivariance_errors({"off": lambda batch: batch.frames - 0.5}, digits_like)["off"]
    assert found == pytest.approx(dict.fromkeys(("scale", "rotate", "hue"), 0.5 * 3 * 6 * 6 * 3))
    spoiled = equivariance_errors(
        {"first": lambda b: torch.cat([0 * b.frames[:, :1], b.frames[:, 1:]], 1)}, digits_like
    )
    assert spoiled["first"] == dict.fromkeys(("scale", "rotate", "hue"), 0)


def test_errors_do_not_depend_on_order_company_or_batch_size(digits_like, model):
    predictors = {"no motion": no_motion, "model": partial(predict, model), "median": MedianFrame(digits_like)}
    found = equivariance_errors(predictors, digits_like)
    backwards = equivariance_errors(dict(reversed(predictors.items())), digits_like, batch_size=2)
    for name, predictor in predictors.items():
        alone = equivariance_errors({name: predictor}, digits_like, batch_size=3)[name]
        assert found[name] == pytest.approx(alone, rel=1e-12)
        assert found[name] == pytest.approx(backwards[name], rel=1e-12)
    assert equivariance_error(model, digits_like) == pytest.approx(found["model"])


def test_each_transformation_is_measured_by_itself(digits_like):
    together = equivariance_errors({"no motion": no_motion}, digits_like)["no motion"]
    reverse = TransformationSequences(digits_like.images, digits_like.transformations[::-1], horizon=3)
    assert equivariance_errors({"no motion": no_motion}, reverse)["no motion"] == pytest.approx(together)
    for transformation in digits_like.transformations:
        alone = TransformationSequences(digits_like.images, (transformation,), horizon=3)
        assert equivariance_errors({"no motion": no_motion}, alone)["no motion"] == pytest.approx(
            {transformation.name: together[transformation.name]}
        )


def test_random_starts_are_determined_by_the_seed_and_shared_by_all_predictors(digits_like):
    wandering, seen = TransformationSequences(digits_like.images, horizon=3, start="random"), {"a": [], "b": []}

    def record(name, batch):
        seen[name].append(batch.frames)
        return no_motion(batch)

    first = equivariance_errors({name: partial(record, name) for name in seen}, wandering, seed=1)
    assert all(torch.equal(*pair) for pair in zip(*seen.values(), strict=True))
    assert first["a"] == equivariance_errors({"a": no_motion}, wandering, seed=1)["a"]
    assert first["a"] != equivariance_errors({"a": no_motion}, wandering, seed=2)["a"]


def test_a_predictor_of_another_shape_is_refused_by_name(digits_like):
    with pytest.raises(ValueError, match=r"short must predict frames \(7, 4, 3, 6, 6\), got \(7, 3, 3, 6, 6\)"):
        equivariance_errors({"short": lambda batch: batch.frames[:, 1:]}, digits_like)


# --- predictors ---------------------------------------------------------------------------------------------------


def test_prediction_looks_only_at_frame_zero_and_k(digits_like, model):
    batch = digits_like.batch(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))
    found, state = predict(model, batch), torch.get_rng_state()
    other = replace(batch, frames=torch.cat([batch.frames[:, :1], torch.rand(3, 3, 3, 6, 6)], 1))
    torch.set_rng_state(state)
    assert found.shape == batch.frames.shape
    assert not found.requires_grad
    assert torch.equal(predict(model, other), found)
    assert torch.equal(torch.get_rng_state(), state)  # no noise at evaluation
    assert not torch.allclose(predict(model, replace(batch, k=batch.k.flip(0))), found)


def test_prediction_is_the_decoded_flow_of_the_posterior_mean(digits_like, model):
    batch = digits_like.batch(torch.tensor([4, 2]), torch.tensor([1, 0]))
    z = model.encoder(batch.frames[:, 0])[:, :4]
    for t in range(4):
        torch.testing.assert_close(predict(model, batch)[:, t], torch.sigmoid(model.decoder(z)))
        z = z + model.flow.potential.gradient(z, float(t), batch.k)


def test_a_vae_predicts_that_nothing_moves(digits_like):
    batch, vae = digits_like.batch(torch.tensor([0, 5]), 1), VAE(*linear_parts((3, 6, 6), 4))
    found = predict(vae, batch)
    torch.testing.assert_close(found, found[:, :1].expand_as(found))
    torch.testing.assert_close(found[:, 0], autoencode(vae, batch)[:, 0])


def test_autoencoding_codes_every_frame_by_itself(digits_like, model):
    batch = digits_like.batch(torch.tensor([4, 2]), torch.tensor([1, 2]))
    found = autoencode(model, batch)
    for t in range(4):
        mean = model.encoder(batch.frames[:, t])[:, :4]
        torch.testing.assert_close(found[:, t], torch.sigmoid(model.decoder(mean)))


def test_median_frame_by_hand(make_fading):
    """Of three images, the middle value of each pixel, halved with k = 0 and kept with k = 1."""
    median = MedianFrame(make_fading(two_pixels((0.0, 0.9), (0.4, 0.3), (1.0, 0.6)), horizon=1))
    batch = make_fading(two_pixels((0.7, 0.7)), horizon=1).batch(torch.tensor([0, 0]), torch.tensor([1, 0]))
    assert median(batch).flatten(1).tolist() == [
        pytest.approx([0.4, 0.6, 0.4, 0.6]),
        pytest.approx([0.4, 0.6, 0.2, 0.3]),
    ]


def test_no_constant_prediction_beats_the_median_frame(digits_like):
    median = MedianFrame(digits_like)
    best = equivariance_errors({"median": median}, digits_like)["median"]
    mean = torch.stack([digits_like.batch(torch.arange(7), k).frames.mean(0) for k in range(3)])
    rivals = [mean, *(median.frames + 0.1 * torch.randn_like(median.frames) for _ in range(5))]
    for rival in rivals:
        score = equivariance_errors({"rival": lambda batch, rival=rival: rival[batch.k]}, digits_like)["rival"]
        assert all(score[name] > best[name] for name in best)


def test_median_frame_uses_the_first_images_only(digits_like):
    few = TransformationSequences(digits_like.images[:3], horizon=3)
    torch.testing.assert_close(MedianFrame(digits_like, images=3).frames, MedianFrame(few).frames)
    assert not torch.allclose(MedianFrame(digits_like).frames, MedianFrame(few).frames)


def test_smallest_eigenvalue_of_a_quadratic_flow(make_quadratic, make_fading):
    quadratic = [[[0.5, 0], [0, 0.2]], [[0, 3], [3, 0]], [[-0.4, 0], [0, 0]]]
    batch = make_fading(two_pixels((0.3, 0.4))).batch(torch.tensor([0, 0]), torch.tensor([0, 1]))
    model = moving_model(make_quadratic(quadratic))
    assert smallest_eigenvalue(model, batch) == pytest.approx(1 - 3)
    assert smallest_eigenvalue(model, replace(batch, k=torch.tensor([0, 2]))) == pytest.approx(1 - 0.4)


# --- log-likelihood -----------------------------------------------------------------------------------------------


@pytest.fixture
def linear_vae(monkeypatch):
    """x = a z + ε on two pixels with its exact posterior, and its exact log p(x)."""
    monkeypatch.setitem(LIKELIHOODS, "gaussian", lambda mean: Normal(mean, 1.0))
    vae, a = VAE(*linear_parts(SHAPE, 1), likelihood="gaussian"), torch.tensor([0.8, -1.1])
    precision = 1 + a @ a
    with torch.no_grad():
        vae.encoder[1].weight.copy_(torch.stack([a / precision, 0 * a]))
        vae.encoder[1].bias.copy_(torch.stack([0 * precision, -0.5 * precision.log()]))
        vae.decoder[0].weight.copy_(a[:, None])
        vae.decoder[0].bias.zero_()
    evidence = MultivariateNormal(torch.zeros(2), torch.outer(a, a) + torch.eye(2))
    return vae, lambda frames: evidence.log_prob(frames.flatten(-3))


IMAGES = ((1.0, 0.5), (0.0, 0.8), (0.3, 0.1), (0.9, 0.9))


@pytest.mark.parametrize("samples", [1, 7])
def test_with_the_exact_posterior_the_estimate_is_the_exact_evidence(linear_vae, make_fading, samples):
    vae, exact = linear_vae
    sequences = make_fading(two_pixels(*IMAGES), names=("halve",))
    values = exact(sequences.batch(torch.arange(3), 0).frames).mean(1)
    found = log_likelihood(vae, sequences, images=3, samples=samples)
    assert found.reconstruction == pytest.approx(values.mean().item(), abs=1e-9)
    assert found.standard_error["reconstruction"] == pytest.approx(values.std().item() / 3**0.5)
    assert (found.sequences, found.samples) == (3, samples)
    still = log_likelihood(vae, make_fading(two_pixels(*IMAGES), names=("still",)), samples=samples)
    exact_still = exact(two_pixels(*IMAGES)).mean().item()
    assert (still.prediction, still.reconstruction) == pytest.approx((exact_still, exact_still), abs=1e-9)


def test_with_another_proposal_the_estimate_approaches_the_exact_evidence(linear_vae, make_fading):
    vae, exact = linear_vae
    sequences = make_fading(two_pixels(*IMAGES), names=("halve",))
    expected = exact(sequences.batch(torch.arange(4), 0).frames).mean().item()
    with torch.no_grad():
        vae.encoder[1].bias.copy_(torch.tensor([0.6, 0.2]))
    found = log_likelihood(vae, sequences, samples=20_000)
    assert (found.prediction, found.reconstruction) == pytest.approx((expected, expected), abs=0.02)


def test_prediction_accounts_for_the_density_that_the_flow_carries(linear_vae, make_quadratic, make_fading):
    """A model that moves: exact log p(x_t | k) has the covariance (1 + 2 D t) a aᵀ + I at frame t."""
    vae, _ = linear_vae
    flow = PotentialFlow(make_quadratic([[[0.4]]], [[-0.3]]))
    model = FlowFactorizedVAE(vae.encoder, vae.decoder, flow, DiffusionPrior(1, 0.5), likelihood="gaussian")
    sequences, a = make_fading(two_pixels(*IMAGES), names=("halve",)), vae.decoder[0].weight.detach()[:, 0]
    frames, found = (
        sequences.batch(torch.arange(4), 0).frames.flatten(2),
        log_likelihood(model, sequences, samples=4000),
    )
    exact = [
        MultivariateNormal(torch.zeros(2), (1 + t) * torch.outer(a, a) + torch.eye(2)).log_prob(frames[:, t]).mean()
        for t in range(3)
    ]
    expected = torch.stack(exact).mean().item()
    assert (found.prediction, found.reconstruction) == pytest.approx((expected, expected), abs=0.02)


@pytest.fixture
def perfect():
    """Every image is grey ½, the decoder says so whatever z is, and q = p = N(0, I)."""
    vae = VAE(*linear_parts((3, 4, 4), 2), likelihood="gaussian")
    for parameter in vae.parameters():
        parameter.data.zero_()
    return vae, torch.full((2, 3, 4, 4), 0.5)


def test_a_perfect_decoder_reaches_the_ceiling_exactly(perfect, make_fading):
    vae, images = perfect
    found = log_likelihood(vae, make_fading(images, names=("still",)), samples=5)
    assert found.ceiling == gaussian_ceiling(48) == pytest.approx(-24 * math.log(2 * math.pi))
    assert (found.prediction, found.reconstruction) == pytest.approx((found.ceiling, found.ceiling), rel=1e-12)
    darker = log_likelihood(vae, make_fading(images - 0.1, names=("still",)), samples=5)
    assert darker.reconstruction == pytest.approx(found.ceiling - 0.5 * 48 * 0.01, rel=1e-12)


@pytest.mark.parametrize("name", ["prediction", "reconstruction"])
def test_an_estimate_above_the_ceiling_is_an_error_that_names_both(perfect, make_fading, monkeypatch, name):
    vae, images = perfect
    monkeypatch.setattr(f"poflow_lite.metrics._{name}", lambda *_: torch.tensor(gaussian_ceiling(48) + 3.0))
    with pytest.raises(RuntimeError, match=rf"{name} log-likelihood -41\.1 is not below its ceiling of -44\.1 nats"):
        log_likelihood(vae, make_fading(images), samples=2)


def test_a_prior_that_is_no_density_is_caught_by_the_ceiling(perfect, make_fading, monkeypatch):
    vae, images = perfect
    honest = vae.log_prior
    monkeypatch.setattr(vae, "log_prior", lambda *arguments: honest(*arguments) + 5)
    with pytest.raises(RuntimeError, match="is not below its ceiling"):
        log_likelihood(vae, make_fading(images), samples=2)


def test_log_likelihood_is_determined_by_its_seed(digits_like, model):
    state = torch.get_rng_state()
    first, second, other = (log_likelihood(model, digits_like, images=2, samples=3, seed=s) for s in (0, 0, 1))
    assert first == second
    assert first.prediction != other.prediction
    assert first.sequences == 6
    assert max(first.prediction, first.reconstruction) < first.ceiling
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("error")
def test_a_model_with_nan_weights_is_an_error_and_one_sequence_has_a_standard_error(perfect, make_fading):
    vae, images = perfect
    assert log_likelihood(vae, make_fading(images[:1], names=("still",)), samples=2).standard_error["prediction"] == 0
    with torch.no_grad():
        next(vae.parameters()).fill_(math.nan)
    with pytest.raises(RuntimeError, match="log-likelihood nan is not below"):
        log_likelihood(vae, make_fading(images), samples=2)


# --- which index is which -----------------------------------------------------------------------------------------


def test_matching_finds_a_renaming_and_counts_what_disagrees():
    true = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2])
    names, share = match_transformations(torch.tensor([2, 2, 0, 0, 0, 1, 1, 1]), true, 3)
    assert (names.tolist(), share) == ([2, 0, 1], 1.0)
    names, share = match_transformations(torch.tensor([2, 2, 0, 0, 1, 1, 1, 0]), true, 3)
    assert (names.tolist(), share) == ([2, 0, 1], 6 / 8)


def test_matching_is_one_to_one():
    """Two transformations on one index: only one of them can be right."""
    true = torch.arange(9) % 3
    names, share = match_transformations(torch.where(true == 2, 1, 0), true, 3)
    assert sorted(names.tolist()) == [0, 1, 2]
    assert share == pytest.approx(2 / 3)


def test_matching_agrees_with_all_permutations():
    generator = torch.Generator().manual_seed(0)
    inferred, true = (torch.randint(4, (200,), generator=generator) for _ in range(2))
    best = max((torch.tensor(p)[true] == inferred).double().mean().item() for p in itertools.permutations(range(4)))
    names, share = match_transformations(inferred, true, 4)
    assert share == pytest.approx(best)
    assert (names[true] == inferred).double().mean().item() == pytest.approx(best)


def test_indices_that_cannot_be_matched_are_refused():
    with pytest.raises(ValueError, match=r"must both be \(N,\), got \(3,\) and \(4,\)"):
        match_transformations(torch.zeros(3).long(), torch.zeros(4).long(), 3)
    with pytest.raises(ValueError, match=r"indices must lie in 0..2, got 0 to 3"):
        match_transformations(torch.tensor([0, 3]), torch.tensor([0, 1]), 3)


# --- inferred indices ---------------------------------------------------------------------------------------------


class Namer(nn.Module):
    """Calls a sequence 1 if its brightness stays, and otherwise 0; or gives every sequence one name."""

    def __init__(self, always=None):
        super().__init__()
        self.weight, self.always = nn.Parameter(torch.zeros(1)), always

    def infer(self, frames):
        stays = torch.isclose(frames[:, 0], frames[:, -1]).flatten(1).all(1).long()
        return stays if self.always is None else torch.full_like(stays, self.always)


@pytest.mark.parametrize(("names", "matching"), [(("halve", "still"), [0, 1]), (("still", "halve"), [1, 0])])
def test_index_accuracy_is_1_for_a_model_that_is_right_up_to_names(make_fading, names, matching):
    sequences = make_fading(0.1 + 0.9 * torch.rand(5, 3, 4, 4), names=names)
    share, found = index_accuracy(Namer(), sequences, batch_size=2)
    assert share == 1.0
    assert found.tolist() == matching


def test_index_accuracy_is_chance_for_a_model_that_has_one_name_for_all(make_fading):
    assert index_accuracy(Namer(always=1), make_fading(torch.rand(5, 3, 4, 4) * 0.9))[0] == 0.5


def test_one_estimate_of_the_likelihood_can_be_asked_for_alone(model, digits_like):
    alone = log_likelihood(model, digits_like, images=1, samples=3, estimates=["prediction"])
    assert alone.reconstruction is None
    assert set(alone.standard_error) == {"prediction"}
    assert alone.prediction < alone.ceiling
    with pytest.raises(ValueError, match="unknown estimate 'guess'; known: prediction, reconstruction"):
        log_likelihood(model, digits_like, images=1, samples=3, estimates=["guess"])
