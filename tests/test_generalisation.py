"""Tasks and their table: what is shown, what is measured, on which split what is fitted, and who is called first."""

import json
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from poflow_lite.datasets import (
    FIVE_TRANSFORMATIONS,
    PAPER_TRANSFORMATIONS,
    TransformationSequences,
    load_images,
    load_sequences,
    render_motion,
)
from poflow_lite.experiments import build_model, load_run, recipe
from poflow_lite.metrics import OrderGaps, equivariance_errors, persistence, predict, reconstruct
from poflow_lite.operators import OPERATORS, AffineMaps, fit_operators
from poflow_lite.studies import generalisation
from poflow_lite.studies.generalisation import STUDY, order_gap_bars, standings
from poflow_lite.studies.study import report, run_study
from poflow_lite.studies.tasks import (
    TASKS,
    TRAININGS,
    Task,
    measure_round_trip,
    measure_task,
    several_at_once,
    switching,
    task_sequences,
)

TINY = {"steps": 3, "batch_size": 4, "latent": 8, "channels": (4, 8), "hidden": 16, "width": 4}
QUICK = {name: fit for name, fit in OPERATORS.items() if name != "traversal"}  # which tries many a candidate


def tiny_model():
    return build_model("flow-factorized", recipe("digits", "smoke", **TINY)).eval()


@pytest.fixture(scope="module")
def training():
    return load_sequences("digits", "train").first(20)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def operators(model, training):
    return fit_operators(model, training, QUICK)


def shown_of(name, images):
    return task_sequences(TASKS[name], "digits", "test", images)


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
    assert set(unseen).isdisjoint(TASKS["classes never seen"].left_out)
    images = load_images("digits", "test")
    expected = images.images[torch.isin(images.labels, torch.tensor(unseen))]
    torch.testing.assert_close(shown_of("classes never seen", 1000).images, expected)


def test_starts_out_of_range_do_not_overlap_with_those_of_training():
    drawn = shown_of("random starts out of range", 100).start_pose(500, torch.Generator().manual_seed(0))
    for column, transformation in enumerate(PAPER_TRANSFORMATIONS[:2]):
        low, high = transformation.start
        assert not ((drawn[:, column] > low) & (drawn[:, column] < high)).any()


def test_motions_are_those_of_the_data_set_whatever_images_are_shown():
    shown = task_sequences(TASKS["from digits to letters"], "digits-five", "test", 2, horizon=6)
    assert shown.transformations == FIVE_TRANSFORMATIONS
    assert [motion.name for motion in TASKS["twice as long"].motions(shown)] == list(shown.names)
    assert {motion.frames for motion in TASKS["twice as long"].motions(shown)} == {12}
    assert len(switching(shown)) == 20
    assert switching(shown)[0].name == "scale, then rotate"
    assert {motion.frames for motion in switching(shown)} == {6}
    assert len(several_at_once(shown, 3)) == 10


def test_what_cannot_be_tried_is_said(model):
    with pytest.raises(ValueError, match="tasks move still images by transformations, which isaac3d-lite does not"):
        task_sequences(Task(), "isaac3d-lite", "test", 2, horizon=3)
    two = TransformationSequences(torch.rand(2, 3, 28, 28), PAPER_TRANSFORMATIONS[:2])
    with pytest.raises(ValueError, match="needs more transformations than scale, rotate"):
        measure_task(model, {}, TASKS["three at once"], two)


# --- what is measured ---------------------------------------------------------------------------------------------


def test_a_task_of_single_motions_is_the_equivariance_error(model, operators):
    shown = shown_of("as trained", 9)
    measured = measure_task(model, operators, TASKS["as trained"], shown)
    predictors = {"flow": partial(predict, model), "floor": partial(reconstruct, model), "no motion": persistence}
    for name, errors in equivariance_errors(predictors, shown).items():
        assert measured[name] == pytest.approx(errors, rel=1e-3), name


def test_a_corrupted_frame_is_what_the_model_sees_and_not_the_truth(model, operators):
    shown, black = shown_of("as trained", 9), Task(corrupt=lambda frames, _: torch.zeros_like(frames))
    clean, blind = (measure_task(model, operators, task, shown) for task in (Task(), black))
    assert [blind[name] for name in ("no motion", "floor")] == [clean[name] for name in ("no motion", "floor")]
    sight = model.decode(model.encode(torch.zeros(1, 3, 28, 28)).mean).mean  # what it makes of a black frame, for all t
    for motion in black.motions(shown):
        truth = render_motion(shown, torch.arange(9), motion)
        expected = (truth[:, 1:] - sight[:, None]).abs().sum().item() / 9
        assert blind["identity"][motion.name] == pytest.approx(expected, rel=1e-4)


