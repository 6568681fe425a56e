"""Flow matching: the couplings, the regression, and the motions that it recovers from displacements alone."""

from functools import partial

import pytest
import torch
from tiny import SHAPE, encoder_and_decoder, generator
from torch.func import jacrev

from poflow_lite.datasets import TransformationSequences
from poflow_lite.fields import FreeField
from poflow_lite.flow_matching import (
    COUPLINGS,
    Displacements,
    FlowMatching,
    FlowOperator,
    match_flow,
    sample_displacements,
)
from poflow_lite.flows import Flow
from poflow_lite.metrics import equivariance_errors, log_likelihood, predict
from poflow_lite.models import VAE
from poflow_lite.operators import Linear, moved_by, operate
from poflow_lite.potentials import Potential
from poflow_lite.transport import ot_gap, path_energy, wasserstein

pytestmark = pytest.mark.usefixtures("double")
K, N, T, LATENT = 2, 300, 3, 2
QUICK = {"steps": 300, "batch_size": 128, "learning_rate": 2e-2, "progress": False}


def spirals(count=N, seed=0):
    """Latents (K, N, T+1, d) of two linear systems ż = A z: a stretch, and a spiral that turns and shrinks."""
    z = torch.randn(count, LATENT, generator=generator(seed)) + torch.tensor([1.0, 0.0])
    systems = torch.tensor([[[0.2, 0.1], [0.1, -0.1]], [[-0.1, -0.4], [0.4, -0.1]]])
    times = torch.arange(T + 1.0)
    return torch.stack([torch.stack([z @ torch.matrix_exp(t * a).T for t in times], 1) for a in systems])


def field_of(kind=FreeField, seed=0, **sizes):
    torch.manual_seed(seed)
    return kind(LATENT, K, **{"width": 8, "horizon": T, "frequencies": 1, **sizes})


def scattered(shift=1.0):
    """A cloud that moves as a whole, while its particles change places: pairs cross, an optimal plan does not."""
    source = torch.randn(1, N, 1, LATENT, generator=generator(1))
    target = torch.randn(1, N, 1, LATENT, generator=generator(2)) + torch.tensor([shift, 0.0])
    return torch.cat([source, target], 2)


# --- couplings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_every_coupling_pairs_the_same_points(coupling):
    source, target = torch.randn(2, 20, LATENT, generator=generator())
    found = COUPLINGS[coupling](source, target, generator(1))
    torch.testing.assert_close(found.sort(0).values, target.sort(0).values, rtol=0, atol=0)
    assert torch.equal(found, target) == (coupling == "pairs")
    assert COUPLINGS["unpaired"] is COUPLINGS["optimal"]  # what differs is where the ends come from


def test_the_optimal_coupling_undoes_a_permutation_of_a_monotone_map():
    source = torch.randn(40, LATENT, generator=generator())
    target = source @ torch.tensor([[2.0, 0.3], [0.3, 1.0]])  # the gradient of a convex function
    mixed = target[torch.randperm(40, generator=generator(1))]
    assert torch.equal(COUPLINGS["optimal"](source, mixed, generator()), target)


def test_the_independent_coupling_forgets_where_a_particle_came_from():
    source = torch.randn(4000, 1, generator=generator())
    found = COUPLINGS["independent"](source, source, generator(1))
    assert torch.corrcoef(torch.cat([source, found], 1).T)[0, 1].abs() < 4 / 4000**0.5


def test_displacements_lie_on_the_lines_between_neighbouring_frames():
    """Latents of which every coordinate tells k, the sequence and t apart."""
    k, n, t = torch.meshgrid(torch.arange(3.0), torch.arange(50.0), torch.arange(5.0), indexing="ij")
    latents = torch.stack([k, n, t.square()], -1)
    batch = sample_displacements(latents, "pairs", generator(), groups=6, size=10)
    assert batch.z.shape == (60, 3)
    before = batch.t.floor()
    torch.testing.assert_close(batch.velocity[:, 2], 2 * before + 1)
    torch.testing.assert_close(batch.z[:, 2], before.square() + (batch.t - before) * (2 * before + 1))
    torch.testing.assert_close(batch.z[:, 0], batch.k.double())
    assert not batch.velocity[:, :2].any()
    assert all(len(part.unique()) == 10 for part in batch.z[:, 1].split(10))  # no sequence twice in a group
    assert set(before.int().tolist()) <= {0, 1, 2, 3}
    assert len(batch.k.unique()) > 1
    assert batch.t.frac().min() < 0.1
    assert batch.t.frac().max() > 0.9


def test_couplings_see_the_same_starts_and_ends():
    latents = torch.randn(K, 30, T + 1, LATENT, generator=generator())
    drawn = [sample_displacements(latents, name, generator(5), 1, 16) for name in ("pairs", "optimal")]
    tau = [batch.t.frac()[:, None] for batch in drawn]
    starts = [batch.z - share * batch.velocity for batch, share in zip(drawn, tau, strict=True)]
    torch.testing.assert_close(starts[0], starts[1])
    assert drawn[1].velocity.square().sum() < drawn[0].velocity.square().sum()


