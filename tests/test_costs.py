"""Costs: exponents and operations with known answers, parts that are the parts of a step, seconds to an error."""

import json
import sys

import numpy as np
import pytest
import torch
from tiny import generator
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from poflow_lite.cli import main
from poflow_lite.models import VAE
from poflow_lite.recipes import MODELS, build_model
from poflow_lite.studies import cost_study, costs, figures, time_to_error
from poflow_lite.studies.costs import (
    AXES,
    NETWORKS,
    TRANSPORT,
    fit_exponent,
    network_operations,
    noise_batch,
    peak_memory,
    settings_at,
    step_time,
    transport_operations,
)
from poflow_lite.studies.time_to_error import first_budgets, relative_error

TINY = {"batch_size": 4, "channels": (4, 8), "hidden": 16, "width": 4, "latent": 16}


# --- exponents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_exponent_of_a_power_law_is_exact(power):
    values = [16, 32, 64, 128]
    found = fit_exponent(values, 0.3 * np.array(values, float) ** power)
    assert (found.slope, found.low, found.high) == pytest.approx((power, power, power), abs=1e-12)


def test_an_overhead_pulls_the_exponent_below_the_power_less_and_less():
    def slope(values):
        return fit_exponent(values, 50 + np.array(values, float) ** 2, last=2).slope

    # between v and 2 v the slope of 50 + v² is log2((50 + 4 v²) / (50 + v²))
    assert slope([8, 16]) == pytest.approx(np.log2(306 / 114))
    assert slope([4, 8]) < slope([8, 16]) < slope([512, 1024]) < 2
    assert slope([512, 1024]) == pytest.approx(2, abs=1e-3)


def test_only_the_large_end_counts_in_whatever_order():
    assert fit_exponent([64, 1, 32, 16, 2], [64.0, 900.0, 32.0, 16.0, 900.0]).slope == pytest.approx(1)
    assert fit_exponent([1, 2, 4], [1.0, 1.0, 4.0], last=2).slope == pytest.approx(2)


def test_the_interval_comes_from_the_repetitions():
    values, noise = np.array([16.0, 32, 64, 128]), np.random.default_rng(1)
    times = values**1.5 * np.exp(0.05 * noise.standard_normal((40, 4)))
    found = fit_exponent(values, times)
    assert found.low < 1.5 < found.high
    assert 0 < found.high - found.low < 0.1
    assert found == fit_exponent(values, times)  # the redraws have a seed
    noisier = values**1.5 * np.exp(0.2 * noise.standard_normal((40, 4)))
    assert fit_exponent(values, noisier).high - fit_exponent(values, noisier).low > 2 * (found.high - found.low)


def test_one_disturbed_repetition_does_not_count():
    times = np.tile([1.0, 2.0, 4.0], (5, 1))
    times[2, 2] = 1000.0
    assert fit_exponent([1, 2, 4], times).slope == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "times", "message"),
    [
        ([4], [1.0], "at least two different values"),
        ([4, 4], [1.0, 2.0], "at least two different values"),
        ([4, 4, 8], [1.0, 1.0, 2.0], "n = 3 different values"),
        ([4, 8], [1.0, 2.0, 3.0], r"n = 2 different values, got \(1, 3\)"),
        ([4, 8], [0.0, 2.0], "positive and finite"),
        ([4, 8], [1.0, np.nan], "positive and finite"),
    ],
)
def test_numbers_without_an_exponent_are_refused(values, times, message):
    with pytest.raises(ValueError, match=message):
        fit_exponent(values, times)


# --- the formula --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "transformations"), [({}, 3), ({"latent": 24, "width": 7, "horizon": 5, "frequencies": 3}, 2)]
)
def test_operations_of_transport_are_those_that_pytorch_counts(changes, transformations):
    """All but the LU factorisation, which PyTorch's counter does not know."""
    settings, _ = settings_at("flow-factorized", "batch_size", 6, **TINY | changes)
    model = build_model("flow-factorized", settings, transformations=transformations)
    k = torch.arange(6) % transformations
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.transport(torch.randn(6, settings.latent), k, settings.horizon)
    factorisation = 6 * settings.horizon * settings.latent**3 / 3
    assert transport_operations(settings, transformations) - factorisation == counter.get_total_flops() / 2