def test_a_flow_that_folds_space_has_no_entry_for_motions_backwards_and_other_mistakes_are_not_hidden(training):
    folding = tiny_model()
    with torch.no_grad():
        folding.flow.field.quadratic.copy_(-2.0 * torch.eye(8).expand(3, 8, 8))
    operators = fit_operators(folding, training, {"linear": OPERATORS["linear"]})
    task, shown = TASKS["backwards"], shown_of("backwards", 4)
    measured = measure_task(folding, operators, task, shown)
    assert measured["flow"] == {}
    assert len(measured["linear"]) == 3
    ratios = measure_round_trip(folding, operators, shown)
    assert ratios["flow"] == {}
    assert len(ratios["linear"]) == 3
    still = AffineMaps.identity(torch.zeros(3, 1, 9, 8))
    for wrong in (AffineMaps(still.matrix, still.offset), AffineMaps.identity(torch.zeros(2, 1, 9, 8))):
        with pytest.raises(ValueError, match=r"no way back|k must be"):  # whoever sees this has an operator to mend
            measure_task(folding, {"wrong": wrong}, task, shown)


def test_several_at_once_are_tried_in_turn_as_well(model, operators):
    measured = measure_task(model, operators, TASKS["two at once"], shown_of("two at once", 4))
    assert {name.removesuffix(" in turn") for name in measured if name.endswith("in turn")} == {
        "linear", "linear steps", "linear step", "flow",
    }  # fmt: skip
    assert all(errors.keys() == measured["no motion"].keys() for errors in measured.values())
    assert measured["linear in turn"] != measured["linear"]


def test_there_and_back_by_an_invertible_flow_is_where_it_began(model, operators):
    ratios = measure_round_trip(model, operators, shown_of("as trained", 6))
    assert set(ratios["flow"]) == {"scale", "rotate", "hue"}
    for name in ("flow", "identity", "translation"):
        assert list(ratios[name].values()) == pytest.approx([1, 1, 1], abs=1e-3)


# --- the study ----------------------------------------------------------------------------------------------------

ASKED = {"models": ("vae", "free flow"), "tasks": ("as trained", "half speed", "1 % of the images"), "images": 4,
         "budget": "smoke", "device": "cpu", "changes": TINY}  # fmt: skip


