"""Every public function of the mathematics at drawn shapes, dtypes and edge values.

It is finite, as are its slopes, or a ValueError; treats each sample by itself; keeps the dtype; has its identities.
"""

import ast
import functools
import itertools
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from draws import normal, rng
from hypothesis import given, settings
from hypothesis import strategies as st
from random_fields import FIELDS, make
from scipy.optimize import linear_sum_assignment
from tiny import SHAPE, encoder_and_decoder

from poflow_lite import datasets, densities, fields, flows, metrics, objectives, transport
from poflow_lite.datasets import TransformationSequences
from poflow_lite.densities import FokkerPlanck, Grid
from poflow_lite.fields import AutogradPotential, DeepUnits, Force, Potential, mixing_weights, time_features
from poflow_lite.flows import LOG_DETS, METHODS, DiffusionPrior, Flow, NotInvertible, PushforwardPrior, StaticPrior
from poflow_lite.models import FlowFactorizedVAE, InferredFlowVAE
from poflow_lite.models.inferred import SpikeAndSlab
from poflow_lite.objectives import LIKELIHOODS

approx, close = pytest.approx, torch.testing.assert_close
SIGNED = st.sampled_from([0.0, -0.0, 1e-30, 1e-3, -1e-3, -0.5, 1.0, -16.0, 20.0, 1e3, -1e3]) | st.floats(
    -4, 4, width=32
)
POSITIVE = st.sampled_from([1e-6, 1e-3, 1.0, 20.0, 1e3]) | st.floats(0.125, 4, width=32)
ELEMENTS = {"": SIGNED, "+": POSITIVE, "%": st.sampled_from([0.0, 1.0, 0.5, 1e-6])}
few = settings(max_examples=5)


@st.composite
def samples(draw, *specs):
    """Tensors of one batch and one dtype: "B2d+" is (B, 2, d) of positive numbers, "%" of shares."""
    sizes, dtype = {"B": draw(st.integers(1, 4)), "d": draw(st.integers(1, 3))}, draw(st.sampled_from(DTYPES))
    found = []
    for spec in specs:
        letters, kind = re.fullmatch(r"(\w+)([+%]?)", spec).groups()
        shape = [sizes.get(letter) or int(letter) for letter in letters]
        count = math.prod(shape)
        values = draw(st.lists(ELEMENTS[kind], min_size=count, max_size=count))
        found.append(torch.tensor(values, dtype=dtype).reshape(shape))
    return found


DTYPES = torch.float32, torch.float64


@functools.cache
def field(kind, latent, dtype):
    return make(kind, latent, 2).to(dtype)


def of_field(kind, method):
    return lambda z, y, t, *e: getattr(field(kind, z.shape[1], z.dtype), method)(z, t % 8, y, *e)


def along(quantity, **options):
    """A quantity of the trajectory of two steps, under weights small enough to fold nothing."""

    def measure(z, y):
        flow = Flow(field("potential", z.shape[1], z.dtype), **options)
        return quantity(flow, flow.rollout(z, 1e-3 * y.clamp(-2, 2), (0, 1, 2.5), rng()))

    return measure


def of_pixels(name, read):
    """Logits and pixels (B, d) as images of one row."""
    images = lambda x: x[:, None, None]  # noqa: E731
    return lambda logits, x: read(objectives.likelihood(name, images(logits)), images(x)).flatten(1).squeeze(1)


def mixture(z, scales, weights):
    """The density of a mixture whose last component has weight 0."""
    means = torch.stack([torch.zeros_like(z[0]), torch.ones_like(z[0]), 1e3 + torch.zeros_like(z[0])])
    return densities.gaussian_mixture(means, scales[:3].expand(3), torch.cat([weights.new_tensor([1.0, 1e-30, 0.0])]))


