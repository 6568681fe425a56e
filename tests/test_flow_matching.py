"""Flow matching: the couplings, the regression, and the motions that it recovers from displacements alone."""

import pytest
import torch
from tiny import SHAPE, encoder_and_decoder, generator
from torch.func import jacrev

from poflow_lite.datasets import TransformationSequences
from poflow_lite.fields import FreeField, Potential, mixing_weights
from poflow_lite.flows import Flow
from poflow_lite.metrics import equivariance_error, log_likelihood
from poflow_lite.models import COUPLINGS, VAE, FlowMatching, flow_matching, match_flow, sample_displacements
from poflow_lite.operators import with_operator
from poflow_lite.transport import kinetic_energy, ot_gap, wasserstein

pytestmark = pytest.mark.usefixtures("double")
K, N, T, LATENT = 2, 300, 3, 2
QUICK = {"steps": 300, "batch_size": 128, "learning_rate": 2e-2, "progress": False}


def spirals(count=N, seed=0):
    """Latents (K, N, T+1, d) of two linear systems ż = A z: a stretch, and a spiral that turns and shrinks."""
    z = torch.randn(count, LATENT, generator=generator(seed)) + torch.tensor([1.0, 0.0])
    systems = torch.tensor([[[0.2, 0.1], [0.1, -0.1]], [[-0.1, -0.4], [0.4, -0.1]]])
    times = torch.arange(T + 1.0)
    return torch.stack([torch.stack([z @ torch.matrix_exp(t * a).T for t in times], 1) for a in systems])


def field_of(kind=FreeField, transformations=K, **sizes):
    torch.manual_seed(0)
    return kind(LATENT, transformations, **{"width": 8, "horizon": T, "frequencies": 1, **sizes})


def carried(flow, fresh, k):
    """Where fresh starts go under k: (N, T+1, d)."""
    return flow.rollout(fresh[k, :, 0], torch.full((fresh.shape[1],), k), range(T + 1)).z


# --- couplings ----------------------------------------------------------------------------------------------------


def test_couplings_put_the_same_ends_into_another_order():
    """Pairs keep it, an optimal plan undoes a permutation of a monotone map, the independent one forgets it."""
    source = torch.randn(400, LATENT, generator=generator())
    target = source @ torch.tensor([[2.0, 0.3], [0.3, 1.0]])  # the gradient of a convex function
    mixed = target[torch.randperm(400, generator=generator(1))]
    found = {name: couple(source, mixed, generator(2)) for name, couple in COUPLINGS.items()}
    assert torch.equal(found["pairs"], mixed)
    assert torch.equal(found["optimal"], target)
    assert torch.equal(found["unpaired"], target)  # what differs is where the ends come from
    torch.testing.assert_close(found["independent"].sort(0).values, target.sort(0).values, rtol=0, atol=0)
    assert torch.corrcoef(torch.stack([source[:, 0], found["independent"][:, 0]]))[0, 1].abs() < 4 / 400**0.5


def test_displacements_lie_on_the_lines_between_neighbouring_frames():
    """Latents of which every coordinate tells k, the sequence and t apart."""
    k, n, t = torch.meshgrid(torch.arange(3.0), torch.arange(50.0), torch.arange(5.0), indexing="ij")
    batch = sample_displacements(torch.stack([k, n, t.square()], -1), "pairs", generator(), groups=6, size=10)
    assert batch.to("cpu").y.shape == batch.z.shape == (60, 3)
    before = batch.t.floor()
    torch.testing.assert_close(batch.velocity[:, 2], 2 * before + 1)
    torch.testing.assert_close(batch.z[:, 2], before.square() + (batch.t - before) * (2 * before + 1))
    torch.testing.assert_close(mixing_weights(batch.z[:, 0].long(), 3).to(batch.y), batch.y)
    assert not batch.velocity[:, :2].any()
    assert all(len(part.unique()) == 10 for part in batch.z[:, 1].split(10))  # no sequence twice in a group
    assert set(before.int().tolist()) <= {0, 1, 2, 3}
    assert batch.y.any(0).sum() > 1
    assert batch.t.frac().min() < 0.1
    assert batch.t.frac().max() > 0.9


def test_unpaired_ends_belong_to_other_sequences_and_are_optimally_coupled():
    n, t = torch.meshgrid(torch.arange(50.0), torch.arange(2.0), indexing="ij")
    latents = torch.stack([n, t], -1)[None]  # the first coordinate names the sequence
    batch = sample_displacements(latents, "unpaired", generator(), groups=1, size=10)
    starts = (batch.z - batch.t.frac()[:, None] * batch.velocity)[:, 0].round()
    ends = (batch.z + (1 - batch.t.frac()[:, None]) * batch.velocity)[:, 0].round()
    assert not set(starts.tolist()) & set(ends.tolist())
    assert torch.equal(starts.argsort().argsort(), ends.argsort().argsort())  # on a line, the optimal plan is monotone
    assert len(sample_displacements(latents[:, :4], "unpaired", generator(), 1, 10).z) == 4  # too few: all of them


def test_the_regression_is_the_mean_squared_distance_of_velocities():
    field, batch = field_of(), sample_displacements(spirals(), "pairs", generator(), 2, 5)
    own = [field.velocity(*(x[i : i + 1] for x in (batch.z, batch.t, batch.y)))[0] for i in range(10)]
    losses = FlowMatching(field).terms(batch)
    torch.testing.assert_close(losses.loss, (torch.stack(own) - batch.velocity).square().sum(1).mean())
    assert losses.summary() == {"squared_error": pytest.approx(losses.loss.item())}