FEW = {name: OPERATORS[name] for name in ("identity", "linear")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """With two operators, fitted to 20 training images: nothing here depends on how many."""
    folder = tmp_path_factory.mktemp("generalisation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generalisation, "fit_operators", partial(fit_operators, images=20, operators=FEW))
        return folder, run_study(STUDY, folder, progress=False, **ASKED)


def test_every_model_is_trained_on_the_training_split_in_every_way_that_is_needed(finished):
    folder, result = finished
    assert result["failed"] == {}
    found = {cell["cell"]: (cell["model"], cell["training"]) for cell in result["cells"]}
    ways = ("as in the paper", "1 % of the images")
    assert sorted(found.values()) == sorted((model, way) for model in ASKED["models"] for way in ways)
    images = {"as in the paper": "1,257", "1 % of the images": "13"}
    for name, (_, way) in found.items():
        config = json.loads((folder / name / "config.json").read_text())
        assert config["data_set"] == f"digits (train, {images[way]} images), fixed start"
    assert config["options"]["field"] == "free"


def test_operators_are_fitted_to_the_training_split(finished):
    folder, result = finished
    (cell,) = (cell for cell in result["cells"] if cell["cell"] == "free-flow-as-in-the-paper-seed-0")
    model, task, shown = load_run(folder / cell["cell"], "cpu").model, TASKS["half speed"], shown_of("half speed", 4)
    by_hand, wrong = (
        measure_task(model, fit_operators(model, load_sequences("digits", split), FEW, images=20), task, shown)
        for split in ("train", "test")
    )
    for name, errors in by_hand.items():
        assert cell["errors"]["half speed"][name] == pytest.approx(errors, rel=1e-5), name
    assert wrong["linear"]["scale"] != pytest.approx(by_hand["linear"]["scale"], rel=1e-3)


def test_the_table_and_the_figure_are_written(finished):
    folder, result = finished
    table = pd.read_csv(folder / "table.csv")
    assert list(table.columns) == ["task", "vae", "free flow"]  # no floor of ours, which was not asked for
    assert list(table.task) == list(ASKED["tasks"])
    assert "free flow has less error than all but ours in" in (folder / "table.md").read_text()
    assert (folder / "generalisation.png").stat().st_size > 10_000
    assert len(report(STUDY, result, folder / "again")) > 500


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tasks": ("upside down",)}, "unknown task 'upside down'"), ({"models": ("gan",)}, "unknown model 'gan'")],
)
def test_a_mistake_is_named_before_anything_is_trained(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run_study(STUDY, tmp_path / "out", **ASKED | options)
    assert not (tmp_path / "out").exists()


def test_mnist_that_is_not_there_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("POFLOW_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="poflow-lite download mnist"):
        STUDY.cells(tasks=("from digits to MNIST",))


def test_cells_have_folders_of_their_own_and_models_without_a_column_may_be_named():
    tasks = [name for name, task in TASKS.items() if task.data is None and "seen" not in name]
    grid = STUDY.cells(tasks=tasks, models=("poflow", "weakly-supervised"), seeds=(0, 1))
    assert len(grid) == 2 * 2 * len({TASKS[name].training for name in tasks})
    assert grid["poflow-10-percent-of-the-images-seed-1"]["settings"]["share"] == 0.1


# --- what people read ---------------------------------------------------------------------------------------------


def made_up(model, seed=0, more=None, **errors):
    done = {"as trained": {"no motion": {"a": 10.0, "b": 100.0}, "floor": {"a": 1.0, "b": 10.0}, **errors}}
    return {"model": model, "seed": seed, "errors": done | (more or {}), "round_trip": {}}


def result_of(*cells):
    return {"cells": cells, "settings": {"data": "toys", "split": "test", "images": 5, "budget": "smoke"}}


def test_a_model_is_moved_by_what_serves_it_best_but_ours_by_its_flow():
    still = {"a": 10.0, "b": 100.0}
    found = standings(
        result_of(
            made_up("vae", 0, identity=still, linear={"a": 2.0, "b": 40.0}),
            made_up("vae", 1, identity=still, linear={"a": 4.0, "b": 40.0}),
            made_up("flow-factorized", 0, linear={"a": 1.0, "b": 10.0}, flow={"a": 2.0, "b": 20.0}),
            made_up("poflow", 0, flow={"a": 0.1}, linear={"a": 5.0, "b": 50.0}),  # its flow could not do b
        )
    ).set_index("model")
    assert found.operator.to_dict() == {"vae": "linear", "flow-factorized": "flow", "poflow": "linear"}
    assert found.error.to_dict() == pytest.approx({"vae": 0.35, "flow-factorized": 0.2, "poflow": 0.5})
    assert found.spread["vae"] == pytest.approx(0.1 / math.sqrt(2))
    assert np.isnan(found.spread["poflow"])
    assert found.floor.to_list() == pytest.approx([0.1, 0.1, 0.1])
    assert found.seeds.to_dict() == {"vae": 2, "flow-factorized": 1, "poflow": 1}


def test_both_of_ours_are_counted_against_the_others_alone():
    cells = [
        made_up("vae", linear={"a": 3.0, "b": 30.0}),
        made_up("flow-factorized", flow={"a": 2.0, "b": 20.0}),
        made_up("free flow", flow={"a": 1.0, "b": 10.0}),
    ]
    result = result_of(*cells)
    assert STUDY.table(result).to_numpy().tolist() == [["as trained", "0.30 (linear)", "0.20", "**0.10**", "0.10"]]
    assert "flow-factorized has less error than all but ours in 1 of 1 tasks." in STUDY.notes(result)
    texts = {text.get_text() for text in STUDY.figure(result).axes[0].texts}
    assert texts == {"0.30", "0.20", "0.10 ◂", "0.10"}


def test_two_at_once_are_held_against_the_larger_error_of_the_two_alone():
    pairs = [{"two at once": {"no motion": {"a + b": 110.0}, "floor": {"a + b": 1.0}, "flow": {"a + b": error}}}
             for error in (30.0, 50.0)]  # fmt: skip
    cells = [made_up("free flow", seed, more, flow={"a": 2.0, "b": 20.0}) for seed, more in enumerate(pairs)]
    (line,) = (line for line in STUDY.notes(result_of(*cells)) if line.startswith("Two at once"))
    assert line.startswith("Two at once by the flow of free flow: 1.50 to 2.50 times the larger error")


@pytest.mark.parametrize(
    ("flow", "largest", "end"),
    [
        ({"a": 1.0, "b": 1.25}, "1.250 times the error", "at worst, in all 2 cases."),
        ({"a": 1.0}, "1.000 times the error", "in 1 of 2 cases; in the others some step folds space."),
    ],
)
def test_there_and_back_says_in_how_many_cases_a_step_folds_space(flow, largest, end):
    cell = made_up("free flow", flow={"a": 1.0, "b": 1.0})
    cell["round_trip"] = {"identity": {"a": 1.0, "b": 1.0}, "flow": flow}
    (line,) = (line for line in STUDY.notes(result_of(cell)) if line.startswith("There and back"))
    assert largest in line
    assert line.endswith(end)


def test_bars_of_order_gaps_show_commuting_pairs_first():
    matrix = torch.tensor([[0.0, 2.0, 4.0], [2.0, 0.0, 6.0], [4.0, 6.0, 0.0]])
    gaps = OrderGaps(("a", "b", "c"), matrix, matrix / 2, matrix)
    axis = order_gap_bars(gaps, [[True, False, False], [False, True, True], [False, True, True]]).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["b, c", "a, b", "a, c"]
    assert [bar.get_width() for bar in axis.patches] == [6, 2, 4, 3, 1, 2]