def test_unpaired_ends_belong_to_other_sequences_and_are_optimally_coupled():
    n, t = torch.meshgrid(torch.arange(50.0), torch.arange(2.0), indexing="ij")
    latents = torch.stack([n, t], -1)[None]  # the first coordinate names the sequence
    batch = sample_displacements(latents, "unpaired", generator(), groups=1, size=10)
    starts = (batch.z - batch.t.frac()[:, None] * batch.velocity)[:, 0].round()
    ends = (batch.z + (1 - batch.t.frac()[:, None]) * batch.velocity)[:, 0].round()
    assert not set(starts.tolist()) & set(ends.tolist())
    assert torch.equal(starts.argsort().argsort(), ends.argsort().argsort())  # on a line, the optimal plan is monotone
    few = sample_displacements(latents[:, :4], "unpaired", generator(), groups=1, size=10)
    assert len(few.z) == 4  # not enough for two sets: all of them


def test_the_regression_is_the_mean_squared_distance_of_velocities():
    field = field_of()
    batch = sample_displacements(spirals(), "pairs", generator(), 2, 5)
    squares = [
        (field.velocity(batch.z[i : i + 1], batch.t[i : i + 1], batch.k[i : i + 1])[0] - batch.velocity[i]).norm() ** 2
        for i in range(10)
    ]
    terms = FlowMatching(field).terms(batch)
    torch.testing.assert_close(terms.loss, torch.stack(squares).mean())
    assert terms.summary()["squared_error"] == pytest.approx(terms.loss.item())
    assert isinstance(batch.to("cpu"), Displacements)


# --- what is recovered --------------------------------------------------------------------------------------------


def test_true_pairs_of_a_linear_system_give_its_motion():
    flow = match_flow(field_of(), spirals(), "pairs", **QUICK)
    fresh = spirals(100, seed=7)
    for k in range(K):
        found = flow.rollout(fresh[k, :, 0], torch.full((100,), k), T).z
        moved = (fresh[k] - fresh[k, :, :1]).square().sum()
        assert (found - fresh[k]).square().sum() < 0.01 * moved


def test_a_gradient_field_recovers_the_stretch_but_cannot_turn():
    """The stretch has a symmetric matrix, hence a potential; half of the spiral's motion has none."""
    flow = match_flow(field_of(Potential), spirals(), "pairs", **QUICK)
    fresh, ratios = spirals(100, seed=7), []
    for k in range(K):
        found = flow.rollout(fresh[k, :, 0], torch.full((100,), k), T).z
        ratios.append(((found - fresh[k]).square().sum() / (fresh[k] - fresh[k, :, :1]).square().sum()).item())
    assert ratios[0] < 0.01
    assert ratios[1] > 0.1
    jacobian = flow.field.jacobian(fresh[1, :, 0], 1.0, torch.ones(100, dtype=torch.long))
    torch.testing.assert_close(jacobian, jacobian.mT)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_mean_and_covariance_are_carried_whatever_the_coupling(coupling):
    flow = match_flow(field_of(width=16), spirals(1000), coupling, **QUICK)
    fresh = spirals(1000, seed=7)
    for k in range(K):
        end = flow.rollout(fresh[k, :, 0], torch.full((1000,), k), T).z[:, -1]
        goal, start = fresh[k, :, -1], fresh[k, :, 0]
        assert (end.mean(0) - goal.mean(0)).norm() < 0.3 * (start.mean(0) - goal.mean(0)).norm()
        assert (end.T.cov() - goal.T.cov()).norm() < 0.4 * (start.T.cov() - goal.T.cov()).norm()
        assert wasserstein(end, goal) < 0.35 * wasserstein(start, goal)


def fine_path(field, z, pieces=8):
    """Positions (B, pieces + 1, d) on the way through one frame, by midpoint steps."""
    path, k, h = [z], torch.zeros(len(z), dtype=torch.long), 1 / pieces
    for i in range(pieces):
        middle = path[-1] + h / 2 * field.velocity(path[-1], i * h, k)
        path.append(path[-1] + h * field.velocity(middle, (i + 0.5) * h, k))
    return torch.stack(path, 1)


def test_optimal_coupling_moves_with_least_energy_and_closest_to_optimal_transport():
    """Between independent clouds the optimum is the shift of 1, of energy 1. Along random lines the particles first
    meet and then part again, with the energy 1 + d (2 - π/2) = 1.86 of the Gaussian closed form."""
    latents, paths = scattered(), {}
    for coupling in ("optimal", "independent"):
        torch.manual_seed(0)
        field = FreeField(LATENT, 1, width=16, horizon=1, frequencies=1)
        flow = match_flow(field, latents, coupling, **QUICK, substeps=4)
        start = latents[0, :, 0]
        paths[coupling] = fine_path(field, start).detach()
        end = flow.rollout(start, torch.zeros(N, dtype=torch.long), 1).z[:, -1]
        torch.testing.assert_close(paths[coupling][:, -1], end, rtol=0, atol=0.1)
        assert wasserstein(end, latents[0, :, 1]) < 0.6  # both arrive
    energies = {name: path_energy(z).mean().item() for name, z in paths.items()}
    assert energies["optimal"] < 1.3
    assert energies["independent"] == pytest.approx(1.86, abs=0.4)
    assert ot_gap(paths["optimal"]) < 1.15
    assert ot_gap(paths["independent"]) > 1.3