@pytest.mark.parametrize("changes", [{}, {"pixels": 32, "channels": (3, 5, 7), "hidden": 11, "autoencoding": 0.0}])
def test_operations_of_the_networks_are_those_of_a_step(changes):
    """PyTorch counts all that passes the two networks in one evaluation of the objective."""
    settings, _ = settings_at("flow-factorized", "batch_size", 4, **TINY | changes | {"hamilton_jacobi": 0.0})
    model = build_model("flow-factorized", settings, (3, settings.pixels, settings.pixels))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.terms(noise_batch(settings, 3, generator()), generator())
    counts = counter.get_flop_counts()
    found = sum(sum(counts[network].values()) for network in ("ConvEncoder", "ConvDecoder"))
    assert network_operations(settings) == found / 2


def test_the_formula_grows_as_it_says():
    def slope(axis, values):
        places = [settings_at("flow-factorized", axis, value) for value in values]
        return (
            fit_exponent(values, [transport_operations(*place) for place in places]).slope,
            fit_exponent(values, [network_operations(settings) for settings, _ in places]).slope,
        )

    assert slope("horizon", AXES["horizon"]) == pytest.approx((1, 0))
    assert slope("batch_size", AXES["batch_size"]) == pytest.approx((1, 1))
    assert slope("latent", (10_000, 20_000, 40_000))[0] == pytest.approx(3, abs=0.05)
    assert slope("pixels", AXES["pixels"]) == pytest.approx((0, 2), abs=0.01)


# --- time ---------------------------------------------------------------------------------------------------------


def test_every_model_and_part_has_positive_times_at_every_value():
    found = step_time(MODELS, "latent", (16, 32), rounds=2, **TINY)
    assert list(found.milliseconds) == [*MODELS, TRANSPORT, NETWORKS]
    for name, taken in found.milliseconds.items():
        assert taken.shape == (2, 2)
        assert (taken > 0).all()
        pairs = zip(found.median(name), found.spread(name), strict=True)
        assert all(low <= middle <= high for middle, (low, high) in pairs)
    assert found.threads == torch.get_num_threads()
    assert json.loads(json.dumps(found.as_dict()))["curves"].keys() == found.milliseconds.keys()


@pytest.mark.parametrize(
    ("axis", "values"), [("horizon", (2, 5)), ("transformations", (1, 7)), ("batch_size", (2, 3)), ("pixels", (8, 16))]
)
def test_every_size_can_be_varied_for_models_that_use_all_of_them(axis, values):
    found = step_time(["weakly-supervised", "poflow"], axis, values, rounds=1, parts=False, **TINY)
    assert found.formula == {}
    assert list(found.milliseconds) == ["weakly-supervised", "poflow"]