PRIOR = DiffusionPrior(2).double()
PER_SAMPLE = {
    "gaussian_kl": (objectives.gaussian_kl, "Bd", "Bd+"),
    "gaussian_kl, own variance": (objectives.gaussian_kl, "Bd", "Bd+", "B1+"),
    "laplace_transition_kl": (lambda *args: objectives.laplace_transition_kl(*args, 2.0), "Bd", "Bd+", "Bd"),
    "diagonal_normal": (lambda m, s, z: objectives.diagonal_normal(m, s).log_prob(z), "Bd", "Bd+", "Bd"),
    "total_correlation": (objectives.total_correlation, "B2"),
    "importance_weighted_log_likelihood": (lambda w: objectives.importance_weighted_log_likelihood(w, 1), "Bd"),
    "hamilton_jacobi_residual": (objectives.hamilton_jacobi_residual, "B", "Bd", "B"),
    "wave_residual": (objectives.wave_residual, "B", "B", "B"),
    "Terms": (lambda r, kl, p: objectives.Terms(r, kl, 2.0, {"p": p}).elbo, "B", "B", "B"),
    **{f"likelihood {n}": (of_pixels(n, lambda p, x: p.log_prob(x)[:, None]), "Bd", "Bd%") for n in LIKELIHOODS},
    **{f"mean of {n}": (of_pixels(n, lambda p, x: p.mean), "Bd", "Bd") for n in LIKELIHOODS},
    "ContinuousBernoulli": (lambda logits, x: objectives.ContinuousBernoulli(logits).log_prob(x), "Bd", "Bd%"),
    "gaussian_mixture": (lambda z: mixture(z, z.new_ones(3), z).log_prob(z), "Bd"),
    "score": (lambda z: densities.score(mixture(z, z.new_ones(3), z).log_prob, z), "Bd"),
    "euler_maruyama": (lambda z: densities.euler_maruyama(lambda z, t: -z, z, 0.0, 0.1, 2, rng()), "Bd"),
    "hopf_lax": (lambda z: transport.hopf_lax(z.new_tensor([0, 2]), z.new_zeros(2, z.shape[1]), z, 0.5), "Bd"),
    "kinetic_energy": (transport.kinetic_energy, "B3d"),
    "time_features": (lambda t: time_features(t, 8, 2, 1), "B"),
    "mixing_weights": (lambda y: mixing_weights(y, 2), "B2"),
    "Force": (lambda z, y, t: FORCE.to(z.dtype)(z.repeat(1, 3)[:, :3], t, y), "Bd", "B2", "B+"),
    **{
        f"{method} of {kind}": (of_field(kind, method), "Bd", "B2", "B+", *["Bd"][: method == "jvp"])
        for kind, method in itertools.product(FIELDS, ("velocity", "jacobian", "divergence", "jvp"))
    },
    **{
        f"{method} of {kind}": (of_field(kind, method), "Bd", "B2", "B+")
        for kind in ("potential", "function", "2 layers")
        for method in ("value", "time_derivative", "second_time_derivative")
    },
    **{f"rollout {m}": (along(lambda flow, path: path.z, method=m, substeps=2), "Bd", "B2") for m in METHODS},
    **{
        f"log-det {name}": (along(lambda flow, path: path.log_det, method="midpoint", log_det=name), "Bd", "B2")
        for name in [n for n in LOG_DETS if n != "hutchinson"]  # its draws belong to the batch
    },
    "residuals": (along(lambda flow, path: flow.residuals(path)), "Bd", "B2"),
    "smallest_eigenvalue": (along(lambda flow, path: flow.smallest_eigenvalue(path)), "Bd", "B2"),
    "Trajectory": (along(lambda flow, path: path.log_density(path.z[:, 0, 0])), "Bd", "B2"),
    "log_det_identity_plus": (lambda h: flows.log_det_identity_plus(h.square()[..., None] * torch.eye(2).to(h)), "B2"),
    **{
        f"prior's {method}": (lambda z, y, t, m=method: getattr(PRIOR.to(z.dtype), m)(z, t, y), "Bd", "B2", "B+")
        for method in ("log_prob", "potential", "particles")
    },
    "StaticPrior": (lambda z, y, t: StaticPrior(2).to(z.dtype).log_prob(z, t, y), "Bd", "B2", "B+"),
    "PushforwardPrior": (
        along(
            lambda flow, path: PushforwardPrior(flow).log_prob(path.z, path.times.expand(len(path.z), -1), path.weights)
        ),
        *("Bd", "B2"),
    ),
    "lie_bracket": (lambda z: metrics.lie_bracket(field("free", z.shape[1], z.dtype), z, 1.0, 0, 1), "Bd"),
}
FORCE = Force(3, 2)


