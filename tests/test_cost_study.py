"""Costs: exponents and operations with known answers, parts that are the parts of a step, training to an error."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from tiny import generator
from torch.utils.flop_counter import FlopCounterMode

from poflow_lite.experiments import MODELS, build_model, recipe
from poflow_lite.studies import cost, report, run_study
from poflow_lite.studies import cost_measures as measures
from poflow_lite.studies.cost_measures import AXES, PARTS, fit_exponent, noise_batch, settings_at, step_times

TINY = {"batch_size": 4, "channels": (4, 8), "hidden": 16, "width": 4, "latent": 16}
RESULTS = Path(__file__).parents[1] / "data/results"


# --- exponents ----------------------------------------------------------------------------------------------------

DISTURBED = np.tile([1.0, 2.0, 4.0], (5, 1)) * (1 + 1000 * (np.arange(15) == 8)).reshape(5, 3)


@pytest.mark.parametrize(
    ("values", "times", "last", "slope"),
    [
        ([16, 32, 64, 128], [0.3] * 4, 3, 0),
        ([16, 32, 64, 128], 0.3 * np.array([16, 32, 64, 128]) ** 2.5, 3, 2.5),
        ([64, 1, 32, 16, 2], [64, 900, 32, 16, 900], 3, 1),  # only the large end counts, in whatever order
        ([1, 2, 4], [1, 1, 4], 2, 2),
        ([8, 16], [50 + 8**2, 50 + 16**2], 3, np.log2(306 / 114)),  # an overhead pulls it down
        ([1, 2, 4], DISTURBED, 3, 1),  # and one repetition does not
    ],
)
def test_exponents_with_a_known_answer(values, times, last, slope):
    assert fit_exponent(values, times, last).slope == pytest.approx(slope, abs=1e-12)


def test_the_interval_comes_from_the_repetitions():
    values, noise = np.array([16.0, 32, 64, 128]), np.random.default_rng(1)
    quiet, loud = (values**1.5 * np.exp(size * noise.standard_normal((40, 4))) for size in (0.05, 0.2))
    found, wider, single = (fit_exponent(values, times) for times in (quiet, loud, quiet[0]))
    assert found.low < 1.5 < found.high < found.low + 0.1
    assert found == fit_exponent(values, quiet)  # the redraws have a seed
    assert wider.high - wider.low > 2 * (found.high - found.low)
    assert single == pytest.approx([single.slope] * 3)


# --- the formula, and the parts of a step -------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "k"), [({}, 3), ({"latent": 24, "width": 7, "horizon": 5, "frequencies": 3}, 2)])
def test_operations_of_transport_are_those_that_pytorch_counts(changes, k):
    """All but the LU factorisation, which PyTorch's counter does not know."""
    settings, _ = settings_at("flow-factorized", "batch_size", 6, **TINY | changes)
    model = build_model("flow-factorized", settings, transformations=k)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        path = model.rollout(torch.randn(6, settings.latent), torch.arange(6) % k, range(settings.horizon + 1))
        assert path.log_det.shape == (6, settings.horizon)
    factorisation = 6 * settings.horizon * settings.latent**3 / 3
    assert measures.transport_operations(settings, k) - factorisation == counter.get_total_flops() / 2


@pytest.mark.skipif(torch.__version__ < "2.4", reason="PyTorch names no modules when it counts, before 2.4")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pixels": 32, "channels": (3, 5, 7), "hidden": 11, "autoencoding": 0.0},
        {"network": "patches", "channels": (6,)},
    ],
)
def test_operations_of_the_networks_are_those_of_a_step(changes):
    """PyTorch counts all that passes the two networks in one evaluation of the objective."""
    settings, k = settings_at("flow-factorized", "batch_size", 4, **TINY | changes | {"hamilton_jacobi": 0.0})
    model = build_model("flow-factorized", settings, (3, settings.pixels, settings.pixels))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.terms(noise_batch(settings, k, generator()), generator())
    counts = counter.get_flop_counts()
    counted = sum(sum(counts[type(network).__name__].values()) for network in (model.encoder, model.decoder))
    assert measures.network_operations(settings) == counted / 2


@pytest.mark.parametrize("autoencoding", [0.0, 0.05])
def test_the_parts_are_those_of_a_step(autoencoding):
    """By how many images pass encoder and decoder, and by who has a gradient."""
    settings, k = settings_at("flow-factorized", "batch_size", 4, **TINY, autoencoding=autoencoding)
    batch, passed = noise_batch(settings, k, generator()), []
    for loss in (measures._whole, *(loss for loss, _ in PARTS.values())):
        model, images = build_model("flow-factorized", settings), []
        for network in (model.encoder, model.decoder):
            network.register_forward_hook(lambda module, given, _, images=images: images.append(len(given[0])))
        loss(model, batch, generator()).backward()
        has_gradient = [p.grad is not None for p in (model.encoder.network[0].weight, model.flow.field.inner)]
        passed.append((sum(images), has_gradient))
    (whole, _), transport, networks = passed
    assert transport == (0, [False, True])
    assert networks == (whole, [True, False])


