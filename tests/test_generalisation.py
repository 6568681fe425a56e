"""Tasks and their table: what is shown, what is measured, on which split what is fitted, and who is called first."""

import json
import math
import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t

from poflow_lite import datasets, metrics
from poflow_lite.datasets import PAPER_TRANSFORMATIONS, TransformationSequences, load_sequences
from poflow_lite.experiments import build_model, load_run, recipe
from poflow_lite.operators import OPERATORS, AffineMaps, fit_operators
from poflow_lite.studies import generalisation, tasks
from poflow_lite.studies.generalisation import STUDY, order_gap_bars, standings
from poflow_lite.studies.study import report, run_study
from poflow_lite.studies.tasks import TASKS, TRAININGS, Task, measure_round_trip, measure_task

TINY = {"steps": 3, "batch_size": 4, "latent": 8, "channels": (4, 8), "hidden": 16, "width": 4}
QUICK = {name: fit for name, fit in OPERATORS.items() if name != "traversal"}  # which tries many a candidate
FEW = {name: OPERATORS[name] for name in ("identity", "linear")}


def tiny_model():
    return build_model("flow-factorized", recipe("digits", "smoke", **TINY)).eval()


@pytest.fixture(scope="module")
def training():
    return load_sequences("digits", "train").first(20)


@pytest.fixture(scope="module")
def fitted(training):
    model = tiny_model()
    return model, fit_operators(model, training, QUICK)


def shown_of(name, images, data="digits", **options):
    return tasks.task_sequences(TASKS[name], data, "test", images, **options)


# --- what is shown ------------------------------------------------------------------------------------------------


def test_every_task_names_a_way_of_training_and_shows_images_of_the_right_kind():
    shown = shown_of("as trained", 3)
    for name, task in TASKS.items():
        assert task.training in TRAININGS, name
        assert {motion.frames for motion in task.motions(shown)} <= {4, 8, 16}, name
        assert len(task.motions(shown)) in (1, 3, 6), name
    for name in ("from digits to letters", "from digits to sprites", "starts never trained"):
        shown, task = shown_of(name, 3), TASKS[name]
        assert (len(shown), shown.image_shape, shown.start) == (3, (3, 28, 28), task.start)
        assert shown.name.startswith(f"{task.data or 'digits'} (test, ")


def test_classes_never_seen_are_those_that_training_leaves_out():
    unseen = TRAININGS[TASKS["classes never seen"].training]["left_out"]
    images = datasets.load_images("digits", "test")
    expected = images.images[torch.isin(images.labels, torch.tensor(unseen))]
    torch.testing.assert_close(shown_of("classes never seen", 1000).images, expected)


def test_starts_out_of_range_do_not_overlap_with_those_of_training():
    drawn = shown_of("random starts out of range", 100).start_pose(500, torch.Generator().manual_seed(0))
    for column, transformation in enumerate(PAPER_TRANSFORMATIONS[:2]):
        low, high = transformation.start
        assert not ((drawn[:, column] > low) & (drawn[:, column] < high)).any()


def test_motions_are_those_of_the_data_set_whatever_images_are_shown():
    shown = shown_of("from digits to letters", 2, "digits-five", horizon=6)
    assert shown.transformations == datasets.FIVE_TRANSFORMATIONS
    twice, switched = (TASKS[name].motions(shown) for name in ("twice as long", "switching"))
    assert [(motion.name, motion.frames) for motion in twice] == [(name, 12) for name in shown.names]
    assert (len(switched), switched[0].name, switched[0].frames) == (20, "scale, then rotate", 6)
    assert len(TASKS["three at once"].motions(shown)) == 10


def test_what_cannot_be_tried_is_said(fitted):
    with pytest.raises(ValueError, match="tasks move still images by transformations, which isaac3d-lite does not"):
        shown_of("as trained", 2, "isaac3d-lite", horizon=3)
    two = TransformationSequences(torch.rand(2, 3, 28, 28), PAPER_TRANSFORMATIONS[:2])
    with pytest.raises(ValueError, match="needs more transformations than scale, rotate"):
        measure_task(*fitted, TASKS["three at once"], two)


# --- what is measured ---------------------------------------------------------------------------------------------


def test_a_task_of_single_motions_is_the_equivariance_error(fitted):
    shown, (model, _) = shown_of("as trained", 9), fitted
    measured = measure_task(*fitted, TASKS["as trained"], shown)
    predictors = {"flow": partial(metrics.predict, model), "floor": partial(metrics.reconstruct, model)}
    for name, errors in metrics.equivariance_errors(predictors | {"no motion": metrics.persistence}, shown).items():
        assert measured[name] == pytest.approx(errors, rel=1e-3), name