@pytest.mark.parametrize(("function", "specs"), [(row[0], row[1:]) for row in PER_SAMPLE.values()], ids=PER_SAMPLE)
@few
@given(data=st.data())
def test_each_sample_and_its_slope_are_finite_by_themselves_and_keep_the_dtype(function, specs, data):
    arguments = [x.requires_grad_() for x in data.draw(samples(*specs))]
    found = function(*arguments)
    assert found.dtype == arguments[0].dtype
    assert len(found) == len(arguments[0])
    assert found.isfinite().all()
    if found.requires_grad:
        slopes = torch.autograd.grad(found.sum(), arguments, allow_unused=True, retain_graph=True)
        assert all(slope is None or slope.isfinite().all() for slope in slopes)
    row = data.draw(st.integers(0, len(found) - 1))
    size = max(x.abs().max().item() for x in arguments)
    single = found.dtype == torch.float32
    alone = function(*(x[row : row + 1] for x in arguments))[0]
    close(found[row], alone, rtol=1e-4 if single else 1e-10, atol=(1e-5 if single else 1e-13) * (1 + size**2))


# --- what comes in by the doors: NaN, infinity, nothing, another shape ------------------------------------------------

X, Y, K = normal(6, 2), normal(6, 2, seed=1), torch.tensor([0, 1, 0, 1, 0, 1])
GRID = Grid.cube(1.0, 3)
CELLS, EYE = normal(9).exp(), torch.eye(2, dtype=torch.float64)
FACTORS = torch.cartesian_prod(torch.arange(2), torch.arange(2)).repeat(5, 1)
CODES = FACTORS + 0.01 * normal(20, 2)
SHARES = torch.full((6,), 1 / 6, dtype=torch.float64)
GAUSSIANS = {"mean_0": X[0], "covariance_0": EYE, "mean_1": Y[0], "covariance_1": 2 * EYE}
DOORS = {
    "optimal_plan": (transport.optimal_plan, {"source": X, "target": Y, "weights a": SHARES, "weights b": SHARES}),
    "wasserstein": (transport.wasserstein, {"source": X, "target": Y}),
    "sinkhorn": (lambda x, y: transport.sinkhorn(x, y, 1.0), {"source": X, "target": Y}),
    "map_1d": (transport.map_1d, {"source": X[:, 0], "target": Y[:, 0]}),
    "gaussian_map": (transport.gaussian_map, GAUSSIANS),
    "gaussian_wasserstein": (transport.gaussian_wasserstein, GAUSSIANS),
    "efficiency": (transport.efficiency, {"z": torch.stack([X, Y], 1)}),
    "ot_gap": (transport.ot_gap, {"z": torch.stack([X, Y], 1)}),
    "hopf_lax": (lambda u, y, z: transport.hopf_lax(u, y, z, 1.0), {"initial": X[:, 0], "support": X, "z": Y}),
    "gaussian_mixture": (densities.gaussian_mixture, {"means": X, "scales": Y.exp(), "weights": CELLS[:6]}),
    "score": (lambda z: densities.score(lambda z: -z.square().sum(1), z), {"z": X}),
    "euler_maruyama": (lambda z: densities.euler_maruyama(lambda z, t: -z, z, 1.0, 0.1, 2, rng()), {"z": X}),
    "langevin": (lambda z: densities.langevin(lambda z: -z.square().sum(1), z, 1.0, 0.1, 2, rng()), {"z": X}),
    "continuity_residual": (
        lambda *p: densities.continuity_residual(GRID, *p, 0.1),
        {"before": CELLS, "now": CELLS, "after": CELLS, "velocity": normal(9, 2)},
    ),
    "FokkerPlanck": (lambda p: FokkerPlanck(GRID, lambda z: -z, 1.0).evolve(p, [0.1]), {"density": CELLS}),
    "grid_kl": (lambda q, p: densities.grid_kl(GRID, q, p), {"q": CELLS, "p": CELLS}),
    "kl_rate": (
        densities.kl_rate, {"posterior_velocity": X, "prior_velocity": Y, "posterior_score": X, "prior_score": Y},
    ),
    "mutual_information": (lambda z: metrics.mutual_information(z, FACTORS), {"codes": CODES}),
    "mutual_information_gap": (lambda z: metrics.mutual_information_gap(z, FACTORS), {"codes": CODES}),
    "dci": (lambda z: metrics.dci(z, FACTORS, 2), {"codes": CODES}),
    "unit_alignment": (metrics.unit_alignment, {"neurons": CODES, "codes": normal(20, 2)}),
    "field_use": (lambda g: metrics.field_use(g, K), {"coefficients": X}),
    "vp_score": (
        lambda pairs: metrics.vp_score(pairs, K, share=0.5, epochs=1, seeds=(0,)), {"pairs": normal(6, 2, 1, 4, 4)},
    ),
}  # fmt: skip
"""Name ↦ a function and sound arguments, by the names that its errors say."""
FAULTS = {
    "NaN": lambda x, i: torch.where(torch.arange(x.numel()).reshape(x.shape) == i, math.nan, x),
    "infinity": lambda x, i: torch.where(torch.arange(x.numel()).reshape(x.shape) == i, math.inf, x),
    "nothing": lambda x, i: x[:0],
    "an axis too many": lambda x, i: x[None, None],
    "one too few": lambda x, i: x.flatten()[0],
}


