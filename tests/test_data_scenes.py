"""Rendered scenes: the ray caster against signed distance functions, and factors that change what they should alone."""

import colorsys
import math

import pytest
import torch
from torch.nn import functional as F

from poflow_lite.datasets import SCENES, load_scene, raycast
from poflow_lite.datasets.raycast import Cache, Light, Rays

# --- surfaces: signed distance functions know each by another route -------------------------------------------------


def length(vectors):
    return vectors.square().sum(-2).sqrt()


def box_distance(point, half):
    gap = point.abs() - half[:, None]
    return length(gap.clamp_min(0)) + gap.amax(-2).clamp_max(0)


def turned(point, angle):
    x, y, z = point.unbind(-2)
    return torch.stack([math.cos(angle) * x - math.sin(angle) * z, y, math.sin(angle) * x + math.cos(angle) * z], -2)


def cylinder_distance(point, radius, half):
    x, y, z = point.unbind(-2)
    gap = torch.stack([(x * x + z * z).sqrt() - radius, y.abs() - half], -2)
    return length(gap.clamp_min(0)) + gap.amax(-2).clamp_max(0)


def capsule_distance(point, start, end, radius):
    axis = (end - start)[:, None]
    share = (((point - start[:, None]) * axis).sum(-2) / axis.square().sum()).clamp(0, 1)
    return length(point - start[:, None] - share.unsqueeze(-2) * axis) - radius


CENTRE, HALF = torch.tensor([0.3, -0.2, 0.4], dtype=torch.double), torch.tensor([0.7, 0.4, 0.9], dtype=torch.double)
ENDS = torch.tensor([[-0.5, 0.2, 0.1], [0.6, -0.4, 0.7]], dtype=torch.double)
SURFACES = {
    "sphere": (lambda r: raycast.sphere(r, CENTRE, 0.8), lambda p: length(p - CENTRE[:, None]) - 0.8),
    "box": (lambda r: raycast.box(r, CENTRE, HALF), lambda p: box_distance(p - CENTRE[:, None], HALF)),
    "turned box": (
        lambda r: raycast.box(r, CENTRE, HALF, 0.6),
        lambda p: box_distance(turned(p - CENTRE[:, None], 0.6), HALF),
    ),
    "cylinder": (
        lambda r: raycast.cylinder(r, CENTRE, 0.5, 0.7),
        lambda p: cylinder_distance(p - CENTRE[:, None], 0.5, 0.7),
    ),
    "capsule": (lambda r: raycast.capsule(r, *ENDS, 0.4), lambda p: capsule_distance(p, *ENDS, 0.4)),
    "room": (lambda r: raycast.room(r, CENTRE, 3 * HALF), lambda p: -box_distance(p - CENTRE[:, None], 3 * HALF)),
}


def some_rays(inside, count=3000):
    generator = torch.Generator().manual_seed(0)
    direction = F.normalize(torch.randn(1, 3, count, generator=generator), dim=-2)
    if inside:
        return Rays(CENTRE[None, :, None] + 0.3, direction)
    aim = 1.2 * (2 * torch.rand(1, 3, count, generator=generator) - 1)
    return Rays(aim - 5 * direction, direction)


@pytest.mark.parametrize("name", SURFACES)
def test_rays_stop_where_the_distance_function_first_reaches_zero_with_its_gradient_for_a_normal(double, name):
    meet, signed_distance = SURFACES[name]
    rays = some_rays(inside=name == "room")
    distance, normals = meet(rays)
    met = distance[0].isfinite()
    assert met.all() if name == "room" else 0.1 < met.double().mean() < 0.9
    point = rays.at(torch.where(met, distance, 0.0))
    assert signed_distance(point)[0, met].abs().max() < 1e-9
    before = (point - 1e-7 * rays.direction).requires_grad_()  # on the surface itself it may have a kink
    (gradient,) = torch.autograd.grad(signed_distance(before).sum(), before)
    torch.testing.assert_close(normals(point)[..., met], gradient[..., met], rtol=0, atol=1e-5)
    for share in torch.linspace(0, 0.999, 200):  # nothing is met on the way there, nor on the whole way of a miss
        assert signed_distance(rays.at(share * torch.where(met, distance, 10.0))).min() > -1e-9
    if name != "room":  # what lies behind is not met
        assert not meet(Rays(rays.origin, -rays.direction))[0][:, met].isfinite().any()