def test_a_corrupted_frame_is_what_the_model_sees_and_not_the_truth(fitted):
    shown, black = shown_of("as trained", 9), Task(corrupt=lambda frames, _: torch.zeros_like(frames))
    clean, blind = (measure_task(*fitted, task, shown) for task in (Task(), black))
    assert [blind[name] for name in ("no motion", "floor")] == [clean[name] for name in ("no motion", "floor")]
    sight = fitted[0].decode(fitted[0].encode(torch.zeros(1, 3, 28, 28)).mean).mean  # for all t
    for motion in black.motions(shown):
        truth = datasets.render_motion(shown, torch.arange(9), motion)
        expected = (truth[:, 1:] - sight[:, None]).abs().sum().item() / 9
        assert blind["identity"][motion.name] == pytest.approx(expected, rel=1e-4)


def test_a_flow_that_folds_space_has_no_entry_for_motions_backwards_and_other_mistakes_are_not_hidden(training):
    folding, task, shown = tiny_model(), TASKS["backwards"], shown_of("backwards", 4)
    with torch.no_grad():
        folding.flow.field.quadratic.copy_(-2.0 * torch.eye(8).expand(3, 8, 8))
    operators = fit_operators(folding, training, FEW)
    for found in (measure_task(folding, operators, task, shown), measure_round_trip(folding, operators, shown)):
        assert found["flow"] == {}
        assert len(found["linear"]) == 3
    still = AffineMaps.identity(torch.zeros(3, 1, 9, 8))
    with pytest.raises(ValueError, match="no way back"):  # whoever sees this has an operator to mend
        measure_task(folding, {"wrong": AffineMaps(still.matrix, still.offset)}, task, shown)


def test_several_at_once_are_tried_in_turn_as_well(fitted):
    measured = measure_task(*fitted, TASKS["two at once"], shown_of("two at once", 4))
    in_turn = {name.removesuffix(" in turn") for name in measured if name.endswith("in turn")}
    assert in_turn == {"linear", "linear steps", "linear step", "flow"}
    assert all(errors.keys() == measured["no motion"].keys() for errors in measured.values())
    assert measured["linear in turn"] != measured["linear"]


def test_msp_is_lent_the_mean_of_the_matrices_of_other_sequences(training):
    model = build_model("msp", recipe("digits", "smoke", "msp", rows=3, columns=2, **TINY)).eval()
    steps = tasks.lent_steps(model, training, images=5)
    batch = training.batch(torch.arange(5), 1)
    matrix = model.infer(batch.frames).detach().mean(0)
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    expected = model.rollout(z, matrix.expand(4, -1), range(4)).z
    path = steps.rollout(z, torch.full((4,), 1), range(4)).z
    torch.testing.assert_close(path, expected, rtol=1e-4, atol=1e-5)
    there_and_back = steps.rollout(path[:, -1], torch.full((4,), 1), [3, 2, 1, 0]).z
    torch.testing.assert_close(there_and_back[:, -1], z, rtol=1e-3, atol=1e-3)


def test_there_and_back_by_an_invertible_flow_is_where_it_began(fitted):
    ratios = measure_round_trip(*fitted, shown_of("as trained", 6))
    for name in ("flow", "identity", "translation"):
        assert ratios[name] == pytest.approx({"scale": 1, "rotate": 1, "hue": 1}, abs=1e-3)


# --- the study ----------------------------------------------------------------------------------------------------