UNSOUND = [
    (name, argument, fault)
    for name, argument, fault in ((n, a, f) for n, (_, sound) in DOORS.items() for a in sound for f in FAULTS)
    if (name, fault) != ("grid_kl", "an axis too many")  # (..., N) may have any
]


def test_what_is_sound_is_taken():
    for function, sound in DOORS.values():
        function(*sound.values())


@pytest.mark.parametrize(("name", "argument", "fault"), UNSOUND)
def test_what_is_unsound_is_refused_by_its_name_in_one_line_wherever_it_is(name, argument, fault):
    function, sound = DOORS[name]
    for place in range(sound[argument].numel() if fault in ("NaN", "infinity") else 1):
        broken = sound | {argument: FAULTS[fault](sound[argument], place)}
        with pytest.raises(ValueError, match=rf"\A.*\b{argument}\b.*\Z"):
            function(*broken.values())


# --- identities -------------------------------------------------------------------------------------------------------

MAGNITUDE = st.sampled_from([1e-100, 1e-20, 1e-3, 1.0, 1e6, 1e100])


@settings(max_examples=12)
@given(n=st.integers(1, 8), d=st.integers(1, 3), seed=st.integers(0, 99), unit=MAGNITUDE, far=MAGNITUDE)
def test_distances_are_symmetric_zero_at_home_and_those_of_the_best_matching(n, d, seed, unit, far):
    x, y = unit * normal(n, d, seed=seed), unit * normal(n, d, seed=seed + 1)
    x[0], y[0] = far, far  # in both clouds
    plan, distance = transport.optimal_plan(x, y), transport.wasserstein(x, y)
    size = max(unit, far)
    costs = ((x / size)[:, None] - (y / size)[None]).square().sum(-1).numpy()
    rows, columns = linear_sum_assignment(costs)
    assert plan.cost / size / size == approx(costs[rows, columns].mean(), rel=1e-6, abs=1e-26)
    close(plan.matrix.sum(0), torch.full((n,), 1 / n).double())
    assert transport.wasserstein(y, x) == approx(distance, rel=1e-6, abs=1e-12 * size)
    assert transport.wasserstein(x, x) <= 1e-12 * size
    blurred = transport.sinkhorn(x, y, 10 * size * size)
    assert blurred.cost >= plan.cost * (1 - 1e-6) - 1e-12 * size * size
    assert transport.map_1d(x[:, 0], y[:, 0]).sort().values.tolist() == y[:, 0].sort().values.tolist()
    if distance:
        assert 0 <= transport.efficiency(torch.stack([x, y], 1)) <= 1 + 1e-9
        assert transport.ot_gap(torch.stack([x, y], 1)) >= 1 - 1e-6


