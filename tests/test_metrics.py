"""Known answers for the equivariance error, its references, importance-weighted likelihoods, and inferred indices."""

import copy
import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny import SHAPE, encoder_and_decoder
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from poflow_lite import metrics
from poflow_lite.datasets import PAPER_TRANSFORMATIONS, ClipSequences, TransformationSequences
from poflow_lite.flows import DiffusionPrior, Flow, PushforwardPrior, with_exact_density
from poflow_lite.metrics import MedianFrame, equivariance_errors, log_likelihood, persistence, predict
from poflow_lite.models import VAE, FlowFactorizedVAE
from poflow_lite.objectives import LIKELIHOODS, gaussian_ceiling
from poflow_lite.operators import fit_operators, with_operator

PAIR = 1, 1, 2
pytestmark = pytest.mark.usefixtures("double")


def two_pixels(*images):
    return torch.tensor(images, dtype=torch.float64).view(-1, *PAIR)


@pytest.fixture
def sequences():
    return TransformationSequences(torch.rand(7, *SHAPE), horizon=3)


def moving_model(potential):
    return FlowFactorizedVAE(*encoder_and_decoder(potential.latent), Flow(potential), DiffusionPrior(3))


@pytest.fixture
def model(make_potential):
    """A random model of three transformations."""
    return moving_model(make_potential(4, 3))


def test_errors_by_hand_on_two_pixels(make_fading):
    """(1, ½) is halved twice: standing still errs by (½ + ¼) + (¾ + ⅜) = 1⅞; (0, ⅘) by 0.4 + 0.6 = 1."""
    sequences = make_fading(two_pixels((1.0, 0.5), (0.0, 0.8)))
    found = equivariance_errors({"no motion": persistence, "truth": lambda batch: batch.frames}, sequences)
    assert found["no motion"] == pytest.approx({"halve": (1.875 + 1) / 2, "still": 0})
    assert found["truth"] == {"halve": 0, "still": 0}
    alone = equivariance_errors({"": persistence}, sequences.first(1).in_turns())[""]
    assert alone == pytest.approx({"halve": 1.875, "still": math.nan}, nan_ok=True), "nothing is still, so nothing is 0"
    largest = equivariance_errors({"": persistence}, sequences, distance=lambda a, b: (a - b).abs().flatten(2).amax(2))
    assert largest[""] == pytest.approx({"halve": (0.5 + 0.75 + 0.4 + 0.6) / 2, "still": 0})
    with pytest.raises(ValueError, match=r"short must predict frames \(2, 3, 1, 1, 2\), got \(2, 2, 1, 1, 2\)"):
        equivariance_errors({"short": lambda batch: batch.frames[:, 1:]}, sequences)


def test_errors_do_not_depend_on_order_company_or_batch_size(sequences, model):
    off = {"off": lambda batch: torch.cat([0 * batch.frames[:, :1], batch.frames[:, 1:] - 0.5], 1)}
    predictors = {"no motion": persistence, "model": partial(predict, model), "median": MedianFrame(sequences), **off}
    found = equivariance_errors(predictors, sequences)
    backwards = equivariance_errors(dict(reversed(predictors.items())), sequences, batch_size=2)
    for name, predictor in predictors.items():
        alone = equivariance_errors({name: predictor}, sequences, batch_size=3)[name]
        assert found[name] == pytest.approx(alone, rel=1e-12)
        assert found[name] == pytest.approx(backwards[name], rel=1e-12)
    assert metrics.equivariance_error(model, sequences) == pytest.approx(found["model"])
    assert found["off"] == pytest.approx(dict.fromkeys(sequences.names, 0.5 * 3 * 4 * 4 * 3))  # in frames 1..3
    moves = sequences.transformations
    for chosen in (moves[::-1], *((own,) for own in moves)):  # each transformation by itself
        alone = equivariance_errors({"": persistence}, TransformationSequences(sequences.images, chosen, horizon=3))
        assert alone[""] == pytest.approx({own.name: found["no motion"][own.name] for own in chosen})