def test_medians_quartiles_and_turns_with_a_clock_that_is_known(monkeypatch):
    """The first turn is not counted, and within a turn every model at every value comes once."""
    turns, order = [], []

    def clock(step, device):
        order.append(step)
        turn = (len(order) - 1) // 4
        turns.append(turn)
        return 1000.0 if turn == 0 else {0: 1.0, 1: 2.0, 2: 4.0, 3: 8.0}[(len(order) - 1) % 4] + turn - 2

    monkeypatch.setattr(costs, "_timed", clock)
    found = step_time(["vae", "slow-vae"], "horizon", (2, 4), rounds=3, parts=False, **TINY)
    assert found.milliseconds["vae"].tolist() == [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
    assert found.median("slow-vae") == [4.0, 8.0]
    assert found.spread("slow-vae") == [(3.5, 4.5), (7.5, 8.5)]
    assert len(set(order)) == 4
    assert order == order[:4] * 4


def count_images(model, work):
    """How many images pass the encoder and the decoder while ``work`` is done."""
    passed = {"encoder": 0, "decoder": 0}

    def counting(name):
        return lambda module, arguments, output: passed.__setitem__(name, passed[name] + len(arguments[0]))

    handles = [getattr(model, name).register_forward_hook(counting(name)) for name in passed]
    work()
    for handle in handles:
        handle.remove()
    return passed


@pytest.mark.parametrize("autoencoding", [0.0, 0.05])
def test_the_parts_are_those_of_a_step(autoencoding):
    settings, _ = settings_at("flow-factorized", "batch_size", 4, **TINY, autoencoding=autoencoding)
    model = build_model("flow-factorized", settings)
    batch = noise_batch(settings, 3, generator())
    networks, transport = costs._networks(model, batch), costs._transport(model, batch)
    by_part = count_images(model, networks)
    assert model.encoder.network[0].weight.grad.abs().sum() > 0
    assert model.flow.potential.inner.grad is None
    assert by_part == count_images(model, costs._step(model, batch))
    assert count_images(model, transport) == {"encoder": 0, "decoder": 0}
    assert model.encoder.network[0].weight.grad is None
    assert model.flow.potential.inner.grad.abs().sum() > 0


def test_noise_has_the_form_of_a_training_batch():
    settings, count = settings_at("vae", "transformations", 5, frames=3, pixels=16, batch_size=50)
    batch = noise_batch(settings, count, generator())
    assert batch.frames.shape == (50, 4, 3, 16, 16)
    assert 0 <= batch.frames.min() < batch.frames.max() <= 1
    assert set(batch.k.tolist()) == set(range(5))
    assert batch.horizon == settings.horizon
    batch.require_consecutive("any model")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["vae"], "depth", (1, 2)), "unknown axis 'depth'; known: latent, horizon"),
        ((["gan"], "latent", (1, 2)), "unknown model 'gan'"),
        ((["vae"], "latent", (16,)), r"two or more different values, in one round or more, got \[16\]"),
        ((["vae"], "latent", (16, 0)), "latent must be a whole number of at least 1, got 0"),
        ((["vae"], "horizon", (1, 2)), "a horizon of 1 has no 2 frames to draw"),
        ((["vae"], "pixels", (16, 30)), "multiples of 4, got 30×30"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        step_time(*arguments, rounds=1, **TINY)


# --- memory -------------------------------------------------------------------------------------------------------


def test_memory_grows_with_the_batch_and_not_with_this_process():
    pytest.importorskip("resource", reason="memory of a process is read where there is the module resource")
    ballast = torch.ones(2**27)  # 512 MiB: what this process holds is not the other's
    small, large = (
        peak_memory("vae", settings_at("vae", "batch_size", size, channels=(16, 32), hidden=16)[0], steps=1)
        for size in (4, 512)
    )
    assert small < ballast.nbytes / 2**20 / 2
    activations = 512 * 3 * (16 * 14 * 14) * 4 / 2**20  # of the first convolution alone: 18 MiB
    assert large > small + 2 * activations


def test_memory_of_an_impossible_model_is_refused_in_this_process():
    settings, _ = settings_at("vae", "pixels", 30)
    with pytest.raises(ValueError, match="multiples of 4"):
        peak_memory("vae", settings)
    with pytest.raises(ValueError, match="unknown model 'gan'"):
        peak_memory("gan", settings)


def test_a_process_that_fails_is_reported(monkeypatch):
    monkeypatch.setattr(costs.json, "dumps", lambda request: "{}")
    with pytest.raises(RuntimeError, match="memory of vae failed: KeyError"):
        peak_memory("vae", settings_at("vae", "latent", 16)[0])


# --- time to an error ---------------------------------------------------------------------------------------------


def cells(model, errors):
    return [{"model": model, "steps": steps, "seed": seed, "error": error} for (steps, seed), error in errors.items()]


def test_the_first_budget_that_reaches_a_threshold():
    made = [*cells("slow", {(500, 0): 0.2, (125, 0): 0.9, (250, 0): 0.5}), *cells("fast", {(125, 0): 0.1})]
    found = {(row.model, row.threshold): row for row in first_budgets(made, {"slow": 10.0, "fast": 40.0})}
    assert {place: row.steps for place, row in found.items()} == {
        ("slow", 0.5): 250, ("slow", 0.35): 500, ("slow", 0.25): 500,
        ("fast", 0.5): 125, ("fast", 0.35): 125, ("fast", 0.25): 125,
    }  # fmt: skip
    assert found["slow", 0.5].seconds == pytest.approx(2.5)
    assert found["fast", 0.25].seconds == pytest.approx(5.0)


def test_a_threshold_that_is_never_reached_has_none():
    (row,) = first_budgets(cells("vae", {(125, 0): 0.9, (250, 0): 0.6}), {"vae": 10.0}, [0.5])
    assert (row.steps, row.seconds, row.by_seed) == (None, None, {0: None})


def test_seeds_are_averaged_and_also_told_apart():
    made = cells("vae", {(1, 0): 0.4, (1, 1): 0.8, (2, 0): 0.3, (2, 1): 0.6, (4, 0): 0.7, (4, 1): 0.1})
    (row,) = first_budgets(made, {"vae": 1.0}, [0.5])
    assert (row.steps, row.by_seed) == (2, {0: 1, 1: 4})


def test_a_budget_that_lacks_a_seed_does_not_count():
    made = cells("vae", {(1, 0): 0.1, (2, 0): 0.4, (2, 1): 0.4})
    (row,) = first_budgets(made, {"vae": 1.0}, [0.5])
    assert (row.steps, row.by_seed) == (2, {0: 1, 1: 2})


def test_trainings_of_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a threshold is a positive share of the error of no motion, got 0"):
        time_to_error.time_to_error(["vae"], "digits", tmp_path, thresholds=[0.5, 0.0])
    with pytest.raises(ValueError, match=r"at least 1, got \[\] and 100"):
        time_to_error.time_to_error(["vae"], "digits", tmp_path, steps=[])
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("double")
def test_own_transport_or_the_linear_operator_moves_the_latents(make_fading):
    """A model that codes perfectly and stands still scores 1; the halving of brightness is linear in its latents."""

    class Pixels(nn.Module):
        def forward(self, x):
            return torch.cat([x.flatten(1), torch.full_like(x.flatten(1), -8.0)], 1)

    class Logits(nn.Module):
        def forward(self, z):
            return z.clamp(1e-9, 1 - 1e-9).logit().unflatten(1, (1, 2, 2))

    model = VAE(Pixels(), Logits())
    model.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    images = 0.1 + 0.8 * torch.rand(60, 1, 2, 2, generator=generator())
    training, held_out = make_fading(images[:50], names=("halve",)), make_fading(images[50:], names=("halve",))
    assert relative_error("flow-factorized", model, training, held_out) == pytest.approx(1)
    assert relative_error("vae", model, training, held_out) < 0.01


# --- the study ----------------------------------------------------------------------------------------------------


def study(out, **options):
    options = {"axes": {"latent": (16, 32)}, "models": ("vae", "flow-factorized"), "seeds": (0, 1), "steps": (2, 4),
               "thresholds": (1e6, 1e-6), "images": 4, "rounds": 2, "device": "cpu", **options}  # fmt: skip
    return cost_study.study_costs("digits", out, budget="smoke", progress=False, **TINY, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study whose memory is d² for the VAE and missing for the other model, and whose operator sees few images."""
    folder = tmp_path_factory.mktemp("costs")

    def memory(model, settings, transformations):
        if model == "vae":
            return float(settings.latent**2)
        raise RuntimeError("no memory left")

    few = time_to_error.training_latents
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost_study, "peak_memory", memory)
        patch.setattr(time_to_error, "training_latents", lambda model, training, images, seed: few(model, training, 20))
        return folder, study(folder)


def test_the_study_writes_what_it_measured(finished):
    folder, result = finished
    assert json.loads((folder / "costs.json").read_text()) == result
    assert {"command", "versions", "device", "budget", "reference"} < result.keys()
    assert set(result["times"]["latent"]["curves"]) == {"vae", "flow-factorized", TRANSPORT, NETWORKS}
    assert result["memory"]["latent"]["curves"] == {"vae": {"mebibytes": [256.0, 1024.0], "exponent": pytest.approx(2)}}
    assert set(result["failed"]) == {"flow-factorized-latent-16", "flow-factorized-latent-32"}
    assert (folder / "costs.png").stat().st_size > 20_000
    training = result["training"]
    assert {(c["model"], c["steps"], c["seed"]) for c in training["cells"]} == {
        (model, steps, seed) for model in ("vae", "flow-factorized") for steps in (2, 4) for seed in (0, 1)
    }
    assert len({cell["error"] for cell in training["cells"]}) == 8
    for row in training["reached"]:
        easy = row["threshold"] == 1e6
        assert row["steps"] == (2 if easy else None)
        assert row["seconds"] == (pytest.approx(2e-3 * training["milliseconds"][row["model"]]) if easy else None)
    assert training["recipe_seconds"]["vae"] == pytest.approx(12e-3 * training["milliseconds"]["vae"])
    assert (training["jobs"], training["threads"]) == (1, torch.get_num_threads())
    assert "validation" in training["data_set"]


def test_the_table_holds_the_figures(finished):
    folder, result = finished
    table = (folder / "costs.md").read_text()
    assert table == cost_study.cost_table(result)
    assert "| vae | 256 | 1024 | 2.00 |" in table
    formula = result["times"]["latent"]["formula"][TRANSPORT]["exponent"]
    assert f"{formula:.2f} |" in next(line for line in table.splitlines() if line.startswith(f"| {TRANSPORT}"))
    (line,) = [line for line in table.splitlines() if line.startswith("| vae") and "never" in line]
    assert "(2) | never |" in line
    assert "over seeds 0, 1; trainings of 2, 4 steps" in table


def test_what_is_done_is_not_done_again(finished, monkeypatch):
    folder, result = finished
    for module, name in ((cost_study, "step_time"), (time_to_error, "train")):
        monkeypatch.setattr(module, name, lambda *a, **o: pytest.fail("done again"))
    monkeypatch.setattr(cost_study, "peak_memory", lambda model, settings, count: 7.0)  # what had failed is tried again
    again = study(folder)
    assert again["times"] == result["times"]
    assert again["training"]["cells"] == result["training"]["cells"]
    assert again["memory"]["latent"]["curves"]["flow-factorized"]["mebibytes"] == [7.0, 7.0]
    assert again["failed"] == {}


def test_the_figure_shows_every_curve_and_every_exponent(finished):

    _, result = finished
    figure = figures.cost_panels(result, "title")
    time, memory, error = figure.axes[:3]
    shown = [line for line in time.lines if line.get_linestyle() == "-"]
    curves = result["times"]["latent"]["curves"]
    assert [list(line.get_ydata()) for line in shown] == [curve["milliseconds"] for curve in curves.values()]
    texts = [text.get_text() for text in time.get_legend().get_texts()]
    formula = result["times"]["latent"]["formula"][TRANSPORT]["exponent"]
    assert texts[2].endswith(f"({formula:.2f})")
    assert [text.get_text() for text in memory.get_legend().get_texts()] == ["2.00"]
    x, y = error.lines[0].get_data()
    vae = [[c["error"] for c in result["training"]["cells"] if (c["model"], c["steps"]) == ("vae", n)] for n in (2, 4)]
    assert list(y) == pytest.approx([np.mean(errors) for errors in vae])
    assert x[1] == pytest.approx(2 * x[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": ["depth"]}, "unknown axis 'depth'"),
        ({"models": ["gan"]}, "unknown model 'gan'"),
        ({"models": []}, "at least one model and one axis"),
        ({"models": ["topographic-vae"], "axes": {"latent": (16, 18)}}, "topographic-vae cannot be built with latent"),
        ({"steps": [0], "memory": False, "axes": {"horizon": (2, 3)}}, "numbers of steps and images"),
        ({"thresholds": [-1.0]}, "a threshold is a positive share"),
    ],
)
def test_a_study_refuses_mistakes_before_anything_is_measured(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(cost_study, "step_time", lambda *a, **o: pytest.fail("measured"))
    with pytest.raises(ValueError, match=message):
        study(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["poflow-lite", "cost", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_the_command_hands_on_its_options_and_prints_the_table(run, finished, monkeypatch, tmp_path):
    asked = {}

    def stand_in(data, out, **options):
        asked.update(options, data=data)
        return finished[1] | {"failed": {}}

    monkeypatch.setattr(cost_study, "study_costs", stand_in)
    lists = ("--models", "vae,poflow", "--axes", "latent,pixels", "--seeds", "0,3", "--steps", "5,10")
    code, out, _ = run(*lists, "--thresholds", 0.3, "--no-memory", "--jobs", 2, "--set", "width=8", "--out", tmp_path)
    assert code == 0
    assert cost_study.cost_table(finished[1]) in out
    wanted = {"data": "digits", "models": ["vae", "poflow"], "axes": ["latent", "pixels"], "seeds": [0, 3], "jobs": 2}
    wanted |= {"steps": [5, 10], "thresholds": [0.3], "memory": False, "width": 8}
    assert {name: asked[name] for name in wanted} == wanted
    run("--out", tmp_path)
    assert asked["models"] == list(MODELS)
    assert asked["axes"] == list(AXES)


def test_the_command_says_what_failed(run, finished, monkeypatch, tmp_path):
    monkeypatch.setattr(cost_study, "study_costs", lambda *a, **o: finished[1])
    code, out, err = run("--out", tmp_path)
    assert code == 1
    assert "Milliseconds of a training step" in out
    assert "error: 2 cells failed (flow-factorized-latent-16, flow-factorized-latent-32)" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--axes", "depth"], "unknown axis 'depth'; known: latent, horizon, transformations, batch_size, pixels"),
        (["--models", "gan"], "unknown model 'gan'; known: vae"),
        (["--seeds", "one"], "--seeds takes numbers separated by commas, got 'one'"),
        (["--steps", "many"], "--steps takes numbers separated by commas, got 'many'"),
        (["--set", "steps=4"], "give them by --steps"),
        (["--set", "colour=4"], "unknown setting 'colour'; known: agreement, "),
    ],
)
def test_every_mistake_is_one_line(run, tmp_path, arguments, message):
    code, _, err = run(*arguments, "--out", tmp_path / "out")
    assert code == 1
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