@few
@given(seed=st.integers(0, 99), d=st.integers(1, 3), unit=st.sampled_from([1e-20, 1.0, 1e20]))
def test_gaussians_are_zero_from_themselves_and_mapped_onto_each_other(seed, d, unit):
    roots = normal(2, d, d, seed=seed) + 2 * torch.eye(d)
    first, second = unit**2 * roots @ roots.mT
    mean, other = unit * normal(2, d, seed=seed + 1)
    assert transport.gaussian_wasserstein(mean, first, mean, first) <= 1e-5 * unit
    there = transport.gaussian_wasserstein(mean, first, other, second)
    assert transport.gaussian_wasserstein(other, second, mean, first) == approx(there, rel=1e-6)
    matrix, offset = transport.gaussian_map(mean, first, other, second)
    close((matrix @ first @ matrix.T) / unit**2, second / unit**2, rtol=1e-6, atol=1e-6)
    close((matrix @ mean + offset) / unit, other / unit)


@few
@given(seed=st.integers(0, 99), cells=st.integers(1, 4), d=st.integers(1, 2), spread=st.sampled_from([0.0, 1e-9, 1.0]))
def test_a_density_keeps_its_mass_and_its_sign(seed, cells, d, spread):
    grid = Grid.cube(1.0, cells, d)
    p = normal(cells**d, seed=seed).relu() + (torch.arange(cells**d) == 0)
    later = FokkerPlanck(grid, lambda z: normal(*z.shape, seed=seed), spread).evolve(p, [0.0, 0.5])
    close(grid.integrate(later), grid.integrate(p).expand(2))
    assert (later >= 0).all()
    q, p = (x / grid.integrate(x) for x in (later[1], p + 1.0))
    assert densities.grid_kl(grid, q, p) >= -1e-12
    assert densities.grid_kl(grid, q, q) == approx(0, abs=1e-12)
    if cells > 2:
        still = densities.continuity_residual(grid, p, p, p, torch.zeros(cells**d, d).double(), 0.1)
        assert not still.any()
    z, v = normal(5, d), normal(5, d, seed=seed)
    close(densities.kl_rate(v, z, z, v), -densities.kl_rate(z, v, z, v))
    drawn = densities.sample(densities.gaussian_mixture(z, torch.full((5,), 1e-9)), cells, rng())
    assert (torch.cdist(drawn, z).amin(1) < 1e-6).all()
    assert (densities.langevin(lambda z: -z.square().sum(1), z, 0.0, 0.1, cells, rng()) == z[:, None]).all()


@few
@given(
    d=st.integers(1, 3), seed=st.integers(0, 99), method=st.sampled_from(list(METHODS)), dtype=st.sampled_from(DTYPES)
)
def test_the_way_back_is_the_way_there(d, seed, method, dtype):
    flow, z = Flow(field("potential", d, dtype), method, 4), normal(4, d, seed=seed).to(dtype)
    path = flow.rollout(z, mixing_weights(torch.tensor([0, 1, 0, 1]), 2) * 0.1, (0, 1, 2))
    try:
        back = flow.rollout(path.z[:, -1], path.weights, (2, 1, 0))
    except NotInvertible:  # folded, and said so
        return
    close(back.z.flip(1), path.z, rtol=1e-3, atol=1e-3)
    assert flows.clock_of(back.times) == flows.clock_of(path.times)[::-1] == [2, 1, 0]
    assert objectives.gaussian_ceiling(d) < 0
    close(objectives.reparameterize(objectives.diagonal_normal(z, 0 * z), rng()), z)