def test_clips_are_averaged_over_their_own_class():
    """Two clips of "rise", whose pixels change by 0.1 and 0.3, and one of "fall", by 0.2."""
    change = torch.tensor([0.1, -0.2, 0.3])
    clips = 0.5 + change[:, None, None, None, None] * torch.arange(2.0)[:, None, None, None].expand(-1, *PAIR)
    sequences = ClipSequences(clips, [0, 1, 0], ("rise", "fall"))
    assert [k for k, _ in metrics.every_sequence(sequences, batch_size=1)] == [0, 0, 1]
    found = equivariance_errors({"no motion": persistence, "median": MedianFrame(sequences)}, sequences)
    assert found["no motion"] == pytest.approx({"rise": 2 * 0.2, "fall": 2 * 0.2})
    assert found["median"] == pytest.approx({"rise": 2 * 0.1, "fall": 0})  # of two values the lower is the median


def test_random_starts_are_determined_by_the_seed_and_shared_by_all_predictors(sequences):
    wandering, seen = TransformationSequences(sequences.images, horizon=3, start="random"), {"a": [], "b": []}
    record = {name: lambda batch, name=name: seen[name].append(batch.frames) or persistence(batch) for name in seen}
    first = equivariance_errors(record, wandering, seed=1)
    assert all(torch.equal(*pair) for pair in zip(*seen.values(), strict=True))
    assert first["a"] == equivariance_errors({"a": persistence}, wandering, seed=1)["a"]
    assert first["a"] != equivariance_errors({"a": persistence}, wandering, seed=2)["a"]


def test_prediction_is_the_decoded_flow_of_the_posterior_mean_of_frame_zero(sequences, model):
    batch = sequences.batch(torch.tensor([4, 2]), torch.tensor([1, 0]))
    state, found, z = torch.get_rng_state(), predict(model, batch), model.encoder(batch.frames[:, 0])[:, :4]
    assert torch.equal(torch.get_rng_state(), state)  # no noise at evaluation
    for t in range(4):
        torch.testing.assert_close(found[:, t], torch.sigmoid(model.decoder(z)).detach())
        z = z + model.flow.field.velocity(z, float(t), torch.eye(3)[batch.k])
    other = replace(batch, frames=torch.cat([batch.frames[:, :1], torch.rand(2, 3, *SHAPE)], 1))
    assert torch.equal(predict(model, other), found)
    assert not torch.allclose(predict(model, replace(batch, k=batch.k.flip(0))), found)


def test_a_vae_predicts_that_nothing_moves_and_reconstruction_codes_each_frame_by_itself(sequences, model):
    batch, vae = sequences.batch(torch.tensor([0, 5]), 1), VAE(*encoder_and_decoder(4))
    found = predict(vae, batch)
    torch.testing.assert_close(found, metrics.reconstruct(vae, batch)[:, :1].expand_as(found))
    found = metrics.reconstruct(model, batch.frames[:, 1:])
    for t in range(3):
        mean = model.encoder(batch.frames[:, t + 1])[:, :4]
        torch.testing.assert_close(found[:, t], torch.sigmoid(model.decoder(mean)))


def test_median_frame_by_hand(make_fading):
    """Of the first three images, the middle value of each pixel, halved with k = 0 and kept with k = 1."""
    median = MedianFrame(make_fading(two_pixels((0.0, 0.9), (0.4, 0.3), (1.0, 0.6), (1.0, 1.0)), horizon=1), images=3)
    batch = make_fading(two_pixels((0.7, 0.7)), horizon=1).batch(torch.tensor([0, 0]), torch.tensor([1, 0]))
    expected = torch.tensor([[0.4, 0.6, 0.4, 0.6], [0.4, 0.6, 0.2, 0.3]])
    torch.testing.assert_close(median(batch).flatten(1), expected)


