"""The ray caster against signed distance functions, which know each surface by another route."""

import colorsys
import math

import pytest
import torch

from poflow_lite.datasets import raycast
from poflow_lite.datasets.raycast import Light, Memory, Rays

pytestmark = pytest.mark.usefixtures("double")
RAYS = 3000


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
    "sphere": (
        lambda rays: raycast.sphere(rays, CENTRE, 0.8),
        lambda point: length(point - CENTRE[:, None]) - 0.8,
    ),
    "box": (
        lambda rays: raycast.box(rays, CENTRE, HALF),
        lambda point: box_distance(point - CENTRE[:, None], HALF),
    ),
    "turned box": (
        lambda rays: raycast.box(rays, CENTRE, HALF, 0.6),
        lambda point: box_distance(turned(point - CENTRE[:, None], 0.6), HALF),
    ),
    "cylinder": (
        lambda rays: raycast.cylinder(rays, CENTRE, 0.5, 0.7),
        lambda point: cylinder_distance(point - CENTRE[:, None], 0.5, 0.7),
    ),
    "capsule": (
        lambda rays: raycast.capsule(rays, *ENDS, 0.4),
        lambda point: capsule_distance(point, *ENDS, 0.4),
    ),
    "room": (
        lambda rays: raycast.room(rays, CENTRE, 3 * HALF),
        lambda point: -box_distance(point - CENTRE[:, None], 3 * HALF),
    ),
}


def some_rays(inside):
    generator = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(1, 3, RAYS, generator=generator), dim=-2)
    if inside:
        return Rays(CENTRE[None, :, None] + 0.3, direction)
    aim = 1.2 * (2 * torch.rand(1, 3, RAYS, generator=generator) - 1)
    return Rays(aim - 5 * direction, direction)


@pytest.mark.parametrize("name", SURFACES)
def test_rays_stop_where_the_distance_function_first_reaches_zero_with_its_gradient_for_a_normal(name):
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
        on_the_way = signed_distance(rays.at(share * torch.where(met, distance, 10.0)))
        assert on_the_way.min() > -1e-9


@pytest.mark.parametrize("name", [name for name in SURFACES if name != "room"])
def test_what_lies_behind_is_not_met(name):
    rays = some_rays(inside=False)
    ahead = SURFACES[name][0](rays)[0].isfinite()
    assert not SURFACES[name][0](Rays(rays.origin, -rays.direction))[0][ahead].isfinite().any()


def test_each_scene_of_a_batch_has_its_own_surfaces():
    rays = Rays(
        torch.tensor([0.0, 0.0, -5.0]).expand(2, 3)[..., None], torch.tensor([[0.0], [0.0], [1.0]]).expand(2, 3, 1)
    )
    distance, _ = raycast.sphere(rays, torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), torch.tensor([1.0, 0.5]))
    assert distance.tolist() == [[4.0], [6.5]]


def test_the_camera_looks_at_its_target_upright_and_from_left_to_right():
    position, target = torch.tensor([[1.0, 2.0, -5.0]]), torch.tensor([[0.5, 1.0, 0.0]])
    rays = raycast.camera_rays(position, target, size=9, view=60.0, samples=1)
    directions = rays.direction[0].view(3, 9, 9)
    torch.testing.assert_close(length(rays.direction), torch.ones(1, 81))
    ahead = torch.nn.functional.normalize(target - position)[0]
    torch.testing.assert_close(directions[:, 4, 4], ahead)
    assert directions[0, 4, 8] > directions[0, 4, 0]  # x grows to the right
    assert directions[1, 0, 4] > directions[1, 8, 4]  # y grows upwards, rows count downwards
    edge = math.atan(math.tan(math.radians(30)) * 8 / 9)  # middle of the outermost pixel
    torch.testing.assert_close((directions[:, 4, 8] @ ahead).acos(), torch.tensor(edge))