@pytest.mark.parametrize("name", SURFACES)
def test_numbers_go_where_the_rays_are(double, name, monkeypatch):
    """PyTorch's meta device stands in for a GPU: what stays behind on the CPU meets it there."""
    here = some_rays(inside=False, count=2)
    rays = Rays(here.origin.to("meta"), here.direction.to("meta"))
    for what in ("CENTRE", "HALF", "ENDS"):
        monkeypatch.setitem(globals(), what, globals()[what].to("meta"))
    distance, normals = SURFACES[name][0](rays)
    assert normals(rays.at(distance)).device.type == "meta"


def test_each_scene_of_a_batch_has_its_own_surfaces(double):
    ahead = torch.tensor([[0.0], [0.0], [1.0]]).expand(2, 3, 1)
    distance, _ = raycast.sphere(
        Rays(-5 * ahead, ahead), torch.tensor([[0, 0, 0], [0, 0, 2.0]]), torch.tensor([1, 0.5])
    )
    assert distance.tolist() == [[4.0], [6.5]]


def test_the_camera_looks_at_its_target_upright_and_from_left_to_right(double):
    position, target = torch.tensor([[1.0, 2.0, -5.0]]), torch.tensor([[0.5, 1.0, 0.0]])
    rays = raycast.camera_rays(position, target, size=9, view=60.0, samples=1)
    directions = rays.direction[0].view(3, 9, 9)
    torch.testing.assert_close(length(rays.direction), torch.ones(1, 81))
    torch.testing.assert_close(directions[:, 4, 4], F.normalize(target - position)[0])
    assert directions[0, 4, 8] > directions[0, 4, 0]  # x grows to the right
    assert directions[1, 0, 4] > directions[1, 8, 4]  # y grows upwards, rows count downwards
    edge = math.atan(math.tan(math.radians(30)) * 8 / 9)  # middle of the outermost pixel
    assert (directions[:, 4, 8] @ directions[:, 4, 4]).acos().item() == pytest.approx(edge)
    straight = [raycast.camera_rays(-torch.eye(3)[2:], torch.zeros(1, 3), 8, samples=n) for n in (3, 1)]
    fine, coarse = (rays.direction[:, :2] / rays.direction[:, 2:] for rays in straight)
    torch.testing.assert_close(raycast.average_samples(fine, 8, 3), coarse.unflatten(-1, (8, 8)))