def test_smallest_eigenvalue_of_a_quadratic_flow(make_quadratic, sequences):
    model = moving_model(make_quadratic([[[0.5, 0], [0, 0.2]], [[0, 3], [3, 0]], [[-0.4, 0], [0, 0]]]))
    for k, expected in (([0, 1], 1 - 3), ([0, 2], 1 - 0.4)):
        batch = replace(sequences.batch(torch.tensor([0, 0]), 0), k=torch.tensor(k))
        assert metrics.smallest_eigenvalue(model, batch) == pytest.approx(expected)


IMAGES = two_pixels((1.0, 0.5), (0.0, 0.8), (0.3, 0.1), (0.9, 0.9))


@pytest.fixture
def linear_vae(monkeypatch):
    """x = a z + ε on two pixels with its exact posterior, and the exact log p(x) under a prior of variance v."""
    monkeypatch.setitem(LIKELIHOODS, "gaussian", lambda mean: Normal(mean, 1.0))
    encoder, decoder = (
        nn.Sequential(nn.Flatten(), nn.Linear(2, 2)),
        nn.Sequential(nn.Linear(1, 2), nn.Unflatten(1, PAIR)),
    )
    vae, a = VAE(encoder, decoder, likelihood="gaussian"), torch.tensor([0.8, -1.1])
    precision = 1 + a @ a
    vae.encoder[1].weight.data.copy_(torch.stack([a / precision, 0 * a]))
    vae.encoder[1].bias.data.copy_(torch.stack([0 * precision, -0.5 * precision.log()]))
    vae.decoder[0].weight.data.copy_(a[:, None])
    vae.decoder[0].bias.data.zero_()

    def exact(frames, variance=1.0):
        evidence = MultivariateNormal(torch.zeros(2), variance * torch.outer(a, a) + torch.eye(2))
        return evidence.log_prob(frames.flatten(-3))

    return vae, exact


@pytest.mark.parametrize("samples", [1, 7])
def test_with_the_exact_posterior_the_estimate_is_the_exact_evidence(linear_vae, make_fading, samples):
    vae, exact = linear_vae
    sequences = make_fading(IMAGES, names=("halve",))
    values = exact(sequences.batch(torch.arange(3), 0).frames).mean(1)
    found = log_likelihood(vae, sequences, images=3, samples=samples)
    assert found.frame["x_t"] == pytest.approx(values.mean().item(), abs=1e-9)
    assert found.standard_error["x_t"] == pytest.approx(values.std().item() / 3**0.5)
    assert (found.sequences, found.samples) == (3, samples)
    still = log_likelihood(vae, make_fading(IMAGES, names=("still",)), samples=samples)
    assert still.frame == pytest.approx(dict.fromkeys(("x_0", "x_t"), exact(IMAGES).mean().item()), abs=1e-9)
    assert still.pushed_frame == pytest.approx(still.frame["x_0"], abs=1e-9)


def test_with_another_proposal_the_estimate_approaches_the_exact_evidence(linear_vae, make_fading, make_quadratic):
    """For a VAE, and for a model that moves, whose prior at frame t has the variance 1 + 2 D t."""
    vae, exact = linear_vae
    sequences, flow = make_fading(IMAGES, names=("halve",)), Flow(make_quadratic([[[0.4]]], [[-0.3]]))
    frames = sequences.batch(torch.arange(4), 0).frames
    moving = FlowFactorizedVAE(vae.encoder, vae.decoder, flow, DiffusionPrior(1, 0.5), likelihood="gaussian")
    vae.encoder[1].bias.data.add_(torch.tensor([0.3, 0.2]))
    for model, spread in ((moving, 1.0), (vae, 0.0)):
        found = log_likelihood(model, sequences, samples=8000)
        expected = sum(exact(frames[:, t], 1 + spread * t).mean().item() for t in range(3)) / 3
        assert found.frame == pytest.approx({"x_0": expected, "x_t": expected}, abs=0.02)
    assert found.pushed_frame == pytest.approx(expected, abs=0.02), "a VAE's z_0 stays, as its prior does"
    missed = vae.decode(vae.encode(IMAGES).mean).mean[:, None] - frames[:, 1:]
    assert found.squared_error == pytest.approx(missed.square().sum().item() / 8, rel=1e-6)  # of 4 images in 2 frames