# --- time and memory ----------------------------------------------------------------------------------------------


def test_all_take_turns_and_the_first_turn_is_not_counted(monkeypatch):
    """On a clock that runs only while work is done: 1 s for the first piece of each, then 1, 2, … (10, 20, …) ms."""
    clock, done = [0.0], []
    monkeypatch.setattr(measures, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def work(name, scale):
        clock[0] += scale * done.count(name) / 1e3 if name in done else 1.0
        done.append(name)

    pieces = {name: lambda name=name, scale=scale: work(name, scale) for name, scale in (("a", 1), ("b", 10))}
    found = measures.in_turns(pieces, 3, torch.device("cpu"))
    assert found == {"a": pytest.approx([1.0, 2.0, 3.0]), "b": pytest.approx([10.0, 20.0, 30.0])}
    assert done == ["a", "b"] * 4


@pytest.mark.parametrize(
    ("axis", "values", "models"),
    [
        ("latent", (16, 32), [*MODELS]),
        ("horizon", (2, 5), ["weakly-supervised", "poflow"]),
        ("transformations", (1, 7), ["weakly-supervised", "poflow"]),
        ("batch_size", (2, 3), ["vae"]),
        ("pixels", (8, 16), ["weakly-supervised"]),
    ],
)
def test_medians_quartiles_and_exponents_of_every_model_and_part(monkeypatch, axis, values, models):
    """Every model takes one real step at both values; the clock says v ms at value v, 1 ms more in each round."""

    def turns(work, rounds, device):
        for step in work.values():
            step()
        return {(name, value): [value + i for i in range(rounds)] for name, value in work}

    monkeypatch.setattr(measures, "in_turns", turns)
    found = step_times(models, axis, values, rounds=3, **TINY)
    assert list(found["curves"]) == [*models, *PARTS]
    for curve in found["curves"].values():
        assert curve["measured"] == [value + 1 for value in values]
        assert curve["quartiles"] == [[value + 0.5, value + 1.5] for value in values]
        slope = np.log((values[1] + 1) / (values[0] + 1)) / np.log(values[1] / values[0])
        assert curve["exponent"]["slope"] == pytest.approx(slope)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (fit_exponent, ([4, 4], [1.0, 2.0]), "at least two different values"),
        (fit_exponent, ([4, 4, 8], [1.0, 1.0, 2.0]), "n = 3 different values"),
        (fit_exponent, ([4, 8], [1.0, 2.0, 3.0]), r"n = 2 different values, got \(1, 3\)"),
        (fit_exponent, ([4, 8], [1.0, np.nan]), "positive and finite"),
        (step_times, (["vae"], "depth", (1, 2)), "unknown setting of vae 'depth'; known: steps, "),
        (step_times, (["vae"], "latent", (16,)), r"two or more different values, in one round or more, got \[16\]"),
        (step_times, (["vae"], "latent", (16, 0)), "latent must be a whole number of at least 1, got 0"),
        (step_times, (["vae"], "horizon", (1, 2)), r"times must lie in 0\.\.1"),
        (step_times, (["vae"], "pixels", (16, 30)), "multiples of 4, got 30×30"),
    ],
)
def test_mistakes_are_named(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments, **({"parts": False, **TINY} if function is step_times else {}))


def test_memory_grows_with_the_batch_and_not_with_this_process():
    pytest.importorskip("resource", reason="memory of a process is read where there is the module resource")
    ballast = torch.ones(2**27)  # 512 MiB: what this process holds is not the other's
    settings = recipe("digits", "smoke", "vae", channels=(16, 32), hidden=16, batch_size=512)
    activations = 512 * 3 * (16 * 14 * 14) * 4 / 2**20  # of the first convolution alone: 18 MiB
    assert 2 * activations < measures.peak_memory("vae", settings, steps=1) < 0.75 * ballast.nbytes / 2**20


# --- training to an error -----------------------------------------------------------------------------------------


def trainings(model, errors):
    """The second operator is better with one seed, and worse on the whole."""
    return [
        {"kind": "training", "model": model, "steps": n, "seed": s, "errors": {"flow": e, "linear": e + 0.2 - 0.3 * s}}
        for (n, s), e in errors.items()
    ]