def test_samples_are_averaged_over_their_own_pixel():
    position, target = torch.tensor([[0.0, 0.0, -1.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    fine, coarse = (raycast.camera_rays(position, target, 8, samples=n) for n in (3, 1))
    slopes = [rays.direction[:, :2] / rays.direction[:, 2:] for rays in (fine, coarse)]
    torch.testing.assert_close(raycast.average_samples(slopes[0], 8, 3), slopes[1].unflatten(-1, (8, 8)))


def test_the_nearest_surface_is_seen_with_its_number_and_normal():
    rays = Rays(torch.zeros(1, 3, 1), torch.tensor([[[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]]))
    meetings = [
        (7, raycast.room(rays, torch.zeros(3), torch.full((3,), 9.0))),
        (2, raycast.sphere(rays, torch.tensor([0.0, 0.0, 6.0]), 1.0)),
        (5, raycast.box(rays, torch.tensor([0.0, 0.0, 4.0]), torch.full((3,), 0.5))),
    ]
    hits = raycast.nearest(rays, meetings)
    assert hits.surface.tolist() == [[5, 7]]
    assert hits.point[0].T.tolist() == [[0, 0, 3.5], [9, 0, 0]]
    assert hits.normal[0].T.tolist() == [[0, 0, -1], [-1, 0, 0]]


def test_irradiance_by_hand():
    """A lamp 2 above a floor, 0 and 2 to the side: cosines 1 and 1/√2, distances 2 and √8; from below only ambient."""
    point = torch.tensor([[[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    up = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 1.0, -1.0], [0.0, 0.0, 0.0]]])
    light = Light(torch.tensor([[0.0, 2.0, 0.0]]), torch.tensor([0.8]), ambient=0.1, reach=4.0)
    expected = torch.tensor([[0.1 + 0.8 / 1.25, 0.1 + 0.8 * 0.5**0.5 / 1.5, 0.1]])
    torch.testing.assert_close(raycast.irradiance(point, up, light), expected)
    shadowed = torch.tensor([[True, False, False]])
    expected[0, 0] = 0.1
    torch.testing.assert_close(raycast.irradiance(point, up, light, shadowed), expected)


def test_shadow_rays_reach_the_lamp_and_not_their_own_surface():
    point, up = torch.tensor([[[1.0], [0.0], [1.0]]]), torch.tensor([[[0.0], [1.0], [0.0]]])
    light = Light(torch.tensor([[1.0, 3.0, 2.0]]), torch.ones(1))
    rays, distance = raycast.shadow_rays(point, up, light)
    torch.testing.assert_close(rays.at(distance), light.position[..., None])
    floor = raycast.box(rays, torch.tensor([0.0, -1.0, 0.0]), torch.tensor([5.0, 1.0, 5.0]))
    assert floor[0].isinf().all()


def test_hues_agree_with_the_standard_library():
    hues = torch.linspace(0, 0.99, 23)
    for saturation, value in ((1.0, 1.0), (0.4, 0.7)):
        expected = [colorsys.hsv_to_rgb(hue, saturation, value) for hue in hues.tolist()]
        torch.testing.assert_close(raycast.hue_colour(hues, saturation, value), torch.tensor(expected))


# --- what need not be computed twice ------------------------------------------------------------------------------


def counted(limit):
    asked = []

    def function(keys):
        asked.extend(keys.tolist())
        return keys[:, None] * torch.tensor([1.0, 10.0]), keys.to(torch.uint8)

    return Memory(function, keys=20, limit=limit), asked


def values(memory, keys):
    rows, small = memory(torch.tensor(keys))
    assert rows.tolist() == [[key, 10 * key] for key in keys]
    assert small.tolist() == keys


def test_a_value_is_computed_once_and_comes_back_for_every_repetition():
    memory, asked = counted(limit=10**6)
    values(memory, [3, 1, 3])
    values(memory, [1, 4, 3, 3])
    assert sorted(set(asked)) == [1, 3, 4]
    assert asked.count(3) <= 2  # the first key is also computed to see how large a row is
    assert asked.count(4) == 1


def test_the_oldest_are_forgotten_when_the_room_is_full_and_none_that_is_wanted():
    memory, asked = counted(limit=3 * 17)  # rows of 2 × 8 + 1 bytes
    assert len(memory(torch.tensor([0]))[0]) == 1
    assert len(memory.key_of_row) == 3
    for keys in ([0, 1, 2], [2, 5], [5, 2, 6], [0, 6, 2], [7, 8, 9], [9, 8, 0], [3, 3, 9]):
        values(memory, keys)
    asked.clear()
    values(memory, [3, 9])
    assert asked == []


def test_more_keys_than_there_is_room_for_are_answered_all_the_same():
    memory, _ = counted(limit=3 * 17)
    values(memory, list(range(20)))
    values(memory, [5, 5, 4, 3, 2, 1, 19])
