"""Known answers for the equivariance error, its references, importance-weighted likelihoods, and inferred indices."""

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from poflow_lite import metrics
from poflow_lite.datasets import ClipSequences, TransformationSequences
from poflow_lite.flows import DiffusionPrior, Flow
from poflow_lite.metrics import MedianFrame, equivariance_errors, log_likelihood, persistence, predict
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
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 2 * latent))
    return encoder, nn.Sequential(nn.Linear(latent, math.prod(shape)), nn.Unflatten(1, shape))


def moving_model(potential, shape=SHAPE):
    return FlowFactorizedVAE(*linear_parts(shape, potential.latent), Flow(potential), DiffusionPrior(3))


@pytest.fixture
def model(make_potential):
    """A random model of three transformations on 3×6×6 images."""
    return moving_model(make_potential(4, 3), (3, 6, 6))


# --- equivariance error -------------------------------------------------------------------------------------------


def test_errors_by_hand_on_two_pixels(make_fading):
    """(1, ½) is halved twice: standing still errs by (½ + ¼) + (¾ + ⅜) = 1⅞; (0, ⅘) by 0.4 + 0.6 = 1."""
    sequences = make_fading(two_pixels((1.0, 0.5), (0.0, 0.8)))
    predictors = {"no motion": persistence, "truth": lambda batch: batch.frames}
    found = equivariance_errors(predictors, sequences)
    assert found["no motion"] == pytest.approx({"halve": (1.875 + 1) / 2, "still": 0})
    assert found["truth"] == {"halve": 0, "still": 0}
    squares = equivariance_errors(predictors, sequences, distance=lambda a, b: (a - b).square().flatten(2).sum(2))
    by_hand = (0.25 + 0.0625 + 0.5625 + 0.140625 + 0.16 + 0.36) / 2
    assert squares["no motion"] == pytest.approx({"halve": by_hand, "still": 0})


def test_errors_add_up_over_later_frames_and_are_averaged_over_sequences(digits_like):
    predictors = {
        "off": lambda batch: batch.frames - 0.5,
        "first": lambda batch: torch.cat([0 * batch.frames[:, :1], batch.frames[:, 1:]], 1),
    }
    found, names = equivariance_errors(predictors, digits_like), ("scale", "rotate", "hue")
    assert found["off"] == pytest.approx(dict.fromkeys(names, 0.5 * 3 * 6 * 6 * 3))
    assert found["first"] == dict.fromkeys(names, 0)


def test_errors_do_not_depend_on_order_company_or_batch_size(digits_like, model):
    predictors = {"no motion": persistence, "model": partial(predict, model), "median": MedianFrame(digits_like)}
    found = equivariance_errors(predictors, digits_like)
    backwards = equivariance_errors(dict(reversed(predictors.items())), digits_like, batch_size=2)
    for name, predictor in predictors.items():
        alone = equivariance_errors({name: predictor}, digits_like, batch_size=3)[name]
        assert found[name] == pytest.approx(alone, rel=1e-12)
        assert found[name] == pytest.approx(backwards[name], rel=1e-12)
    assert metrics.equivariance_error(model, digits_like) == pytest.approx(found["model"])


def test_each_transformation_is_measured_by_itself(digits_like):
    together, moves = equivariance_errors({"": persistence}, digits_like)[""], digits_like.transformations
    for chosen in (moves[::-1], *((own,) for own in moves)):
        found = equivariance_errors({"": persistence}, TransformationSequences(digits_like.images, chosen, horizon=3))
        assert found[""] == pytest.approx({own.name: together[own.name] for own in chosen})