ASKED = {"models": ("vae", "free-flow"), "tasks": ("half speed", "1 % of the images"), "images": 4,
         "budget": "smoke", "device": "cpu", "changes": TINY}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two operators are fitted, to 20 training images: nothing here depends on how many."""
    folder, seen = tmp_path_factory.mktemp("generalisation"), []

    def fit_few(model, training, images, seed):
        seen.append(training.name)
        return fit_operators(model, training, FEW, 20, seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generalisation, "fit_operators", fit_few)
        return folder, run_study(STUDY, folder, progress=False, **ASKED), seen


def test_models_and_operators_are_fitted_to_the_training_split_in_every_way_that_is_needed(finished):
    folder, result, seen = finished
    assert result["failed"] == {}
    images = {"as in the paper": "1,257", "1 % of the images": "13"}
    found = {(cell["model"], cell["training"]) for cell in result["cells"]}
    assert found == {(model, way) for model in ASKED["models"] for way in images}
    for cell, operators_saw in zip(result["cells"], seen, strict=True):
        config = json.loads((folder / cell["cell"] / "config.json").read_text())
        expected = f"digits (train, {images[cell['training']]} images), fixed start"
        assert config["data_set"] == operators_saw == expected
    assert config["options"]["field"] == "free"


def test_a_cell_holds_what_its_model_does_on_the_split_that_is_measured(finished):
    folder, result, _ = finished
    (cell,) = (cell for cell in result["cells"] if cell["cell"] == "free-flow-as-in-the-paper-seed-0")
    model = load_run(folder / cell["cell"], "cpu").model
    operators = fit_operators(model, load_sequences("digits", "train"), FEW, 20)
    by_hand = measure_task(model, operators, TASKS["half speed"], shown_of("half speed", 4))
    for name, errors in by_hand.items():
        assert cell["errors"]["half speed"][name] == pytest.approx(errors, rel=1e-5), name


def test_the_table_and_the_figure_are_written(finished):
    folder, result, _ = finished
    table = pd.read_csv(folder / "table.csv")
    assert list(table.columns) == ["task", "vae", "free-flow", "floor"]
    assert list(table.task) == list(ASKED["tasks"])
    assert "One seed: no interval, so no task is decided." in report(STUDY, result, folder / "again")
    assert (folder / "generalisation.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tasks": ["upside down"]}, ValueError, "unknown task 'upside down'"),
        ({"models": ["gan"]}, ValueError, "unknown model 'gan'"),
        ({"tasks": ["from digits to MNIST"]}, FileNotFoundError, "poflow-lite download mnist"),
    ],
)
def test_a_mistake_is_named_before_anything_is_trained(tmp_path, monkeypatch, options, error, message):
    monkeypatch.setenv("POFLOW_DATA", str(tmp_path))
    with pytest.raises(error, match=message):
        run_study(STUDY, tmp_path / "out", **ASKED | options)
    assert not (tmp_path / "out").exists()


def test_cells_have_folders_of_their_own_and_models_without_a_column_may_be_named():
    names = [name for name, task in TASKS.items() if task.data is None and "seen" not in name]
    grid = STUDY.cells(tasks=names, models=("poflow", "weakly-supervised"), seeds=(0, 1))
    assert len(grid) == 2 * 2 * len({TASKS[name].training for name in names})
    assert grid["poflow-10-percent-of-the-images-seed-1"]["settings"]["share"] == 0.1


def test_a_model_of_mnist_takes_the_recipe_of_the_data_of_the_study(monkeypatch):
    monkeypatch.setattr(generalisation, "task_sequences", lambda *asked: None)  # MNIST may not be there
    home, away = STUDY.cells(models=("poflow",), tasks=("as trained", "from MNIST to digits")).values()
    assert [cell["training"] for cell in (home, away)] == ["as in the paper", "on MNIST"]
    assert [cell["data"] for cell in (home, away)] == ["digits", "mnist"]
    assert away["settings"] == home["settings"]


# --- what people read ---------------------------------------------------------------------------------------------


def made_up(model, seed=0, more=None, trip=None, **errors):
    done = {"as trained": {"no motion": {"a": 10.0, "b": 100.0}, "floor": {"a": 1.0, "b": 10.0}, **errors}}
    done |= more or {}
    return {"model": model, "seed": seed, "errors": done, "validation": done, "round_trip": trip or {}}


def result_of(*cells):
    return {"cells": cells, "settings": {"data": "toys", "split": "test", "images": 5, "budget": "smoke"}}


def test_a_model_is_moved_by_what_serves_it_best_but_ours_by_its_flow():
    still = {"a": 10.0, "b": 100.0}
    cells = [
        made_up("vae", 0, identity=still, linear={"a": 2.0, "b": 40.0}),
        made_up("vae", 1, identity=still, linear={"a": 4.0, "b": 40.0}),
        made_up("flow-factorized", linear={"a": 1.0, "b": 10.0}, flow={"a": 2.0, "b": 20.0}),
        made_up("poflow", flow={"a": 0.1}, linear={"a": 5.0, "b": 50.0}),  # its flow could not do b
    ]
    found = standings(result_of(*cells)).set_index("model")
    assert found.operator.to_dict() == {"vae": "linear", "flow-factorized": "flow", "poflow": "linear"}
    assert found.error.to_dict() == pytest.approx({"vae": 0.35, "flow-factorized": 0.2, "poflow": 0.5})
    assert found.spread["vae"] == pytest.approx(0.1 / math.sqrt(2))
    assert np.isnan(found.spread["poflow"])
    assert found.floor.to_list() == pytest.approx([0.1, 0.1, 0.1])
    assert found.seeds.to_list() == [2, 1, 1]


def test_the_operator_is_chosen_on_validation_images():
    """On test images identity has the least error, on validation images the ridge map."""
    tested = made_up("vae", identity={"a": 1.0, "b": 10.0}, linear={"a": 5.0, "b": 50.0})
    chosen = made_up("vae", identity={"a": 5.0, "b": 50.0}, linear={"a": 1.0, "b": 10.0})["errors"]
    (row,) = standings(result_of({**tested, "validation": chosen})).to_dict("records")
    assert (row["operator"], row["error"]) == ("linear", pytest.approx(0.5))
    assert (
        "least error in that very task on validation images"
        in STUDY.notes(result_of({**tested, "validation": chosen}))[1]
    )


def of(model, by, *errors):
    return [made_up(model, seed, **{by: {"a": 10 * e, "b": 100 * e}}) for seed, e in enumerate(errors)]


def test_a_task_is_decided_where_the_paired_difference_is_beyond_its_interval():
    rivals = of("vae", "linear", 0.30, 0.40, 0.50)
    ahead = result_of(
        *rivals, *of("flow-factorized", "flow", 0.9, 0.9, 0.9), *of("free-flow", "flow", 0.27, 0.36, 0.44)
    )
    (row,) = generalisation.verdicts(ahead).to_dict("records")
    half = 4.302653 * np.std([-0.1, -0.1, -0.12], ddof=1) / math.sqrt(3)
    assert (row["ours"], row["rival"], row["verdict"]) == ("free-flow", "vae", "ours")
    assert [row[name] for name in ("difference", "low", "high")] == pytest.approx(
        [-0.32 / 3, -0.32 / 3 - half, -0.32 / 3 + half]
    )
    first = STUDY.notes(ahead)[0]
    assert first.startswith("Of 1 tasks ours (free-flow or flow-factorized) is ahead in 1, a rival in 0; 0 are open.")
    assert first.endswith("tasks of equals would give 0.1 false verdicts; Holm's correction leaves 1.")
    assert row["p"] == pytest.approx(2 * t.sf(4.302653 * 0.32 / 3 / half, 2))
    assert list(STUDY.table(ahead)["difference (95 %)"]) == ["free-flow − vae: **-10.7 % (-13.5 to -7.8)**"]
    assert STUDY.figure(ahead).get_suptitle().startswith("of 1 tasks ours is ahead in 1, a rival in 0; 0 are open (◂")
    assert "linear steps: one map a step" in STUDY.notes(ahead)[2]
    assert "agreement" not in "\n".join(STUDY.notes(ahead)), "no column of the two causes"
    assert STUDY.table(ahead)["free-flow"][0].startswith("0.357 ± ")
    assert {text.get_text() for text in STUDY.figure(ahead).axes[0].texts} == {"0.40", "0.90", "0.36 ◂", "0.10"}
    tied = result_of(*rivals, *of("free-flow", "flow", 0.29, 0.41, 0.49))
    assert list(generalisation.verdicts(tied).verdict) == ["tie"]
    assert "**" not in "".join(map(str, STUDY.table(tied).to_numpy().ravel()))
    lost = result_of(*rivals, *of("free-flow", "flow", 0.60, 0.81, 1.0))
    assert list(generalisation.verdicts(lost).verdict) == ["rival"]
    assert re.fullmatch(r"free-flow − vae: \*\*\+.* to \+.*\*\*", STUDY.table(lost)["difference (95 %)"][0])
    one = result_of(*of("vae", "linear", 0.3), *of("free-flow", "flow", 0.1))
    assert list(generalisation.verdicts(one).verdict) == ["tie"], "one seed decides nothing"
    assert "difference (95 %)" not in STUDY.table(one)
    assert "ahead" not in STUDY.figure(one).get_suptitle()


def test_who_stands_for_a_side_is_chosen_on_validation_images():
    """The VAE has the least test error, the β-VAE the least on validation images: ours is ahead of it and in a tie."""

    def chosen(cells, *errors):
        return [cell | {"validation": other["errors"]} for cell, other in zip(cells, of("any", *errors), strict=True)]

    ours = chosen(of("free-flow", "flow", 0.30, 0.31, 0.30), "flow", 0.3, 0.3, 0.3)
    best = chosen(of("vae", "linear", 0.20, 0.21, 0.20), "linear", 0.5, 0.5, 0.5)
    stands = chosen(of("beta-vae", "linear", 0.40, 0.41, 0.40), "linear", 0.4, 0.4, 0.4)
    (row,) = generalisation.verdicts(result_of(*ours, *best, *stands)).to_dict("records")
    assert (row["rival"], row["verdict"]) == ("beta-vae", "tie"), "a smaller error stands in the row"
    (row,) = generalisation.verdicts(result_of(*ours, *stands)).to_dict("records")
    assert (row["rival"], row["verdict"]) == ("beta-vae", "ours")


def test_what_its_flow_does_not_move_is_no_merit_of_ours():
    rivals = of("vae", "linear", 0.30, 0.40, 0.50)
    folds = of("free-flow", "linear", 0.20, 0.27, 0.33)
    assert list(generalisation.verdicts(result_of(*rivals, *folds)).verdict) == ["tie"]
    moved = result_of(*rivals, *folds, *of("flow-factorized", "flow", 0.27, 0.36, 0.44))
    (row,) = generalisation.verdicts(moved).to_dict("records")
    assert (row["ours"], row["verdict"]) == ("flow-factorized", "ours")


def test_tasks_without_a_pair_of_seeds_are_left_out_and_holm_counts_those_with_a_p_value():
    """One task has no seed of both sides, one has one, and one has three."""

    def under(task, cells):
        return [cell | {name: {task: cell[name]["as trained"]} for name in ("errors", "validation")} for cell in cells]

    rivals, ours = of("vae", "linear", 0.3, 0.4, 0.5), of("free-flow", "flow", 0.27, 0.36, 0.44)
    apart, single = [rivals[0], ours[1]], under("classes never seen", [rivals[0], ours[0]])
    result = result_of(*apart, *single, *under("1 % of the images", [*rivals, *ours]))
    found = generalisation.verdicts(result)
    assert dict(zip(found.task, found.verdict, strict=True)) == {
        "classes never seen": "tie",
        "1 % of the images": "ours",
    }
    assert STUDY.notes(result)[0].endswith("Holm's correction leaves 1.")
    assert generalisation.verdicts(result_of(*apart)).empty


def test_gradient_and_agreement_are_told_apart_by_four_models():
    grid = STUDY.cells(models=tuple(generalisation.CAUSES), tasks=("as trained",))
    found = {cell["model"]: (cell["settings"]["field"], cell["settings"]["consistency"]) for cell in grid.values()}
    assert found == {
        "gradient": ("gradient", 0.0),
        "gradient + agreement": ("gradient", 0.1),
        "free": ("free", 0.0),
        "free + agreement": ("free", 0.1),
    }
    alike = [
        {key: value for key, value in cell["settings"].items() if key not in ("field", "consistency")}
        for cell in grid.values()
    ]
    assert all(each == alike[0] for each in alike)


def test_two_at_once_are_held_against_the_larger_error_of_the_two_alone():
    def pair(error):
        return {"two at once": {"no motion": {"a + b": 110.0}, "floor": {"a + b": 1.0}, "flow": {"a + b": error}}}

    cells = [made_up("free-flow", seed, pair(e), flow={"a": 2.0, "b": 20.0}) for seed, e in enumerate((30.0, 50.0))]
    (line,) = (line for line in STUDY.notes(result_of(*cells)) if line.startswith("Two at once"))
    assert line.startswith("Two at once by a flow ÷ the larger error of the two alone (as trained), in pixels: ")
    assert line.endswith(": free-flow 1.50 to 2.50.")


def test_there_and_back_says_in_how_many_cases_a_step_folds_space():
    still = {"a": 1.0, "b": 1.0}
    whole, folds = ({"identity": still, "flow": flow} for flow in ({"a": 1.0, "b": 1.25}, {"a": 1.0}))
    cells = [made_up(model, trip=trip, flow=still) for model, trip in (("free-flow", whole), ("free", folds))]
    line = STUDY.notes(result_of(*cells))[-1]
    assert line.startswith("There and back by a flow ÷ the error of the first frame")
    assert line.endswith(": free-flow 1.250; free 1.000 (1 of 2 cases fold and are left out).")


def test_bars_of_order_gaps_show_commuting_pairs_first():
    matrix = torch.tensor([[0.0, 2.0, 4.0], [2.0, 0.0, 6.0], [4.0, 6.0, 0.0]])
    gaps = metrics.OrderGaps(("a", "b", "c"), matrix, matrix / 2, matrix)
    axis = order_gap_bars(gaps, [[True, False, False], [False, True, True], [False, True, True]]).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["b, c", "a, b", "a, c"]
    assert [bar.get_width() for bar in axis.patches] == [6, 2, 4, 3, 1, 2]