def test_the_seed_decides_and_the_global_state_is_left_alone():
    short = {**QUICK, "steps": 5}
    latents, fields = spirals(), [field_of() for _ in range(3)]
    before = torch.get_rng_state()
    for field, seed in zip(fields, (0, 0, 1), strict=True):
        match_flow(field, latents, "independent", seed=seed, **short)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(fields[0].inner, fields[1].inner)
    assert not torch.equal(fields[0].inner, fields[2].inner)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coupling": "best"}, "unknown coupling 'best'; known: pairs, optimal, unpaired, independent"),
        (
            {"latents": torch.zeros(K, N, LATENT)},
            r"latents must be \(K, N, T\+1, d\) with N ≥ 1 and T ≥ 1, got",
        ),
        ({"latents": torch.zeros(K, N, 1, LATENT)}, "with N ≥ 1 and T ≥ 1"),
        ({"latents": torch.zeros(K, 0, T + 1, LATENT)}, "with N ≥ 1 and T ≥ 1"),
        ({"latents": torch.full((K, N, T + 1, LATENT), torch.nan)}, "NaN or infinite"),
        ({"latents": torch.zeros(K + 1, N, T + 1, LATENT)}, "moves 2 dimensions by 2 transformations"),
        ({"latents": torch.zeros(K, N, T + 1, LATENT + 1)}, "moves 2 dimensions by 2 transformations"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        match_flow(**{"field": field_of(), "latents": spirals(), **QUICK, **change})


# --- as an operator -----------------------------------------------------------------------------------------------


@pytest.fixture
def moved():
    """A tiny model, a flow with random weights as its operator, and sequences."""
    torch.manual_seed(3)
    model = VAE(*encoder_and_decoder(LATENT), likelihood="gaussian")
    images = torch.rand(3, *SHAPE, generator=generator())
    sequences = TransformationSequences(images, horizon=T)
    return model, FlowOperator(Flow(three_fields(), "rk4"), T), sequences


def three_fields():
    torch.manual_seed(4)
    field = FreeField(LATENT, 3, width=5, horizon=T)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return field


def test_a_matched_flow_moves_a_model_with_its_own_density(moved):
    model, operator, _ = moved
    z, k = torch.randn(3, LATENT, generator=generator()), torch.arange(3)
    path = moved_by(model, operator).transport(z, k, T)
    torch.testing.assert_close(path.z, operator(z, k))
    ends = [jacrev(lambda x, i=i: operator(x[None], k[i : i + 1])[0, -1])(z[i]) for i in range(3)]
    torch.testing.assert_close(path.log_det.sum(1), torch.linalg.slogdet(torch.stack(ends)).logabsdet)
    assert path.log_det.abs().min() > 1e-3
    assert torch.equal(model.transport(z, k, T).z[:, -1], z)  # the model itself stands still as before


def test_every_metric_takes_it(moved):
    model, operator, sequences = moved
    moving, batch = moved_by(model, operator), sequences.batch(torch.arange(3), 1)
    assert torch.equal(predict(moving, batch), operate(model, operator, batch))
    errors = equivariance_errors({"flow": partial(predict, moving), "still": partial(predict, model)}, sequences)
    assert all(errors["flow"][k] != errors["still"][k] for k in sequences.names)
    found = log_likelihood(moving, sequences, images=1, samples=50, estimates=["prediction"]).prediction
    still = log_likelihood(model, sequences, images=1, samples=50, estimates=["prediction"]).prediction
    assert found != still


def test_an_operator_that_knows_its_log_determinant_need_not_be_linear(moved):
    """What counts is what an operator offers, not its class."""
    model, _, _ = moved

    class Doubling:
        def __call__(self, z, k):
            return z[:, None] * 2.0 ** torch.arange(T + 1)[:, None]

        def log_det(self, k):
            return torch.full((len(k), T), LATENT * torch.log(torch.tensor(2.0)))

    z, k = torch.ones(2, LATENT), torch.tensor([0, 1])
    path = moved_by(model, Doubling()).transport(z, k, T)
    assert path.log_det[0, 0] == pytest.approx(LATENT * 0.6931471805599453)
    matrices = torch.eye(LATENT) * 2.0 ** torch.arange(T + 1)[:, None, None]
    affine = Linear(matrices.repeat(2, 1, 1, 1), torch.zeros(2, T + 1, LATENT), 0.0)
    same = moved_by(model, affine).transport(z, k, T)
    torch.testing.assert_close(same.z, path.z)
    torch.testing.assert_close(same.log_det, path.log_det)