def test_potentials_curve_at_zero_as_automatic_differentiation_says():
    """log 2cosh h has the slope 0 and the curvature 1 at h = 0, where |h| has none."""
    units = DeepUnits(2, 1, width=3, depth=1, horizon=4)
    torch.nn.init.zeros_(units.first.inner_time)
    z, y = torch.zeros(1, 2), torch.ones(1, 1)
    found = AutogradPotential(units, 2, 1, 4.0).jacobian(z, 0.0, y)
    close(found, units.first.jacobian(z, 0.0, y))
    assert found.abs().max() > 0
    assert isinstance(units.first, Potential)


@few
@given(
    seed=st.integers(0, 99), constant=st.sampled_from([0.0, 1e6, -1e30]), factor=st.sampled_from([1e-30, 1.0, -1e30])
)
def test_scores_of_codes_lie_between_0_and_1_whatever_their_unit(seed, constant, factor):
    codes = torch.cat([FACTORS * factor, normal(20, 1, seed=seed), 0 * normal(20, 1) + constant], 1)
    information = metrics.mutual_information(codes, FACTORS)
    close(information, torch.tensor([[math.log(2), 0], [0, math.log(2)], *information[2:3].tolist(), [0, 0]]))
    found = metrics.dci(codes, FACTORS, 5, seed)
    scores = [metrics.mutual_information_gap(codes, FACTORS), found.disentanglement, found.completeness]
    for score in (*scores, found.informativeness, *metrics.unit_alignment(normal(20, 2, seed=seed), codes).tolist()):
        assert -1e-9 <= score <= 1 + 1e-9
    shares = metrics.bracket_shares(field("free", 2, torch.float64), normal(5, 2, seed=seed))
    assert torch.equal(shares, shares.T)
    assert 0 <= shares.min() <= shares.max() <= 1


@few
@given(k=st.integers(1, 4), n=st.integers(1, 12), seed=st.integers(0, 99))
def test_the_best_matching_is_the_best_of_all_permutations(k, n, seed):
    inferred, true = torch.randint(k, (2, n), generator=rng(seed))
    matching, share = metrics.match_transformations(inferred, true, k)
    shares = [(torch.tensor(p)[true] == inferred).double().mean() for p in itertools.permutations(range(k))]
    assert share == approx(max(shares))
    assert (matching[true] == inferred).double().mean() == approx(share)
    use = metrics.field_use(torch.eye(k)[inferred], true)
    assert use.accuracy == approx(share)
    assert 0 < use.accuracy <= use.purity <= 1


# --- of models: each measure is finite, and the same in every batch size ----------------------------------------------


@functools.cache
def scene():
    torch.manual_seed(0)
    sequences = TransformationSequences(torch.rand(5, *SHAPE), horizon=2)
    flow = lambda: Flow(Potential(2, 3, width=4, horizon=2))  # noqa: E731
    known = FlowFactorizedVAE(*encoder_and_decoder(), flow(), DiffusionPrior(3))
    frames = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * math.prod(SHAPE), 9))
    inferred = InferredFlowVAE(
        *encoder_and_decoder(), flow(), DiffusionPrior(3), inference=frames, posterior=SpikeAndSlab()
    )
    return known.eval(), inferred.eval(), sequences