def test_clips_are_averaged_over_their_own_class():
    """Two clips of "rise", whose pixels change by 0.1 and 0.3, and one of "fall", by 0.2."""
    change = torch.tensor([0.1, -0.2, 0.3])
    clips = 0.5 + change[:, None, None, None, None] * torch.arange(2.0)[:, None, None, None].expand(-1, *SHAPE)
    sequences = ClipSequences(clips, [0, 1, 0], ("rise", "fall"))
    assert [k for k, _ in metrics.every_sequence(sequences, batch_size=1)] == [0, 0, 1]
    predictors = {"no motion": persistence, "median": MedianFrame(sequences)}
    found = equivariance_errors(predictors, sequences)
    assert found["no motion"] == pytest.approx({"rise": 2 * 0.2, "fall": 2 * 0.2})
    assert found["median"] == pytest.approx({"rise": 2 * 0.1, "fall": 0})  # of two values the lower is the median


def test_random_starts_are_determined_by_the_seed_and_shared_by_all_predictors(digits_like):
    wandering, seen = TransformationSequences(digits_like.images, horizon=3, start="random"), {"a": [], "b": []}

    def record(name, batch):
        seen[name].append(batch.frames)
        return persistence(batch)

    first = equivariance_errors({name: partial(record, name) for name in seen}, wandering, seed=1)
    assert all(torch.equal(*pair) for pair in zip(*seen.values(), strict=True))
    assert first["a"] == equivariance_errors({"a": persistence}, wandering, seed=1)["a"]
    assert first["a"] != equivariance_errors({"a": persistence}, wandering, seed=2)["a"]


def test_a_predictor_of_another_shape_is_refused_by_name(digits_like):
    with pytest.raises(ValueError, match=r"short must predict frames \(7, 4, 3, 6, 6\), got \(7, 3, 3, 6, 6\)"):
        equivariance_errors({"short": lambda batch: batch.frames[:, 1:]}, digits_like)


# --- predictors ---------------------------------------------------------------------------------------------------


def test_prediction_is_the_decoded_flow_of_the_posterior_mean_of_frame_zero(digits_like, model):
    batch = digits_like.batch(torch.tensor([4, 2]), torch.tensor([1, 0]))
    state, found, z = torch.get_rng_state(), predict(model, batch), model.encoder(batch.frames[:, 0])[:, :4]
    assert torch.equal(torch.get_rng_state(), state)  # no noise at evaluation
    assert not found.requires_grad
    for t in range(4):
        torch.testing.assert_close(found[:, t], torch.sigmoid(model.decoder(z)))
        z = z + model.flow.field.velocity(z, float(t), torch.eye(3)[batch.k])
    other = replace(batch, frames=torch.cat([batch.frames[:, :1], torch.rand(2, 3, 3, 6, 6)], 1))
    assert torch.equal(predict(model, other), found)
    assert not torch.allclose(predict(model, replace(batch, k=batch.k.flip(0))), found)


def test_a_vae_predicts_that_nothing_moves_and_reconstruction_codes_each_frame_by_itself(digits_like, model):
    batch, vae = digits_like.batch(torch.tensor([0, 5]), 1), VAE(*linear_parts((3, 6, 6), 4))
    found = predict(vae, batch)
    torch.testing.assert_close(found, metrics.reconstruct(vae, batch)[:, :1].expand_as(found))
    found = metrics.reconstruct(model, batch.frames[:, 1:])
    for t in range(3):
        mean = model.encoder(batch.frames[:, t + 1])[:, :4]
        torch.testing.assert_close(found[:, t], torch.sigmoid(model.decoder(mean)))


def test_median_frame_by_hand(make_fading):
    """Of three images, the middle value of each pixel, halved with k = 0 and kept with k = 1."""
    median = MedianFrame(make_fading(two_pixels((0.0, 0.9), (0.4, 0.3), (1.0, 0.6), (1.0, 1.0)), horizon=1), images=3)
    batch = make_fading(two_pixels((0.7, 0.7)), horizon=1).batch(torch.tensor([0, 0]), torch.tensor([1, 0]))
    expected = torch.tensor([[0.4, 0.6, 0.4, 0.6], [0.4, 0.6, 0.2, 0.3]])
    torch.testing.assert_close(median(batch).flatten(1), expected)