def test_the_first_number_of_steps_that_reaches_a_threshold_with_every_seed():
    """1 step of "two" lacks a seed and does not count, nor does a model that lacks one at every step, or its time."""
    one = trainings("one", {(n, s): e for n, e in {500: 0.2, 125: 0.9, 250: 0.5}.items() for s in (0, 1)})
    two = trainings("two", {(1, 0): 0.1, (2, 0): 0.3, (2, 1): 0.6, (4, 0): 0.7, (4, 1): 0.1})
    steps = {"kind": "recipe", "milliseconds": {"one": 10.0, "two": 40.0, "lucky": 1.0}}
    lucky = trainings("lucky", {(1, 0): 0.0, (2, 0): 0.0})
    cells = [*one, *two, *lucky, *trainings("untimed", {(1, 0): 0.0, (1, 1): 0.0}), steps]
    result = {"cells": cells, "settings": {"thresholds": [0.5, 0.42, 0.1], "seeds": [0, 1]}}
    assert cost.mean_errors(result)["two"] == (40.0, {2: pytest.approx(0.45), 4: pytest.approx(0.4)})
    assert cost.table(result)["found"].tolist() == ["2.5 (250), 5.0 (500), never", "0.080 (2), 0.16 (4), never"]


# --- how much a time scatters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (1851.2, "1900"),
        (116.25, "120"),
        (57.77, "58"),
        (9.96, "10"),
        (1.04, "1.0"),
        (0.0519, "0.052"),
        (2e6, "2000000"),
    ],
)
def test_what_was_measured_has_two_digits_and_no_exponent(x, text):
    assert cost.two_digits(x) == text


def sized(kind, axis, values, one, part):
    curves = {"one": {"measured": one}, measures.TRANSPORT: {"measured": part}}
    return {"kind": kind, "axis": axis, "values": values, "reference": {"latent": 32, "horizon": 8, "pixels": 28},
            "curves": curves}  # fmt: skip


def test_scatter_is_that_of_the_same_sizes_over_the_axes_that_have_them():
    """28 pixels are not among those of the third axis, whose times are those of other steps."""
    cells = [
        sized("time", "latent", [16, 32], [1.0, 3.0], [9.0, 2.0]),
        sized("time", "horizon", [8, 16], [2.0, 90.0], [5.0, 1.0]),
        sized("time", "pixels", [16, 32], [700.0, 0.1], [1.0, 1.0]),
        sized("memory", "latent", [16, 32], [1.0, 3.0], [1.0, 1.0]),
    ]
    assert cost.scatter({"cells": cells}) == {"one": 1.5, measures.TRANSPORT: 2.5}
    assert cost.scatter({"cells": cells}, "memory") == {}, "measured once, it cannot differ"


# --- the study ----------------------------------------------------------------------------------------------------