def test_the_nearest_surface_is_seen_with_its_number_and_normal(double):
    rays = Rays(torch.zeros(1, 3, 1), torch.tensor([[[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]]))
    intersections = [
        (7, raycast.room(rays, torch.zeros(3), torch.full((3,), 9.0))),
        (2, raycast.sphere(rays, torch.tensor([0.0, 0.0, 6.0]), 1.0)),
        (5, raycast.box(rays, torch.tensor([0.0, 0.0, 4.0]), torch.full((3,), 0.5))),
    ]
    hits = raycast.nearest(rays, intersections)
    assert hits.surface.tolist() == [[5, 7]]
    assert hits.point[0].T.tolist() == [[0, 0, 3.5], [9, 0, 0]]
    assert hits.normal[0].T.tolist() == [[0, 0, -1], [-1, 0, 0]]


def test_irradiance_by_hand_and_shadow_rays_from_a_surface_to_the_lamp(double):
    """A lamp 2 above a floor, 0 and 2 to the side: cosines 1 and 1/√2, distances 2 and √8; from below only ambient."""
    point = torch.tensor([[[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    up = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 1.0, -1.0], [0.0, 0.0, 0.0]]])
    light = Light(torch.tensor([[0.0, 2.0, 0.0]]), torch.tensor([0.8]), ambient=0.1, reach=4.0)
    expected = torch.tensor([[0.1 + 0.8 / 1.25, 0.1 + 0.8 * 0.5**0.5 / 1.5, 0.1]])
    torch.testing.assert_close(raycast.irradiance(point, up, light), expected)
    expected[0, 0] = 0.1
    torch.testing.assert_close(raycast.irradiance(point, up, light, torch.tensor([[True, False, False]])), expected)
    rays, distance = raycast.shadow_rays(point[..., :2], up[..., :2], light)
    torch.testing.assert_close(rays.at(distance), light.position[..., None].expand(-1, -1, 2))
    floor = raycast.box(rays, torch.tensor([0.0, -1.0, 0.0]), torch.tensor([5.0, 1.0, 5.0]))
    assert floor[0].isinf().all()


def test_hues_agree_with_the_standard_library(double):
    hues = torch.linspace(0, 0.99, 23)
    for saturation, value in ((1.0, 1.0), (0.4, 0.7)):
        expected = [colorsys.hsv_to_rgb(hue, saturation, value) for hue in hues.tolist()]
        torch.testing.assert_close(raycast.hue_colour(hues, saturation, value), torch.tensor(expected))


def test_a_cache_computes_once_what_it_has_room_for_and_forgets_the_oldest(double):
    asked = []

    def function(keys):
        asked.extend(keys.tolist())
        return keys[:, None] * torch.tensor([1.0, 10.0]), keys.to(torch.uint8)

    def ask(*keys):
        rows, small = cache(torch.tensor(keys))
        assert rows.tolist() == [[key, 10 * key] for key in keys]
        assert small.tolist() == list(keys)
        new, asked[:] = list(asked), []
        return new

    cache = Cache(function, limit=3 * 17)  # rows of 2 × 8 + 1 bytes
    assert [ask(3, 1, 3), ask(1, 4), ask(4, 3, 1), ask(5), ask(4, 1, 5), ask(3)] == [[1, 3], [4], [], [5], [1], [3]]
    assert ask(*range(20)) == [key for key in range(20) if key not in (1, 3, 5)]
    assert ask(19, 18, 17) == []


# --- scenes -------------------------------------------------------------------------------------------------------

COLOURS = {"floor_hue": "floor", "wall_hue": "wall", "object_hue": "object", "object_colour": "object"}
COLOURS |= {"wall_colour": "wall"}
EVERY = [(name, factor) for name, scene in SCENES.items() for factor in scene.space.names]
each = pytest.mark.parametrize("name", SCENES)


@pytest.fixture(scope="module")
def scenes():
    return {name: load_scene(name, 32) for name in SCENES}


def moved(scene, factor, count=6):
    """Grid indices (count, size): random scenes in which one factor runs through all of its values."""
    position = scene.space.position(factor)
    factors = scene.space.factors(torch.randint(len(scene.space), (count,), generator=torch.Generator().manual_seed(0)))
    factors[:, position] = 0
    return scene.space.index(factors)[:, None] + scene.space.strides[position] * torch.arange(
        scene.space.sizes[position]
    )


@pytest.mark.parametrize(("name", "factor"), EVERY)
def test_each_factor_visibly_moves_only_geometry_only_light_or_only_one_colour(scenes, name, factor):
    scene = scenes[name]
    index = moved(scene, factor)
    frames = scene.frames(index).int()
    change = frames.diff(dim=1).abs()
    # all but a few scenes: an object may hide behind another, and a lamp may shine past everything
    assert ((change.flatten(2).amax(-1) >= 3).float().mean(0) > 0.8).all()
    coverage = scene.coverage(index.flatten()).unflatten(0, index.shape)
    if factor in scene.geometry:
        assert (coverage.diff(dim=1).abs().amax((2, 3, 4)) > 0).float().mean() > 0.8
        return
    assert not coverage.diff(dim=1).any()
    if factor in scene.lighting:
        assert factor != "lighting_intensity" or (frames.diff(dim=1) >= 0).all()
        return
    painted = coverage[:, 1:, scene.surfaces.index(COLOURS[factor])]
    assert (painted == 0).any()
    assert not change.amax(2)[painted == 0].any()
    assert (change.amax(2)[painted == 1] > 0).all()


def test_scale_and_shape_leave_the_room_alone_but_for_the_shadow(scenes):
    scene = scenes["shapes3d-lite"]
    for factor in ("scale", "shape"):
        index = moved(scene, factor)
        coverage = scene.coverage(index.flatten()).unflatten(0, index.shape)
        change = scene.frames(index).int().diff(dim=1).abs().amax(2)
        floor, wall = ((coverage[:, 1:, k] == 1) & (coverage[:, :-1, k] == 1) for k in (0, 1))
        assert wall.any()
        assert not change[wall].any()
        assert 0.7 < (change == 0)[floor].float().mean() < 1


def test_the_object_casts_a_shadow_on_the_floor(scenes):
    scene, shadowless = scenes["shapes3d-lite"], load_scene("shapes3d-lite", 32)
    shadowless.shadows = False
    index = scene.space.index(torch.tensor([[0, 5, 2, 4, 2, 7]]))
    floor = scene.coverage(index)[0, 0] == 1
    with_shadow, without = (one.frames(index)[0, 0][floor].int() for one in (scene, shadowless))
    assert with_shadow.max() > 1.5 * with_shadow.min()
    assert (without >= with_shadow).all()
    assert 0.02 < (without > with_shadow).float().mean() < 0.3


@each
def test_coverage_shares_out_each_pixel(scenes, name):
    scene = scenes[name]
    coverage = scene.coverage(torch.randint(len(scene.space), (8,), generator=torch.Generator().manual_seed(1)))
    assert coverage.shape == (8, len(scene.surfaces), 32, 32)
    torch.testing.assert_close(coverage.sum(1), torch.ones(8, 32, 32))
    assert (coverage.amax((0, 2, 3)) > 0).all()  # every surface is seen somewhere


@each
def test_a_pixel_depends_on_its_index_alone(scenes, name):
    """Not on what is rendered beside it, in which order, in how many pieces, or what is kept."""
    scene, fresh, forgetful = scenes[name], load_scene(name, 32), load_scene(name, 32)
    index = torch.randint(len(scene.space), (24,), generator=torch.Generator().manual_seed(2))
    together = scene.frames(index)
    assert (together.shape, together.dtype) == ((24, 3, 32, 32), torch.uint8)
    assert torch.equal(torch.cat([fresh.frames(one[None]) for one in index.flip(0)]), together.flip(0))
    forgetful._layers = Cache(forgetful._light_up, limit=1)
    assert torch.equal(forgetful.frames(index.view(4, 6), chunk=5), together.view(4, 6, 3, 32, 32))
    assert scene.frames(index[:0]).shape == (0, 3, 32, 32)
    assert torch.equal(scene.frames(index[0]), together[0])


@each
def test_other_sizes_show_the_same_scene(name):
    small, large = load_scene(name, 32), load_scene(name, 128)
    index = torch.randint(len(small.space), (3,), generator=torch.Generator().manual_seed(3))
    shrunk = F.avg_pool2d(large.frames(index).float(), 4)
    assert (large.image_shape, large.name) == ((3, 128, 128), f"{name}, 128 px")
    assert (shrunk - small.frames(index)).abs().mean() < 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@each
def test_a_graphics_card_renders_the_same(name):
    index = torch.randint(len(SCENES[name].space), (16,), generator=torch.Generator().manual_seed(4))
    here, there = (load_scene(name, 64, device).frames(index).cpu().int() for device in ("cpu", "cuda"))
    assert ((here - there).abs() <= 1).float().mean() > 0.999


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_scene("shapes3d"), "unknown scene 'shapes3d'; known: shapes3d-lite, falcor3d-lite, isaac3d-lite"),
        (lambda: load_scene("shapes3d-lite", 4), "at least 8 pixels and 1 sample along each side, got 4 and 2"),
        (lambda: load_scene("shapes3d-lite", 8).frames(torch.tensor([480_000])), r"integers in 0\.\.479999"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
