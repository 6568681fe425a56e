"""Comparing models: one protocol for all, fitted on training sequences alone; the study's table and its costs."""

import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import SHAPE, encoder_and_decoder
from torch import nn
from torch.distributions import Independent, Normal

from poflow_lite import experiments
from poflow_lite.experiments import compare, measure_operators
from poflow_lite.experiments import comparison as objects
from poflow_lite.metrics import equivariance_error, factor_scores
from poflow_lite.models import MSP, VAE
from poflow_lite.objectives import diagonal_normal
from poflow_lite.operators import AffineMaps, training_latents
from poflow_lite.studies import comparison, comparison_tables, run_study
from poflow_lite.training import Losses

# --- on objects, where the answer is known ------------------------------------------------------------------------


class Pixels(nn.Module):
    """A user's own model, with the methods of the VAE and nothing else: latents are pixels, which stand still."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.1))
        self.eval()

    def encode(self, x):
        return diagonal_normal(x.flatten(1), self.scale.expand(len(x), math.prod(SHAPE)))

    def decode(self, z):
        return Independent(Normal(z.unflatten(-1, SHAPE), 1.0), 3)

    rollout, log_prior = VAE.rollout, VAE.log_prior


@pytest.fixture
def images():
    return torch.rand(80, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def rows_of():
    """The table by (model, operator)."""
    return lambda table: {(row["model"], row["operator"]): row for row in table.to_dict("records")}


def test_operators_and_median_frame_are_fitted_to_training_sequences_and_to_nothing_else(images, make_fading):
    """Training halves under k = 0 and stands under k = 1; what is held out does the opposite."""
    training, held_out = make_fading(images), make_fading(images[:5], names=("still", "halve"))
    found = measure_operators(
        Pixels(), training, held_out, operators=["linear", "translation"], scores=False, median_images=20
    )
    moved = 1.25 * images[:5].flatten(1).sum(1).mean().item()  # Σ_t (1 - 2^-t) over t = 1, 2, of what stands or halves
    assert found["references"]["no_motion"] == {"still": 0.0, "halve": pytest.approx(moved)}
    assert found["operators"]["linear"]["equivariance_error"] == pytest.approx(
        {"still": moved, "halve": moved}, rel=0.02
    )
    medians = images[:20].median(0).values * torch.tensor([0.5, 0.25])[:, None, None, None]
    error = (medians - images[:5, None]).abs().flatten(1).sum(1).mean().item()
    assert found["references"]["median_frame"]["still"] == pytest.approx(error, rel=1e-5)
    right = measure_operators(Pixels(), training, make_fading(images[:5]), operators=["linear"], scores=False)
    assert right["operators"]["linear"]["equivariance_error"]["halve"] < 0.02 * moved


def test_validation_errors_are_ratios_by_operators_that_saw_training_images_only(images, make_fading):
    """Halving is linear in pixels: almost 0 for who saw it, no motion for who saw stills or stands still itself."""
    halving, still = (make_fading(images, names=(name,)) for name in ("halve", "still"))
    shown, model = make_fading(images[:5], names=("halve",)), Pixels()
    assert experiments.validation_errors(model, halving, shown) == {"linear": pytest.approx(0, abs=0.02)}
    assert experiments.validation_errors(model, still, shown) == {"linear": pytest.approx(1, abs=0.02)}
    model.motion = "none"
    assert experiments.validation_errors(model, halving, shown)["none"] == pytest.approx(1)
    read_off = experiments.validation_errors(msp_of_pixels(), halving, shown)
    assert list(read_off) == ["linear", "swapped"]  # "own" looks at a second frame


def test_a_users_model_operator_and_metric_get_their_row_and_column(images, make_fading, rows_of):
    training, held_out, model = make_fading(images), make_fading(images[:4]), Pixels()

    def halving(own, sequences, latents):
        assert own is model
        assert sequences is training
        assert torch.equal(latents, training_latents(model, training, images=60))
        eye = torch.eye(latents.shape[-1]).expand(2, 3, -1, -1)
        return AffineMaps(eye * torch.tensor([[1.0, 0.5, 0.25], [1.0, 1.0, 1.0]])[..., None, None], latents[:, 0] * 0)

    def length(moved, sequences):
        assert sequences is held_out
        return moved.rollout(torch.ones(1, 48), torch.tensor([0]), range(3)).z[0, -1, 0].item()

    entries = {"identity": objects.OPERATORS["identity"], "mine": halving}
    table = compare(
        {"pixels": model}, training, held_out, operators=entries, metrics={"length": length}, operator_images=60
    )
    rows = rows_of(table)
    assert list(rows) == [("no motion", ""), ("median frame", ""), *(("pixels", o) for o in ("floor", *entries))]
    assert rows["no motion", ""]["halve"] == rows["pixels", "identity"]["halve"] == 1
    assert rows["pixels", "mine"]["halve"] == rows["pixels", "floor"]["halve"] == pytest.approx(0, abs=1e-6)
    assert math.isnan(rows["no motion", ""]["still"]), "no motion makes no error there: nothing can be divided by it"
    assert (rows["pixels", "identity"]["length"], rows["pixels", "mine"]["length"]) == (1, 0.25)
    assert "sequence" not in table


def test_the_four_operators_the_models_own_motion_and_scores(images, make_fading, rows_of, monkeypatch):
    monkeypatch.setattr(objects, "vp_score", partial(objects.vp_score, epochs=1))
    still, mine = VAE(*encoder_and_decoder()).eval(), VAE(*encoder_and_decoder()).eval()
    mine.motion, mine.names_k, mine.infer = "standing", True, lambda frames: torch.zeros(len(frames)).long()
    training, held_out = make_fading(images), make_fading(images[:8])
    sizes = {"likelihood_images": 1, "samples": 5, "operator_images": 60, "median_images": 60}
    rows = rows_of(compare({"mine": mine, "still": still}, training, held_out, scores=True, **sizes))
    assert [operator for name, operator in rows if name == "mine"] == ["floor", *objects.COMPARED, "standing"]
    assert [operator for name, operator in rows if name == "still"] == ["floor", *objects.COMPARED]
    for error in ("halve", "halve beyond T"):
        assert rows["mine", "standing"][error] == rows["mine", "identity"][error] > 0
    for name in objects.COMPARED:
        found = rows["mine", name]
        assert max(found["sequence"], found["predictive"], found["frame"]) < 0 <= found["vp_score"] <= 1
    found = measure_operators(mine, training, held_out, operators=["linear"], **sizes)
    assert list(found["operators"]) == ["linear", "standing"]
    assert found["clustering_accuracy"] == 0.5


def test_what_moves_as_it_should_names_every_k_and_what_stands_errs_beyond_the_horizon_by_what_is_left(
    images, make_fading, rows_of
):
    training, held_out = make_fading(images), make_fading(images[:8])
    sizes = {"likelihood_images": 8, "samples": 2, "operators": ["identity", "linear"], "scores": True}
    rows = rows_of(compare({"pixels": Pixels()}, training, held_out, **sizes))
    assert rows["pixels", "linear"]["naming"] == 1
    left = (0.875 + 0.9375) * images[:8].flatten(1).sum(1).mean().item()  # Σ_t (1 - 2^-t) over t = 3, 4
    beyond = [rows["pixels", "identity"][f"{k} beyond T"] for k in ("halve", "still")]
    assert beyond == [pytest.approx(left), 0]


def test_data_of_one_transformation_have_scores_too_but_none_of_telling_k(images, make_fading, rows_of):
    training, held_out = (make_fading(part, names=("halve",)) for part in (images, images[:4]))
    sizes = {"likelihood_images": 2, "samples": 2, "operators": ["linear"]}
    row = rows_of(compare({"pixels": Pixels()}, training, held_out, scores=True, **sizes))["pixels", "linear"]
    assert {"sequence", "predictive", "frame", "halve beyond T"} < row.keys()
    assert not {"vp_score", "naming"} & row.keys()


def test_a_likelihood_above_its_ceiling_is_left_empty_and_the_rest_is_measured(images, make_fading, rows_of):
    model = Pixels()
    model.log_prior = lambda z, t, y: 1e6 + VAE.log_prior(model, z, t, y)  # no density
    sizes = {"likelihood_images": 1, "samples": 2, "operators": ["identity"], "scores": True}
    row = rows_of(compare({"pixels": model}, make_fading(images), make_fading(images[:8]), **sizes))[
        "pixels", "identity"
    ]
    assert ("sequence" in row, row["halve"], 0 <= row["vp_score"] <= 1) == (False, 1, True)


def test_validation_images_choose_the_operator_and_it_alone_is_scored(images, make_fading, monkeypatch):
    """Validation moves as training did, and test images the other way round, where to stand still errs less."""
    monkeypatch.setattr(objects, "vp_score", partial(objects.vp_score, epochs=1))
    training, held_out = make_fading(images), make_fading(images[:5], names=("still", "halve"))
    sizes = {"likelihood_images": 2, "samples": 5, "operators": ["identity", "linear"]}
    found = measure_operators(Pixels(), training, held_out, validation=make_fading(images[5:9]), **sizes)
    identity, linear = (found["operators"][name] for name in ("identity", "linear"))
    assert found["chosen"] == "linear"
    assert identity["validation_error"]["halve"] > 0.5 > 10 * linear["validation_error"]["halve"]
    assert sum(identity["equivariance_error"].values()) < sum(linear["equivariance_error"].values())
    assert {"log_likelihood", "vp_score", "naming"} <= linear.keys()
    assert "log_likelihood" not in identity


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": {}}, "there is nothing to compare: give at least one model"),
        ({"operators": ["linear", "warp"]}, "unknown operator 'warp'; known: identity, traversal, translation, linear"),
    ],
)
def test_what_cannot_be_compared_is_refused(images, make_fading, arguments, message):
    shown = make_fading(images)
    with pytest.raises(ValueError, match=message):
        compare(**{"models": {"pixels": Pixels()}, "training": shown, "held_out": shown} | arguments)


# --- the study ----------------------------------------------------------------------------------------------------

CHANGES = {
    "steps": 3, "batch_size": 4, "latent": 4, "channels": (4, 8), "hidden": 16, "width": 4, "likelihood_images": 1,
    "samples": 5, "share": 0.05, "horizon": 2,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def few_epochs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "vp_score", partial(objects.vp_score, epochs=1))
        yield


def tiny(out, models=("vae", "weakly-supervised"), **options):
    options = {"budget": "smoke", "images": 6, "device": "cpu", "changes": CHANGES, **options}
    return run_study(comparison.STUDY, out, models=models, progress=False, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few_epochs):
    folder = tmp_path_factory.mktemp("comparison")
    return folder, tiny(folder)


def test_every_model_is_measured_with_every_operator_and_its_own_motion(finished):
    folder, result = finished
    assert result["failed"] == {}
    *runs, costs = result["cells"]
    assert [cell["model"] for cell in runs] == ["vae", "weakly-supervised"] == list(costs["milliseconds"])
    assert [list(cell["operators"]) for cell in runs] == [[*objects.COMPARED], [*objects.COMPARED, "flow"]]
    assert ["clustering_accuracy" in cell for cell in runs] == [False, True]
    assert "digits (test, 360 images), fixed start, 6 measured" in (folder / "table.md").read_text()
    for reference in ("no_motion", "median_frame"):
        assert runs[0]["references"][reference] == runs[1]["references"][reference], "all see the same test frames"
    run = experiments.load_run(folder / "weakly-supervised-seed-0", "cpu")
    found = equivariance_error(run.model, experiments.sequences("digits", "test", run.settings).first(6))
    assert found == pytest.approx(runs[1]["operators"]["flow"]["equivariance_error"], rel=1e-6)
    options = experiments.options_of("weakly-supervised")
    assert runs[1]["settings"].items() >= {**CHANGES, "channels": [4, 8], "beta": 0.03, **options}.items()


def test_the_same_seed_gives_the_same_figures_twice_and_another_seed_others(finished, tmp_path):
    first, again, other = finished[1]["cells"][0], *tiny(tmp_path, ("vae",), seeds=(0, 1))["cells"][:2]
    for name in ("references", "operators"):
        assert first[name] == again[name]
        assert first[name] != other[name]


def test_finished_cells_are_not_run_again_and_another_recipe_is_not_taken_for_them(finished, monkeypatch):
    folder, result = finished
    monkeypatch.setattr(comparison, "train_recipe", lambda *a, **o: pytest.fail("a finished cell was trained again"))
    assert tiny(folder)["cells"] == result["cells"]
    with pytest.raises(ValueError, match=r"vae-seed-0 holds a cell of another grid \(different: settings\)"):
        tiny(folder, changes=CHANGES | {"steps": 2})


def test_codes_of_images_whose_factors_are_given_have_mig_and_dci_once_for_a_model(tmp_path):
    changes = CHANGES | {"pixels": 16}
    run, _ = tiny(tmp_path, ("beta-vae",), data="shapes3d-lite", changes=changes)["cells"]
    own = experiments.load_run(tmp_path / "beta-vae-seed-0", "cpu")
    scenes = experiments.sequences("shapes3d-lite", "test", own.settings)
    assert run["factor_scores"] == factor_scores(own.model, scenes, seed=0), "of all scenes, not of those 6"
    assert "MIG" in (tmp_path / "table.md").read_text()


def test_beta_can_be_varied_on_the_validation_split(tmp_path):
    options = {"vary": {"beta": [0.1, 1]}, "split": "validation", "scores": False}
    result = tiny(tmp_path, ("vae",), **options)
    assert [cell["cell"] for cell in result["cells"]] == ["vae-beta-0.1-seed-0", "vae-beta-1-seed-0"], "no costs"
    assert [cell["settings"]["beta"] for cell in result["cells"]] == [0.1, 1]
    text = (tmp_path / "table.md").read_text()
    assert "digits (validation, 180 images)" in text
    assert "| vae, beta = 0.1 | linear |" in text
    assert "beta" not in text[text.index("The same for all") :].split("`")[0]
    assert "log_likelihood" not in result["cells"][0]["operators"]["linear"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ("vae", "gan")}, "unknown model 'gan'"),
        ({"budget": "huge"}, "unknown budget 'huge'"),
        ({"vary": {"gamma": [1]}}, "unknown setting of vae 'gamma'"),
        ({"vary": "beta"}, "vary must be a valid mapping, such as beta=0.03,0.1, got 'beta'"),
        ({"split": "exam"}, "split must be 'train', 'validation' or 'test', got 'exam'"),
        ({"seeds": ()}, "the grid is empty"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(comparison, "train_recipe", lambda *a, **o: pytest.fail("training began"))
    with pytest.raises(ValueError, match=message):
        tiny(tmp_path / "grid", **options)


def test_a_step_is_timed_in_turns_after_one_that_is_not_counted_and_on_data_that_are_remembered(monkeypatch):
    """By a clock that only these models and data move: first steps take 100 s, first renderings 50."""
    now, order, seen = [0.0], [], set()

    class Slow(nn.Module):
        def __init__(self, name, seconds):
            super().__init__()
            self.weight, self.name, self.seconds, self.first = nn.Parameter(torch.ones(2)), name, seconds, 100.0

        def terms(self, batch, generator):
            now[0], self.first = now[0] + self.seconds + self.first, 0.0
            order.append(self.name)
            return Losses({"loss": self.weight})

    def sample(size, frames, generator):
        now[0] += 50.0 * (generator.initial_seed() not in seen)
        seen.add(generator.initial_seed())
        return torch.zeros(size)

    monkeypatch.setattr(comparison, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    models = {"a": Slow("a", 1.0), "b": Slow("b", 3.0)}
    assert comparison.step_costs(models, SimpleNamespace(sample=sample), rounds=1) == {"a": 1000.0, "b": 3000.0}
    assert order == ["a", "b", "a", "b"]


def msp_of_pixels():
    """Its codes are the pixels, and its images the codes."""
    pixels = Pixels()
    model = MSP(pixels, nn.Identity(), 3, ridge=1e-9)
    model.encode, model.decode = pixels.encode, pixels.decode
    return model.eval()


def test_what_looks_at_a_second_frame_is_never_chosen():
    errors = {"own": 0.0, "swapped": 2.0, "linear": 1.0}
    measured = {name: {"validation_error": {"halve": error}} for name, error in errors.items()}
    assert objects.least(measured, {"halve": 1.0}) == "linear"


def test_a_model_that_reads_its_motion_off_frames_is_asked_by_its_own_and_by_others(make_fading):
    """Codes are the pixels; every image is halved at each frame, so that M = I / 2 whoever it is read from."""
    model = msp_of_pixels()
    training, held_out = make_fading(torch.rand(6, *SHAPE)), make_fading(torch.rand(4, *SHAPE), names=("halve",))
    found = measure_operators(model, make_fading(training.images, names=("halve",)), held_out, scores=False)[
        "operators"
    ]
    assert found["own"]["equivariance_error"]["halve"] == pytest.approx(0, abs=0.02)
    assert found["swapped"]["equivariance_error"] == pytest.approx(found["own"]["equivariance_error"], abs=0.02)
    mixed = measure_operators(model, training, make_fading(held_out.images), scores=False)["operators"]
    assert mixed["own"]["equivariance_error"] == pytest.approx({"halve": 0, "still": 0}, abs=0.02)
    assert mixed["swapped"]["equivariance_error"] == pytest.approx({"halve": 0, "still": 0}, abs=0.02)
    sizes = {"likelihood_images": 2, "samples": 3, "operator_images": 6, "operators": ["identity"]}
    table = compare({"pixels": model}, training, make_fading(torch.rand(20, *SHAPE)), scores=True, **sizes)
    assert table["vp_score"].notna().tolist() == 3 * [False] + 3 * [True], "operators and both ways to ask have a score"
    model.motion = "flow"  # as that of a flow with coefficients of its own, which no k drives
    again = measure_operators(model, training, make_fading(held_out.images), scores=False)["operators"]
    assert again.keys() == mixed.keys()


# --- the table: figures put in by hand ----------------------------------------------------------------------------


def cell(model, seed, error, own=None, **more):
    operators = {"identity": 10 * error, "linear": error + 1.0} | ({own: error} if own else {})
    return {
        "cell": f"{model}-seed-{seed}", "model": model, "seed": seed, "device": "CPU", "budget": "lecture",
        "data_set": "made up (test)",
        "settings": {"steps": 7, "beta": 1.0 if model == "vae" else 0.1} | ({"wave": 2.0} if model == "poflow" else {}),
        "references": {name: {"turn": value} for name, value in
                       (("no_motion", 100.0), ("median_frame", 80.0), ("reconstruction_floor", 5.0))},
        "chosen": next(reversed(operators)),
        "operators": {
            name: {"equivariance_error": {"turn": value}, "validation_error": {"turn": value}, "vp_score": 0.5,
                   "log_likelihood": {"sequence": -2170.0, "frame": {"x_0": -2200.0 - value, "x_t": -2500.0}}}
            for name, value in operators.items()
        },
        **more,
    }  # fmt: skip


@pytest.fixture
def by_hand():
    cells = [
        cell("vae", 0, 29.0), cell("vae", 1, 31.0), cell("poflow", 0, 22.0, "flow"), cell("poflow", 1, 22.0, "flow"),
        cell("flow-factorized", 0, 19.0, "flow"), cell("flow-factorized", 1, 21.0, "flow"),
        cell("weakly-supervised", 0, 1.0, "flow", clustering_accuracy=0.975),
    ]  # fmt: skip
    costs = {"vae": 10.0, "poflow": 15.0, "flow-factorized": 12.0, "weakly-supervised": 20.0}
    cells.append({"cell": "costs", "costs_of": list(costs), "device": "auto", "milliseconds": costs})
    return {"settings": {"vary": None}, "cells": cells}


def test_the_table_holds_means_and_spreads_the_best_operator_of_each_model_first(by_hand):
    table = comparison_tables.table(by_hand)
    lines = {(mark, model, operator): list(rest) for mark, model, operator, *rest in table.values}
    assert list(table) == ["", "model", "moved by", "turn", "sequence", "frame", "VP score", "cost"]
    assert lines["reference", "no motion", ""][0] == "100"
    assert lines["chosen", "vae", "linear"] == ["31 ± 1", "-2170.0 ± 0.0", "-2231.0 ± 1.4", "0.50 ± 0.00", "1.00"]
    assert lines["chosen", "weakly-supervised", "flow"] == ["1", "-2170.0", "-2201.0", "0.50", "2.00"]
    assert lines["", "vae", "floor"] == ["5 ± 0", "", "", "", "1.00"]
    assert lines["", "poflow", "linear"] == ["23 ± 0", "", "", "", ""], "scores are those of the chosen operator"
    assert [key[0] for key in lines] == ["reference"] * 2 + ["chosen"] * 4 + [""] * 11


def test_scores_of_codes_stand_beside_the_chosen_operator_and_in_the_row_of_the_floor(by_hand):
    scores = {"mig": 0.1, "disentanglement": 0.5, "completeness": 0.3, "informativeness": 0.9}
    cells = [cell("vae", seed, 30.0, factor_scores={**scores, "mig": 0.1 + 0.2 * seed}) for seed in range(2)]
    result = by_hand | {"cells": [*cells, cell("slow-vae", 0, 30.0)]}
    table = comparison_tables.table(result).set_index(["model", "moved by"])
    columns = ["MIG", "disentanglement", "completeness", "informativeness"]
    said = ["0.20 ± 0.14", "0.50 ± 0.00", "0.30 ± 0.00", "0.90 ± 0.00"]
    assert list(table)[-4:] == columns
    for moved_by in ("linear", "floor"):
        assert list(table.loc[("vae", moved_by), columns]) == said
    others = table.drop(index=[("vae", "linear"), ("vae", "floor")])
    assert (others[columns] == "").all(axis=None)
    assert "MIG: mutual information gap" in comparison_tables.notes(result)[1]
    assert "MIG" not in comparison_tables.notes(by_hand)[1]


def test_transformations_weigh_alike_and_one_that_moves_nothing_not_at_all(by_hand):
    """÷ no motion identity has (1 + 0.9) ÷ 3, linear (1.6 + 0.5) ÷ 3; in pixels it would be the other way round."""
    one = cell("slow-vae", 0, 1.0)
    errors = {"identity": (10.0, 900.0, 0.0), "linear": (16.0, 500.0, 0.0)}
    errors = {o: dict(zip(("turn", "grow", "stand"), values, strict=True)) for o, values in errors.items()}
    one["operators"] = {o: {"equivariance_error": e, "validation_error": e} for o, e in errors.items()}
    one["references"] = {key: {"turn": 10.0, "grow": 1000.0, "stand": 0.0} for key in one["references"]}
    assert comparison_tables.best_operators(by_hand | {"cells": [one]}) == {"slow-vae": "identity"}
    assert objects.least(one["operators"], one["references"]["no_motion"]) == "identity", "as the run itself chooses"


def on_validation(cells, errors):
    """Cells with errors of operators on validation images."""
    return [
        {**cell, "operators": {o: {**e, "validation_error": {"turn": errors[o]}} for o, e in cell["operators"].items()}}
        for cell in cells
    ]


def test_the_operator_is_chosen_on_validation_images_whatever_the_test_images_say(by_hand):
    """On test images the ridge map has 3.0 and identity 20: validation images decide."""
    cells = on_validation([cell("vae", 0, 2.0), cell("vae", 1, 2.0)], {"identity": 10.0, "linear": 30.0})
    chosen = by_hand | {"cells": cells}
    assert comparison_tables.best_operators(chosen) == {"vae": "identity"}
    assert list(comparison_tables.rows(chosen)["validation"].dropna()) == [0.1, 0.3, 0.1, 0.3]
    assert "the least error on validation images" in comparison_tables.notes(chosen)[1]
    cells = on_validation([cell("msp", 0, 2.0, "own")], {"identity": 10.0, "linear": 30.0, "own": 1.0})
    assert comparison_tables.best_operators(by_hand | {"cells": cells}) == {"msp": "identity"}, "own sees frame 1"


def test_leads_are_paired_differences_from_the_best_rival_with_their_interval(by_hand):
    ours = [cell("free-flow", seed, error, "flow") for seed, error in enumerate((10.0, 12.0, 11.0))]
    rivals = [cell("poflow", seed, error, "flow") for seed, error in enumerate((20.0, 20.0, 20.0))]
    better = [cell("flow-factorized", seed, 1.0, "flow") for seed in range(3)]  # ours as well, and no rival
    worse = [cell("vae", seed, 90.0) for seed in range(3)]
    found = comparison_tables.leads(by_hand | {"cells": ours + rivals + better + worse})
    turn, sequence = found.to_dict("records")
    half = 4.302653 * 0.05 / 3**0.5  # t of 2 degrees of freedom, spread of -0.5, -0.4, -0.45
    assert (turn["measure"], turn["rival"], turn["ours"], turn["its"]) == ("turn", "poflow", 11.0, 20.0)
    assert [turn[name] for name in ("difference", "low", "high")] == pytest.approx([-0.45, -0.45 - half, -0.45 + half])
    assert (sequence["measure"], sequence["difference"]) == ("sequence", 0.0)
    text = "\n".join(comparison_tables.notes(by_hand | {"cells": ours + rivals}))
    assert "free-flow against the best rival, turn: -45.0 % against poflow (95 %: -57.4 to -32.6)." in text
    one = comparison_tables.leads(by_hand | {"cells": ours[:1] + rivals[:1]})
    assert one["low"].isna().all(), "no interval from one seed"
    assert comparison_tables.leads(by_hand | {"cells": ours}).empty, "nobody to be held against"


def test_every_run_is_scored_by_the_operator_that_it_chose(by_hand):
    """Seed 0 chose its flow and seed 1 the ridge map, which has the smaller error over both: all scores are there."""
    ours = [cell("free-flow", seed, 10.0, "flow") for seed in range(2)]
    for one, chosen, nats in zip(ours, ("flow", "linear"), (-2000.0, -2300.0), strict=True):
        one["chosen"] = chosen
        for name, entry in one["operators"].items():
            if name == chosen:
                entry["log_likelihood"] = {"sequence": nats, "frame": {}}
            else:
                del entry["log_likelihood"], entry["vp_score"]
    result = by_hand | {"cells": ours + [cell("poflow", seed, 20.0, "flow") for seed in range(2)]}
    assert comparison_tables.best_operators(result)["free-flow"] == "flow"
    own = comparison_tables.served(result)["free-flow"]
    assert (list(own["turn"]), list(own["sequence"])) == ([10.0, 10.0], [-2000.0, -2300.0])
    assert comparison_tables.leads(result).set_index("measure").loc["sequence", "difference"] == 20.0
    assert "Choices that differ, by seed: free-flow: flow, linear." in "\n".join(comparison_tables.notes(result))
    (panel,) = (axis for axis in comparison_tables.figure(result).axes if axis.get_xlabel().startswith("log-"))
    assert -2150.0 in [x for line in panel.lines for x in line.get_xdata()], "the mean of both"


def test_the_figure_says_in_what_we_are_ahead(by_hand):
    ours = [cell("free-flow", seed, 10.0 + seed, "flow") for seed in range(3)]
    for seed, one in enumerate(ours):
        for entry in one["operators"].values():
            entry["log_likelihood"]["sequence"] -= 5.0 + seed
    result = by_hand | {"cells": ours + [cell("poflow", seed, 20.0, "flow") for seed in range(3)]}
    said = comparison_tables.figure(result).get_suptitle().splitlines()[0]
    assert said == "free-flow against the best rival: ahead on turn; behind on sequence"


def test_the_notes_say_what_is_the_same_and_what_differs(by_hand):
    text = "\n".join(comparison_tables.notes(by_hand))
    for said in (
        "made up (test), budget lecture, 7 steps, CPU, seeds 0, 1: mean ± standard deviation.",
        "Linear: the ridge map, one affine map for each transformation and frame, fitted with k to "
        f"{experiments.recipe('mnist-10k', 'lecture').operator_images:,} training images at most.",
        "A model that names k may know few labels or none; its ridge map is told all.",
        "VP score: accuracy of a small network that names k from generated pairs. Cost: ",
        "weakly-supervised names 97.5% of the sequences rightly (best matching).",
        "The same for all: steps 7.\nvae: beta 1.0.\npoflow: beta 0.1, wave 2.0.",
    ):
        assert said in text


def test_the_notes_tell_how_many_images_the_likelihoods_had(by_hand):
    by_hand["settings"] |= {"likelihood_images": 200, "samples": 100}
    for each in by_hand["cells"][:-1]:
        each["settings"] = {"steps": 7, "likelihood_images": 16, "samples": 100}  # the recipe's
    assert "The same for all: steps 7, likelihood_images 200, samples 100." in comparison_tables.notes(by_hand)
    by_hand["settings"] |= {"scores": False}
    assert "The same for all: steps 7." in comparison_tables.notes(by_hand), "nothing was measured by them"


def test_the_notes_give_msp_the_latents_that_it_has(by_hand):
    cells = [cell("vae", 0, 2.0), cell("msp", 0, 2.0)]
    for each, own in zip(cells, ({}, {"rows": 8, "columns": 16}), strict=True):
        each["settings"] = {"steps": 7, "latent": 32, **own}
    text = "\n".join(comparison_tables.notes(by_hand | {"cells": cells}))
    assert "The same for all: steps 7.\nvae: latent 32.\nmsp: latent 128, rows 8, columns 16." in text


def test_the_figure_has_a_panel_for_all_that_was_measured(by_hand):
    figure = comparison_tables.figure(by_hand)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_xlabel().split(" ")[0] for axis in shown] == ["turn:", "log-likelihood,", "step"]
    assert shown[-1].get_xlabel() == "step ÷ plain VAE's"
    without = comparison_tables.figure(by_hand | {"cells": by_hand["cells"][2:]})
    assert [axis for axis in without.axes if axis.get_visible()][-1].get_xlabel() == "step ÷ cheapest model's"
    assert [label.get_text() for label in shown[0].get_yticklabels()][:2] == ["vae, ridge map", "poflow, flow"]
    drawn = {line.get_marker(): [] for line in shown[0].lines}
    for line in shown[0].lines:
        drawn[line.get_marker()] += list(line.get_xdata())
    assert drawn["|"] == pytest.approx([0.05] * 4)
    assert drawn["o"][:1] == pytest.approx([0.31]), "every operator, ÷ no motion, mean over seeds"
    assert drawn[">"][0] == comparison_tables.EDGE, "what is worse stands at the edge"
    assert figure.get_suptitle().startswith("made up (test)"), "without a free-flow nothing is held against it"


def test_without_a_finished_run_there_is_no_table(by_hand):
    with pytest.raises(ValueError, match="no cell of the comparison is done"):
        comparison_tables.table(by_hand | {"cells": by_hand["cells"][-1:]})


@pytest.mark.parametrize("name", ["mnist-10k-comparison", "mnist-10k-labels", "shapes3d-lite-comparison"])
def test_recorded_results_give_their_table(name):
    path = Path(__file__).parent.parent / "data" / "results" / f"{name}.json"
    table = comparison_tables.table(json.loads(path.read_text(encoding="utf-8")))
    assert (table[""] == "chosen").sum() == table["model"].nunique() - 2