TWO = ["vae", "flow-factorized"]
ASKED = {"budget": "smoke", "axes": ["latent"], "models": TWO, "sized": TWO, "seeds": [0, 1], "steps": [1, 2],
         "thresholds": [1e6, 1e-6], "images": 4, "rounds": 1, "memory": True,
         "device": "cpu", "changes": TINY}  # fmt: skip


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Run it with two sizes, memory that cannot be had of one model, and few images that fit an operator."""

    def memory(model, settings, transformations):
        if model == "vae":
            return float(settings.latent**2)
        raise RuntimeError("no memory left")

    monkeypatch.setitem(AXES, "latent", (16, 32))
    monkeypatch.setattr(measures, "peak_memory", memory)
    few = cost.validation_errors
    monkeypatch.setattr(cost, "validation_errors", lambda *asked: few(*asked, operator_images=20))
    return lambda **options: run_study(cost.STUDY, tmp_path / "out", progress=False, **{**ASKED, **options})


def test_the_study_measures_everything_once_and_shows_it(study, tmp_path, monkeypatch):
    result = study()
    assert result["failed"] == {"memory-latent": "RuntimeError: no memory left"}
    trained = [cell["errors"] for cell in result["cells"] if cell["kind"] == "training"]
    assert [list(errors) for errors in trained] == [["linear"]] * 4 + [["linear", "flow"]] * 4
    assert len({error for errors in trained for error in errors.values()}) == 12
    for module, name in ((measures, "in_turns"), (cost, "train_recipe")):
        monkeypatch.setattr(module, name, lambda *a, **o: pytest.fail("done again"))
    monkeypatch.setattr(measures, "peak_memory", lambda model, settings, k: float(settings.latent**2))
    again = study()  # what had failed is tried again, all else is kept
    assert again["failed"] == {}
    assert [cell for cell in again["cells"] if cell["kind"] != "memory"] == result["cells"]
    text = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    for part in ("| latent | vae | 16, 32 | 260, 1000 | 2.00 |", "(1), never", "(validation, 180 images)",
                 "fixed start, 4 measured", "2 trainings, seeds 0, 1, for each model"):  # fmt: skip
        assert part in text
    assert "differs by up to" not in text, "one axis alone tells no scatter"

    times, memory, error = (axis for axis in cost.figure(again).axes if axis.get_visible())
    assert [line.get_label() for line in error.lines[:2]] == TWO
    (curves,) = (cell["curves"] for cell in again["cells"] if cell["kind"] == "time")
    solid = [list(line.get_ydata()) for line in times.lines if line.get_linestyle() == "-"]
    assert solid == [curve["measured"] for name, curve in curves.items() if name != measures.NETWORKS]
    assert list(memory.lines[0].get_ydata()) == [256.0, 1024.0]
    milliseconds, means = cost.mean_errors(again)["vae"]
    assert error.lines[0].get_xydata().tolist() == [[n * milliseconds / 1e3, mean] for n, mean in means.items()]


def recorded():
    return json.loads((RESULTS / "digits-cost.json").read_text(encoding="utf-8"))


def test_table_and_figure_of_the_record(tmp_path):
    record = recorded()
    text = report(cost.STUDY, record, tmp_path)
    shown = "2.28 (2.25 to 2.35) | 2.16 |", "15 (250), 31 (500), 62 (1,000)", record["command"]
    assert all(part in text for part in shown)
    assert (tmp_path / "cost.png").stat().st_size > 20_000


def test_the_notes_of_the_record_say_how_large_the_scatter_is_and_of_how_many_seeds():
    """74.2 ÷ 70.5 ms of flow-factorized, 57.3 ÷ 49.7 ms of its networks alone, 83.0 ÷ 73.4 MiB of free-flow."""
    said = " ".join(cost.notes(recorded()))
    assert (
        "timed for each axis (latent, horizon, batch size), differs by up to a factor of 1.05, and a part of it by "
        "up to 1.15: read exponents, not single times. Its memory differs by up to a factor of 1.13."
    ) in said
    assert "One training, seed 0, for each model and number of steps" in said
    assert "medians of 7 repetitions" in said
    without = recorded() | {"cells": [cell for cell in recorded()["cells"] if cell["kind"] in ("memory", "training")]}
    assert not any(word in " ".join(cost.notes(without)) for word in ("Formula", "Brackets", "repetitions"))


@pytest.fixture(scope="module")
def drawn():
    fig = cost.figure(recorded())
    fig.draw_without_rendering()
    return fig, [axis for axis in fig.axes if axis.get_visible()]


def test_legends_of_the_record_cover_no_panel_and_name_every_line(drawn):
    fig, panels = drawn
    assert len(panels) == 13
    assert not any(axis.get_legend() for axis in panels)
    boxes = [legend.get_window_extent() for legend in fig.legends]
    assert len(boxes) == 2
    assert not any(box.overlaps(axis.get_tightbbox()) for box in boxes for axis in panels)
    named = [{text.get_text() for text in legend.get_texts()} for legend in fig.legends]
    lines = [{line.get_label() for line in axis.lines if not line.get_label().startswith("_")} for axis in panels]
    assert (set.union(*lines[:10]), set.union(*lines[10:])) == tuple(named)
    looks = {(line.get_label(), line.get_color(), line.get_marker()) for axis in panels[10:] for line in axis.lines}
    assert len({look[1:] for look in looks if not look[0].startswith("_")}) == len(named[1]) == 10


def test_every_axis_of_the_record_has_plain_ticks_and_type_that_can_be_read(drawn):
    fig, panels = drawn
    for axis in (axis for panel in panels for axis in (panel.xaxis, panel.yaxis)):
        low, high = axis.get_view_interval()
        texts = [tick.label1.get_text() for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        assert len(texts) >= 3
        assert all(float(text) >= 0 and "e" not in text for text in texts), texts
    assert min(text.get_fontsize() for text in fig.findobj(Text) if text.get_text()) >= 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": ["depth"]}, "unknown axis 'depth'; known: latent, horizon"),
        ({"models": ["gan"]}, "unknown model 'gan'"),
        ({"models": []}, "costs need models, sized ones, axes and numbers of steps"),
        ({"models": ["topographic-vae"], "changes": {**TINY, "capsules": 3}}, "capsules"),
        ({"steps": [0]}, r"steps\[0\] must be greater than or equal to 1"),
        ({"changes": {"steps": 4}}, "no change of the recipe"),
        ({"thresholds": [0.5, 0.0]}, r"thresholds\[1\] must be greater than 0"),
    ],
)
def test_a_study_refuses_mistakes_before_anything_is_measured(study, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        study(**options)
    assert not (tmp_path / "out").exists()
