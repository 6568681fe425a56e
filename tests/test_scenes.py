"""Rendered scenes: each factor changes what it should and nothing else, and pixels depend on their index alone."""

import pytest
import torch

from poflow_lite.datasets import SCENES, load_scene
from poflow_lite.datasets.raycast import Memory

COLOURS = {
    ("shapes3d-lite", "floor_hue"): "floor",
    ("shapes3d-lite", "wall_hue"): "wall",
    ("shapes3d-lite", "object_hue"): "object",
    ("isaac3d-lite", "object_colour"): "object",
    ("isaac3d-lite", "wall_colour"): "wall",
}


@pytest.fixture(scope="module")
def scenes():
    return {name: load_scene(name, 32) for name in SCENES}


def moved(scene, factor, count=6, seed=0):
    """Grid indices (count, size): random scenes in which one factor runs through all of its values."""
    position = scene.space.position(factor)
    factors = scene.space.sample(count, torch.Generator().manual_seed(seed))
    return scene.space.index(scene.space.move(factors, position, torch.arange(scene.space.sizes[position])))


EVERY = [(name, factor) for name, scene in SCENES.items() for factor in scene.space.names]


@pytest.mark.parametrize(("name", "factor"), EVERY)
def test_every_step_of_every_factor_can_be_seen(scenes, name, factor):
    frames = scenes[name].frames(moved(scenes[name], factor)).float()
    change = frames.diff(dim=1).abs().flatten(2)
    # all but a few scenes: an object may hide behind another, and a lamp may shine past everything
    assert ((change.amax(-1) >= 3).float().mean(0) > 0.8).all()


@pytest.mark.parametrize(("name", "factor"), EVERY)
def test_each_factor_moves_only_geometry_only_light_or_only_one_colour(scenes, name, factor):
    scene = scenes[name]
    index = moved(scene, factor)
    coverage = scene.coverage(index.flatten()).unflatten(0, index.shape)
    if factor in scene.geometry:
        assert (coverage.diff(dim=1).abs().amax((2, 3, 4)) > 0).float().mean() > 0.8
        return
    assert not coverage.diff(dim=1).any()
    if factor in scene.lighting:
        return
    painted = coverage[:, :, scene.surfaces.index(COLOURS[name, factor])] > 0
    frames = scene.frames(index).int()
    elsewhere = ~painted[:, 1:, None].expand_as(frames[:, 1:])
    assert elsewhere.any()
    assert not frames.diff(dim=1)[elsewhere].any()
    covered = (coverage[:, 1:, scene.surfaces.index(COLOURS[name, factor])] == 1)[:, :, None].expand_as(frames[:, 1:])
    assert (frames.diff(dim=1).abs().amax(2)[covered[:, :, 0]] > 0).all()


def test_scale_and_shape_leave_the_room_alone_but_for_the_shadow(scenes):
    scene = scenes["shapes3d-lite"]
    for factor in ("scale", "shape"):
        index = moved(scene, factor)
        coverage = scene.coverage(index.flatten()).unflatten(0, index.shape)
        frames = scene.frames(index).int()
        wall = (coverage[:, 1:, 1] == 1) & (coverage[:, :-1, 1] == 1)
        assert wall.any()
        assert not frames.diff(dim=1).abs().amax(2)[wall].any()
        floor = (coverage[:, 1:, 0] == 1) & (coverage[:, :-1, 0] == 1)
        still = (frames.diff(dim=1).abs().amax(2) == 0)[floor].float().mean()
        assert 0.7 < still < 1


def test_a_brighter_lamp_darkens_nothing(scenes):
    for name, factor in (("falcor3d-lite", "lighting_intensity"), ("isaac3d-lite", "lighting_intensity")):
        frames = scenes[name].frames(moved(scenes[name], factor)).int()
        assert (frames.diff(dim=1) >= 0).all()


def test_the_object_casts_a_shadow_on_the_floor(scenes):
    scene, shadowless = scenes["shapes3d-lite"], load_scene("shapes3d-lite", 32)
    shadowless.shadows = False
    index = scene.space.index(torch.tensor([[0, 5, 2, 4, 2, 7]]))
    floor = scene.coverage(index)[0, 0] == 1
    with_shadow, without = (one.frames(index)[0, 0][floor].int() for one in (scene, shadowless))
    assert with_shadow.max() > 1.5 * with_shadow.min()
    assert (without >= with_shadow).all()
    assert 0.02 < (without > with_shadow).float().mean() < 0.3


@pytest.mark.parametrize("name", SCENES)
def test_coverage_shares_out_each_pixel(scenes, name):
    scene = scenes[name]
    coverage = scene.coverage(torch.randint(len(scene.space), (8,), generator=torch.Generator().manual_seed(1)))
    assert coverage.shape == (8, len(scene.surfaces), 32, 32)
    torch.testing.assert_close(coverage.sum(1), torch.ones(8, 32, 32))
    assert (coverage.amax((0, 2, 3)) > 0).all()  # every surface is seen somewhere


@pytest.mark.parametrize("name", SCENES)
def test_a_pixel_depends_on_its_index_alone(scenes, name):
    """Not on what is rendered beside it, in which order, in how many pieces, or what is remembered."""
    scene = scenes[name]
    index = torch.randint(len(scene.space), (24,), generator=torch.Generator().manual_seed(2))
    together = scene.frames(index)
    assert together.shape == (24, 3, 32, 32)
    assert together.dtype == torch.uint8
    fresh = load_scene(name, 32)
    assert torch.equal(torch.cat([fresh.frames(one[None]) for one in index.flip(0)]), together.flip(0))
    forgetful = load_scene(name, 32)
    forgetful._layers = Memory(forgetful._light_up, len(forgetful._lit), limit=1)
    assert torch.equal(forgetful.frames(index.view(4, 6), chunk=5), together.view(4, 6, 3, 32, 32))
    assert scene.frames(index[:0]).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("name", SCENES)
def test_other_sizes_show_the_same_scene(name):
    small, large = load_scene(name, 32), load_scene(name, 128)
    index = torch.randint(len(small.space), (3,), generator=torch.Generator().manual_seed(3))
    shrunk = torch.nn.functional.avg_pool2d(large.frames(index).float(), 4)
    assert large.image_shape == (3, 128, 128)
    assert (shrunk - small.frames(index)).abs().mean() < 3
    assert large.name == f"{name}, 128 px"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", SCENES)
def test_a_graphics_card_renders_the_same(name):
    index = torch.randint(len(SCENES[name].space), (16,), generator=torch.Generator().manual_seed(4))
    here, there = (load_scene(name, 64, device).frames(index).cpu().int() for device in ("cpu", "cuda"))
    assert ((here - there).abs() <= 1).float().mean() > 0.999


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="unknown scene 'shapes3d'; known: shapes3d-lite, falcor3d-lite, isaac3d-lite"):
        load_scene("shapes3d")
    with pytest.raises(ValueError, match="at least 8 pixels and 1 sample along each side, got 4 and 2"):
        load_scene("shapes3d-lite", 4)
    with pytest.raises(ValueError, match=r"integers in 0\.\.479999"):
        load_scene("shapes3d-lite", 8).frames(torch.tensor([480_000]))