@pytest.mark.filterwarnings("error")
def test_a_perfect_decoder_reaches_the_ceiling_and_what_exceeds_it_is_an_error_of_its_own(make_fading):
    """Every image is grey ½, the decoder says so whatever z is, and q = p = N(0, I)."""
    vae, images = VAE(*encoder_and_decoder(), likelihood="gaussian"), torch.full((2, *SHAPE), 0.5)
    for parameter in vae.parameters():
        parameter.data.zero_()
    found = log_likelihood(vae, make_fading(images, names=("still",)), samples=5)
    assert found.ceiling == gaussian_ceiling(48) == pytest.approx(-24 * math.log(2 * math.pi))
    values = found.sequence, found.predictive, found.pushed_frame, *found.frame.values()
    assert values == pytest.approx((found.ceiling,) * 5, rel=1e-12)
    assert found.squared_error == 0
    darker = log_likelihood(vae, make_fading(images[:1] - 0.1, names=("still",)), samples=5)
    assert darker.sequence == pytest.approx(found.ceiling - 0.5 * 48 * 0.01, rel=1e-12)
    assert darker.predictive == pytest.approx(darker.sequence, rel=1e-12)
    assert darker.squared_error == pytest.approx(48 * 0.01)
    assert darker.standard_error["sequence"] == 0  # of one sequence
    honest, sequences = vae.log_prior, make_fading(images)
    vae.log_prior = lambda *arguments: honest(*arguments) + 5  # no density
    with pytest.raises(metrics.AboveCeiling, match=r"log-likelihood -.* is not below its ceiling of -44\.1"):
        log_likelihood(vae, sequences, samples=2)
    next(vae.parameters()).data.fill_(math.nan)
    with pytest.raises(metrics.AboveCeiling, match="log-likelihood nan is not below"):
        log_likelihood(vae, sequences, samples=2)


@pytest.mark.parametrize("log_det", ["none", "hutchinson"])
def test_likelihoods_are_those_of_the_exact_determinant_whichever_was_trained_with(sequences, model, log_det):
    measure = partial(log_likelihood, sequences=sequences, images=2, samples=3)
    trained = copy.deepcopy(model)
    trained.flow = Flow(trained.flow.field, log_det=log_det)
    own = with_operator(trained, fit_operators(trained, sequences, {})["flow"])
    assert measure(trained) == measure(own) == measure(model)
    z, k = torch.randn(2, 4), torch.tensor([0, 1])
    before, exact = trained.flow, with_exact_density(trained)
    assert exact.flow.rollout(z, k, range(3)).log_det.equal(model.flow.rollout(z, k, range(3)).log_det)
    assert (trained.flow, exact.flow.field) == (before, before.field), "the model itself is left as it was"
    assert with_exact_density(model) is model
    joint = FlowFactorizedVAE(*encoder_and_decoder(4), before, PushforwardPrior(before))
    exact = with_exact_density(joint)
    assert (exact.prior.flow, joint.prior.flow) == (exact.flow, before)