def test_no_constant_prediction_beats_the_median_frame(digits_like):
    median = MedianFrame(digits_like)
    best = equivariance_errors({"median": median}, digits_like)["median"]
    mean = torch.stack([digits_like.batch(torch.arange(7), k).frames.mean(0) for k in range(3)])
    for rival in (mean, *(median.frames + 0.1 * torch.randn_like(median.frames) for _ in range(5))):
        score = equivariance_errors({"rival": lambda batch, rival=rival: rival[batch.k]}, digits_like)["rival"]
        assert all(score[name] > best[name] for name in best)


def test_smallest_eigenvalue_of_a_quadratic_flow(make_quadratic, make_fading):
    quadratic = [[[0.5, 0], [0, 0.2]], [[0, 3], [3, 0]], [[-0.4, 0], [0, 0]]]
    batch = make_fading(two_pixels((0.3, 0.4))).batch(torch.tensor([0, 0]), torch.tensor([0, 1]))
    model = moving_model(make_quadratic(quadratic))
    assert metrics.smallest_eigenvalue(model, batch) == pytest.approx(1 - 3)
    assert metrics.smallest_eigenvalue(model, replace(batch, k=torch.tensor([0, 2]))) == pytest.approx(1 - 0.4)


# --- log-likelihood -----------------------------------------------------------------------------------------------

IMAGES = ((1.0, 0.5), (0.0, 0.8), (0.3, 0.1), (0.9, 0.9))


@pytest.fixture
def linear_vae(monkeypatch):
    """x = a z + ε on two pixels with its exact posterior, and the exact log p(x) under a prior of variance v."""
    monkeypatch.setitem(LIKELIHOODS, "gaussian", lambda mean: Normal(mean, 1.0))
    vae, a = VAE(*linear_parts(SHAPE, 1), likelihood="gaussian"), torch.tensor([0.8, -1.1])
    precision = 1 + a @ a
    with torch.no_grad():
        vae.encoder[1].weight.copy_(torch.stack([a / precision, 0 * a]))
        vae.encoder[1].bias.copy_(torch.stack([0 * precision, -0.5 * precision.log()]))
        vae.decoder[0].weight.copy_(a[:, None])
        vae.decoder[0].bias.zero_()

    def exact(frames, variance=1.0):
        evidence = MultivariateNormal(torch.zeros(2), variance * torch.outer(a, a) + torch.eye(2))
        return evidence.log_prob(frames.flatten(-3))

    return vae, exact


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


def test_with_another_proposal_the_estimate_approaches_the_exact_evidence(linear_vae, make_fading, make_quadratic):
    """For a VAE, and for a model that moves, whose prior at frame t has the variance 1 + 2 D t."""
    vae, exact = linear_vae
    sequences = make_fading(two_pixels(*IMAGES), names=("halve",))
    frames = sequences.batch(torch.arange(4), 0).frames
    flow = Flow(make_quadratic([[[0.4]]], [[-0.3]]))
    moving = FlowFactorizedVAE(vae.encoder, vae.decoder, flow, DiffusionPrior(1, 0.5), likelihood="gaussian")
    with torch.no_grad():
        vae.encoder[1].bias.add_(torch.tensor([0.3, 0.2]))
    for model, spread in ((vae, 0.0), (moving, 1.0)):
        found = log_likelihood(model, sequences, samples=8000)
        expected = sum(exact(frames[:, t], 1 + spread * t).mean().item() for t in range(3)) / 3
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


@pytest.mark.filterwarnings("error")
def test_what_no_density_can_reach_is_an_error_of_its_own(perfect, make_fading, monkeypatch):
    vae, images = perfect
    assert log_likelihood(vae, make_fading(images[:1], names=("still",)), samples=2).standard_error["prediction"] == 0
    honest, sequences = vae.log_prior, make_fading(images)
    vae.log_prior = lambda *arguments: honest(*arguments) + 5  # no density
    for name in ("prediction", "reconstruction"):
        message = rf"{name} log-likelihood -.* is not below its ceiling of -44\.1 nats"
        with pytest.raises(metrics.AboveCeiling, match=message):
            log_likelihood(vae, sequences, samples=2, estimates=[name])
    vae.log_prior = honest
    next(vae.parameters()).data.fill_(math.nan)
    with pytest.raises(metrics.AboveCeiling, match="log-likelihood nan is not below"):
        log_likelihood(vae, sequences, samples=2)