MEASURES = {
    "predict": lambda m, g, s, b: torch.cat([metrics.predict(m, part) for _, part in metrics.every_sequence(s, b)]),
    "l1": lambda m, g, s, b: torch.cat([metrics.l1(p.frames, 0 * p.frames) for _, p in metrics.every_sequence(s, b)]),
    "persistence": lambda m, g, s, b: metrics.equivariance_errors({"": metrics.persistence}, s, batch_size=b)[""],
    "MedianFrame": lambda m, g, s, b: metrics.equivariance_errors({"": metrics.MedianFrame(s)}, s, batch_size=b)[""],
    "reconstruct": lambda m, g, s, b: torch.cat([metrics.reconstruct(m, p) for _, p in metrics.every_sequence(s, b)]),
    "equivariance_error": lambda m, g, s, b: metrics.equivariance_error(m, s, batch_size=b),
    "smallest_eigenvalue": lambda m, g, s, b: metrics.smallest_eigenvalue(m, s.batch(torch.arange(5), 1)),
    "generated_pairs": lambda m, g, s, b: metrics.generated_pairs(metrics.persistence, s, batch_size=b)[0],
    "infer_all": lambda m, g, s, b: metrics.infer_all(g, s, batch_size=b)[0],
    "with_own_coefficients": lambda m, g, s, b: metrics.with_own_coefficients(g, s.batch(torch.arange(5), 1)).k,
    "Donors": lambda m, g, s, b: metrics.Donors(g, s)(s.batch(torch.arange(5), 1)).k,
    "with_coefficients": lambda m, g, s, b: metrics.equivariance_error(
        g, metrics.with_coefficients(s, metrics.Donors(g, s)), batch_size=5
    ),
    "as_asked": lambda m, g, s, b: metrics.equivariance_error(g, metrics.as_asked(g, s), batch_size=b),
    "clustering_accuracy": lambda m, g, s, b: metrics.clustering_accuracy(Named(g), s, batch_size=b)[0],
    "factor_scores": lambda m, g, s, b: metrics.factor_scores(m, squares(), images=60, batch_size=b),
    "log_likelihood": lambda m, g, s, b: metrics.log_likelihood(m, s, images=2, samples=2).standard_error,
    "with_exact_density": lambda m, g, s, b: metrics.equivariance_error(flows.with_exact_density(m), s, batch_size=b),
    "log_evidence": lambda m, g, s, b: metrics.log_evidence(m, s.batch(torch.arange(5), 1), 2, samples=2),
    "order_gaps": lambda m, g, s, b: (
        metrics.order_gaps(
            m, lambda z, motion: m.rollout(z, torch.zeros(len(z), dtype=torch.long), range(3)).z, s, frames=1
        ).error
    ),
}


def squares():
    """Images of three values each of two factors: how bright the upper half is, and the lower."""
    space = datasets.FactorSpace(("upper", "lower"), (3, 3))

    def frames(index):
        halves = (100 * space.factors(index)).to(torch.uint8)[..., None, :, None].repeat_interleave(SHAPE[1] // 2, -2)
        return halves.expand(*index.shape, *SHAPE)

    images = SimpleNamespace(space=space, image_shape=SHAPE, name="squares", frames=frames)
    starts = datasets.starting_points(space, space.names, "train")
    return datasets.FactorSequences(images, starts, space.names, horizon=1)


class Named(torch.nn.Module):
    """Names the strongest field."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def infer(self, frames):
        return self.model.inference(frames)[:, :3].argmax(1)


@pytest.mark.parametrize("name", MEASURES)
def test_measures_of_models_are_finite_and_the_same_in_every_batch_size(name):
    def numbers(batch_size):
        found = MEASURES[name](*scene(), batch_size)
        return torch.as_tensor(list(found.values()) if isinstance(found, dict) else found).double()

    whole = numbers(5)
    assert whole.isfinite().all()
    for size in (1, 3):
        close(numbers(size), whole, rtol=1e-5, atol=1e-6)


# records and protocols: nothing is computed in them; errors and tables of names
PLAIN = {
    "AboveCeiling", "DCI", "Field", "FieldUse", "LatentOperator", "LogLikelihood", "OrderGaps", "Plan", "RungeKutta",
    "VPScore",
}  # fmt: skip


def test_every_public_name_is_tried_here():
    """By code that reads it: an import, a comment, a string or a variable of that name does not count."""
    nodes = ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
    read = {ast.unparse(node) for node in nodes if isinstance(node, ast.Name | ast.Attribute)}
    made = {"DivergenceFreeField", "FreeField", "MixedFields", "Trajectory"}  # by random_fields, by rollouts
    for module in (objectives, densities, transport, fields, flows, metrics):
        room = module.__name__.rpartition(".")[2]
        tried = {n for n in module.__all__ if f"{room}.{n}" in read or (n in read and n in globals())}
        missing = {*module.__all__} - PLAIN - made - tried
        assert not missing, f"{module.__name__}: {missing}"