def test_log_likelihood_is_determined_by_its_seed_and_own_codes_are_optional(sequences, model):
    state, measure = torch.get_rng_state(), partial(log_likelihood, model, sequences, images=2, samples=3)
    first, second, other = (measure(seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert first == second
    assert first.sequence != other.sequence
    assert first.sequences == 6
    assert set(measure(own_codes=False).frame) == {"x_0"}
    for nothing in ({"samples": 0}, {"images": 0}):
        with pytest.raises(ValueError, match="at least 1 image and sample are needed, got"):
            measure(**nothing)


# --- the joint reading --------------------------------------------------------------------------------------------


@pytest.fixture
def joint(make_quadratic, monkeypatch):
    """x_t = A φ_t(z_0) + ε with affine φ_t: all of x is Gaussian. The encoder is near the posterior given x_0."""
    monkeypatch.setitem(LIKELIHOODS, "gaussian", lambda mean: Normal(mean, 1.0))
    flow = Flow(make_quadratic([[[0.2, 0.3], [-0.1, 0.1]], [[-0.3, 0.0], [0.0, 0.4]]], [[0.1, 0.5], [-0.7, 0.2]]))
    encoder, decoder = encoder_and_decoder()
    with torch.no_grad():
        decoder[0].weight.mul_(0.8)
        a, b = decoder[0].weight, decoder[0].bias
        posterior = torch.linalg.inv(torch.eye(2) + a.T @ a)
        encoder[1].weight.copy_(torch.cat([posterior @ a.T, 0 * a.T]))
        encoder[1].bias.copy_(torch.cat([-posterior @ a.T @ b, 0.5 * posterior.diagonal().log()]))
    model = FlowFactorizedVAE(encoder, decoder, flow, PushforwardPrior(flow), hamilton_jacobi=0, likelihood="gaussian")

    def exact(frames, k, given=0):
        """log p(x_0, …, x_T | k), or of the frames after the first ``given`` on condition of these."""
        matrix, shift, means, columns = torch.eye(2), torch.zeros(2), [], []
        step = torch.eye(2) + 0.5 * (flow.field.quadratic[k] + flow.field.quadratic[k].mT)
        for _ in range(frames.shape[1]):
            columns.append(a @ matrix)
            means.append(a @ shift + b)
            matrix, shift = step @ matrix, step @ shift + flow.field.linear[k, :, 0]

        def density(count):
            loading = torch.cat(columns[:count])
            covariance = loading @ loading.T + torch.eye(len(loading))
            return MultivariateNormal(torch.cat(means[:count]), covariance).log_prob(frames[:, :count].flatten(1))

        return density(len(means)) - (density(given) if given else 0.0)

    return model.eval(), exact


def test_the_sequence_likelihood_and_the_posterior_of_k_are_those_of_the_linear_gaussian_model(joint):
    model, exact = joint
    sequences = TransformationSequences(torch.rand(4, *SHAPE), PAPER_TRANSFORMATIONS[:2], horizon=2)
    batch = sequences.batch(torch.arange(4), torch.tensor([0, 1, 1, 0]))
    with torch.no_grad():
        expected = torch.stack([exact(batch.frames, k) for k in range(2)], 1)
    found = metrics.log_evidence(model, batch, 2, samples=30_000)
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)
    torch.testing.assert_close(found.softmax(1), expected.softmax(1), atol=0.03, rtol=0)
    each = [exact(sequences.batch(torch.arange(4), k).frames, k) for k in range(2)]
    measured = log_likelihood(model, sequences, samples=30_000)
    assert measured.sequence == pytest.approx(torch.cat(each).mean().item() / 3, abs=0.02)
    assert measured.frame == {}, "frames that share z_0 have no prior of their own"


def test_the_predictive_likelihood_is_the_conditional_one_where_the_encoder_is_the_posterior(joint):
    model, exact = joint
    sequences = TransformationSequences(torch.rand(4, *SHAPE), PAPER_TRANSFORMATIONS[:2], horizon=1)
    with torch.no_grad():  # orthogonal columns, so that the posterior is diagonal as the encoder's is
        model.decoder[0].weight.copy_(torch.linalg.qr(model.decoder[0].weight)[0])
        a, b = model.decoder[0].weight, model.decoder[0].bias
        model.encoder[1].weight.copy_(torch.cat([0.5 * a.T, 0 * a.T]))
        model.encoder[1].bias.copy_(torch.cat([-0.5 * a.T @ b, torch.full((2,), 0.5 * math.log(0.5))]))
    each = [exact(sequences.batch(torch.arange(4), k).frames, k, given=1) for k in range(2)]
    found = log_likelihood(model, sequences, samples=20_000)
    assert found.predictive == pytest.approx(torch.cat(each).mean().item(), abs=0.02)


def test_under_a_diffusing_prior_k_is_known_by_its_coefficient_alone(joint):
    """p(x_t | k) = ∫ p_t(z | k) p(x_t | z) dz: with equal D_k every frame is as likely under each k, whatever flows."""
    model, _ = joint
    model.prior = DiffusionPrior(2, 0.3)
    sequences = TransformationSequences(torch.rand(3, *SHAPE), PAPER_TRANSFORMATIONS[:2], horizon=2)
    clips = ClipSequences(sequences.batch(torch.arange(3), 0).frames, torch.zeros(3).long(), ["one"])

    def of_each_k():
        found = []
        for k in range(2):
            own = copy.copy(model)
            own.log_prior = lambda z, t, y, k=k: model.log_prior(z, t, torch.full((len(z),), k))
            found.append(log_likelihood(own, clips, samples=200).frame["x_t"])
        return found[1] - found[0]

    assert of_each_k() == 0
    assert metrics.log_evidence(model, clips.batch(torch.arange(3), 0), 2).diff(dim=1).abs().min() > 0.1
    model.prior.raw.data[1] += 3
    assert abs(of_each_k()) > 0.1


def test_matching_is_the_best_of_all_one_to_one_renamings():
    true = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2])
    for inferred, share in (([2, 2, 0, 0, 0, 1, 1, 1], 1.0), ([2, 2, 0, 0, 1, 1, 1, 0], 6 / 8)):
        names, agreed = metrics.match_transformations(torch.tensor(inferred), true, 3)
        assert (names.tolist(), agreed) == ([2, 0, 1], share)
    assert metrics.match_transformations(true.clamp(max=1), true, 3)[1] == 5 / 8  # two of them on one index
    inferred, true = torch.randint(4, (2, 200), generator=torch.Generator().manual_seed(0))
    best = max((torch.tensor(p)[true] == inferred).double().mean().item() for p in itertools.permutations(range(4)))
    names, share = metrics.match_transformations(inferred, true, 4)
    assert share == pytest.approx(best) == (names[true] == inferred).double().mean().item()
    with pytest.raises(ValueError, match=r"must both be \(N,\), got \(3,\) and \(4,\)"):
        metrics.match_transformations(torch.zeros(3).long(), torch.zeros(4).long(), 3)
    with pytest.raises(ValueError, match=r"indices must lie in 0..2, got 0 to 3"):
        metrics.match_transformations(torch.tensor([0, 3]), torch.tensor([0, 1]), 3)


@pytest.mark.parametrize(("names", "matching"), [(("halve", "still"), [0, 1]), (("still", "halve"), [1, 0])])
def test_clustering_is_right_up_to_names_or_at_chance(make_fading, names, matching):
    sequences = make_fading(0.1 + 0.9 * torch.rand(5, 3, 4, 4), names=names)
    namer = nn.Linear(1, 1)
    namer.infer = lambda frames: torch.isclose(frames[:, 0], frames[:, -1]).flatten(1).all(1).long()
    share, found = metrics.clustering_accuracy(namer, sequences, batch_size=2)
    assert (share, found.tolist()) == (1.0, matching)
    inferred, true = metrics.infer_all(namer, sequences)
    assert torch.equal(found[true], inferred)
    namer.infer = lambda frames: torch.ones(len(frames), dtype=torch.long)
    assert metrics.clustering_accuracy(namer, sequences)[0] == 0.5