def test_log_likelihood_is_determined_by_its_seed_and_may_be_one_of_the_two(digits_like, model):
    state = torch.get_rng_state()
    first, second, other = (log_likelihood(model, digits_like, images=2, samples=3, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert first == second
    assert first.prediction != other.prediction
    assert first.sequences == 6
    assert max(first.prediction, first.reconstruction) < first.ceiling
    alone = log_likelihood(model, digits_like, images=2, samples=3, estimates=["prediction"])
    assert (alone.prediction, alone.reconstruction) == (first.prediction, None) or alone.prediction < alone.ceiling
    assert set(alone.standard_error) == {"prediction"}
    with pytest.raises(ValueError, match="unknown estimate 'guess'; known: prediction, reconstruction"):
        log_likelihood(model, digits_like, images=1, samples=3, estimates=["guess"])


# --- which index is which -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inferred", "true", "matching", "share"),
    [
        ([2, 2, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 2, 2, 2], [2, 0, 1], 1.0),
        ([2, 2, 0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 1, 2, 2, 2], [2, 0, 1], 6 / 8),
        ([0, 0, 1, 0, 0, 1, 0, 0, 1], [0, 1, 2, 0, 1, 2, 0, 1, 2], None, 2 / 3),  # one to one: one of two is right
    ],
)
def test_matching_finds_a_renaming_and_counts_what_disagrees(inferred, true, matching, share):
    found, agreed = metrics.match_transformations(torch.tensor(inferred), torch.tensor(true), 3)
    assert agreed == pytest.approx(share)
    assert sorted(found.tolist()) == [0, 1, 2]
    assert matching in (None, found.tolist())


def test_matching_agrees_with_all_permutations():
    inferred, true = torch.randint(4, (2, 200), generator=torch.Generator().manual_seed(0))
    best = max((torch.tensor(p)[true] == inferred).double().mean().item() for p in itertools.permutations(range(4)))
    names, share = metrics.match_transformations(inferred, true, 4)
    assert share == pytest.approx(best)
    assert (names[true] == inferred).double().mean().item() == pytest.approx(best)


def test_indices_that_cannot_be_matched_are_refused():
    with pytest.raises(ValueError, match=r"must both be \(N,\), got \(3,\) and \(4,\)"):
        metrics.match_transformations(torch.zeros(3).long(), torch.zeros(4).long(), 3)
    with pytest.raises(ValueError, match=r"indices must lie in 0..2, got 0 to 3"):
        metrics.match_transformations(torch.tensor([0, 3]), torch.tensor([0, 1]), 3)


class Namer(nn.Module):
    """Calls a sequence 1 if its brightness stays, and otherwise 0; or gives every sequence one name."""

    def __init__(self, always=None):
        super().__init__()
        self.weight, self.always = nn.Parameter(torch.zeros(1)), always

    def infer(self, frames):
        stays = torch.isclose(frames[:, 0], frames[:, -1]).flatten(1).all(1).long()
        return stays if self.always is None else torch.full_like(stays, self.always)


@pytest.mark.parametrize(("names", "matching"), [(("halve", "still"), [0, 1]), (("still", "halve"), [1, 0])])
def test_clustering_is_right_up_to_names_or_at_chance(make_fading, names, matching):
    sequences = make_fading(0.1 + 0.9 * torch.rand(5, 3, 4, 4), names=names)
    share, found = metrics.clustering_accuracy(Namer(), sequences, batch_size=2)
    assert (share, found.tolist()) == (1.0, matching)
    assert metrics.clustering_accuracy(Namer(always=1), sequences)[0] == 0.5
    inferred, true = metrics.infer_all(Namer(), sequences)
    assert torch.equal(found[true], inferred)