# --- what is recovered --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "turns"), [(FreeField, True), (Potential, False)])
def test_true_pairs_of_a_linear_system_give_its_motion_as_far_as_the_field_can(kind, turns):
    """The stretch has a symmetric matrix, hence a potential; half of the spiral's motion has none."""
    flow, fresh = match_flow(field_of(kind), spirals(), "pairs", **QUICK), spirals(100, seed=7)
    moved = [(fresh[k] - fresh[k, :, :1]).square().sum() for k in range(K)]
    stretch, spiral = ((carried(flow, fresh, k) - fresh[k]).square().sum() / moved[k] for k in range(K))
    assert stretch < 0.01
    assert spiral < 0.01 if turns else spiral > 0.1


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_mean_and_covariance_are_carried_whatever_the_coupling(coupling):
    flow, fresh = match_flow(field_of(width=16), spirals(500), coupling, **QUICK), spirals(500, seed=7)
    for k in range(K):
        end, goal, start = carried(flow, fresh, k)[:, -1], fresh[k, :, -1], fresh[k, :, 0]
        assert (end.mean(0) - goal.mean(0)).norm() < 0.3 * (start.mean(0) - goal.mean(0)).norm()
        assert (end.T.cov() - goal.T.cov()).norm() < 0.4 * (start.T.cov() - goal.T.cov()).norm()
        assert wasserstein(end, goal) < 0.35 * wasserstein(start, goal)


def fine_path(field, z, pieces=8):
    """Positions (B, pieces + 1, d) on the way through one frame, by midpoint steps."""
    path, y, h = [z], torch.ones(len(z), 1), 1 / pieces
    for i in range(pieces):
        middle = path[-1] + h / 2 * field.velocity(path[-1], i * h, y)
        path.append(path[-1] + h * field.velocity(middle, (i + 0.5) * h, y))
    return torch.stack(path, 1)


def test_optimal_coupling_moves_with_least_energy_and_closest_to_optimal_transport():
    """Between independent clouds the optimum is the shift of 1, of energy 1. Along random lines the particles first
    meet and then part again, with the energy 1 + d (2 - π/2) = 1.86 of the Gaussian closed form."""
    source, target = (torch.randn(N, LATENT, generator=generator(seed)) for seed in (1, 2))
    target, paths = target + torch.tensor([1.0, 0.0]), {}
    for coupling in ("optimal", "independent"):
        field = field_of(transformations=1, width=16, horizon=1)
        flow = match_flow(field, torch.stack([source, target], 1)[None], coupling, **QUICK, substeps=4)
        paths[coupling] = fine_path(field, source).detach()
        end = flow.rollout(source, torch.ones(N, 1), [0, 1]).z[:, -1]
        torch.testing.assert_close(paths[coupling][:, -1], end, rtol=0, atol=0.1)
        assert wasserstein(paths[coupling][:, -1], target) < 0.6  # both arrive
    energies = {name: kinetic_energy(z).mean().item() for name, z in paths.items()}
    assert energies["optimal"] < 1.3
    assert energies["independent"] == pytest.approx(1.86, abs=0.4)
    assert ot_gap(paths["optimal"]) < 1.15
    assert ot_gap(paths["independent"]) > 1.3


def test_the_seed_decides_and_the_global_state_is_left_alone():
    latents, fields = spirals(), [field_of() for _ in range(3)]
    before = torch.get_rng_state()
    for field, seed in zip(fields, (0, 0, 1), strict=True):
        match_flow(field, latents, "independent", seed=seed, **{**QUICK, "steps": 5})
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(fields[0].inner, fields[1].inner)
    assert not torch.equal(fields[0].inner, fields[2].inner)


@pytest.mark.parametrize(("asked", "group", "groups"), [(40, 40, 1), (100, 50, 2), (127, 63, 2), (256, 64, 4)])
def test_a_step_has_as_many_points_as_equal_groups_allow(monkeypatch, asked, group, groups):
    seen = []

    def sample(*arguments):
        seen.append(sample_displacements(*arguments))
        return seen[-1]

    monkeypatch.setattr(flow_matching, "sample_displacements", sample)
    match_flow(field_of(), spirals(), "independent", **{**QUICK, "steps": 1, "batch_size": asked})
    assert len(seen[0].z) == group * groups


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coupling": "best"}, "unknown coupling 'best'; known: pairs, optimal, unpaired, independent"),
        ({"latents": torch.zeros(K, N, LATENT)}, r"latents must be \(K, N, T\+1, d\) with N ≥ 1 and T ≥ 1, got"),
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


def test_a_matched_flow_moves_a_model_with_its_own_density():
    field, draw = field_of(transformations=3, width=5), generator(4)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=draw)
    model, flow, times = VAE(*encoder_and_decoder(LATENT), "gaussian"), Flow(field, "rk4"), range(T + 1)
    moving, z, k = with_operator(model, flow), torch.randn(3, LATENT, generator=generator()), torch.arange(3)
    path = moving.rollout(z, k, times)
    ends = [jacrev(lambda x, i=i: flow.rollout(x[None], k[i : i + 1], times).z[0, -1])(z[i]) for i in range(3)]
    torch.testing.assert_close(path.log_det.sum(1), torch.linalg.slogdet(torch.stack(ends)).logabsdet)
    assert path.log_det.abs().min() > 1e-3
    assert torch.equal(model.rollout(z, k, times).z[:, -1], z)  # the model itself stands still as before
    sequences = TransformationSequences(torch.rand(3, *SHAPE, generator=generator()), horizon=T)
    errors, still = (equivariance_error(own, sequences) for own in (moving, model))
    assert all(errors[name] != still[name] for name in sequences.names)
    found, still = (log_likelihood(own, sequences, images=1, samples=50).frame["x_0"] for own in (moving, model))
    assert found != still
