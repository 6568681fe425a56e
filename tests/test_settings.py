"""Settings: every option of every model, recipe and study takes what it may be, and refuses the rest in one line."""

import math
from collections.abc import Iterable, Sequence
from typing import get_origin, get_type_hints

import numpy as np
import pytest
from typer.testing import CliRunner

from poflow_lite import cli, experiments
from poflow_lite.experiments import MODELS, Recipe, options_of, recipe
from poflow_lite.settings import Count, Flag, Positive, Seed, Share, Size, Weight, checked, checks_arguments
from poflow_lite.studies import STUDIES, run_study, settings_of
from poflow_lite.studies import study as studies

BAD = ("word", "", -1, 0.5, 1.5, math.nan, math.inf, -math.inf, 10**12, 0, True, None, (), ("a",), [1, -1], {"a": 1})
RECIPE = [name for name in Recipe.__dataclass_fields__ if name != "options"]


def example(
    *, count: Count = 1, sizes: tuple[Size, ...] = (1,), share: Share = 1.0, seeds: Sequence[Seed] = (0,), free=0
):
    """Nothing."""


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"count": np.int64(4), "free": object}, {"count": 4, "free": object}),
        ({"sizes": 9, "seeds": 3}, {"sizes": (9,), "seeds": (3,)}),
        ({"sizes": [1, 2], "share": 1}, {"sizes": (1, 2), "share": 1.0}),
    ],
)
def test_what_is_meant_well_is_taken(given, taken):
    assert checked(example, given) == taken


@pytest.mark.parametrize(
    ("hint", "value", "told"),
    [
        (Count, 0, "x must be greater than or equal to 1, got 0"),
        (Count, 2.0, "x must be a valid integer, got 2.0"),
        (Count, True, "x must be a valid integer, got True"),
        (Size, 10**9, "x must be less than or equal to 65536, got 1000000000"),
        (Seed, -1, "x must be greater than or equal to 0, got -1"),
        (Positive, 0, "x must be greater than 0, got 0"),
        (Weight, math.inf, "x must be a finite number, got inf"),
        (Share, 1.5, "x must be less than or equal to 1, got 1.5"),
        (Share, math.nan, "x must be .*, got nan"),
        (Flag, "yes", "x must be a valid boolean, got 'yes'"),
        (tuple[Size, ...], (3, 0), r"x\[1\] must be greater than or equal to 1, got 0"),
        (Weight, "a" * 500, r"x must be a valid number, got 'aaaa.{1,40}'$"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(hint, value, told):
    def owner(*, x: hint): ...

    owner.__annotations__ = {"x": hint}
    with pytest.raises(ValueError, match=f"^{told}"):
        checked(owner, {"x": value})


def test_a_function_can_check_its_keywords_whenever_it_is_called():
    @checks_arguments
    def half(x, *, rounds: Count = 1, words: Iterable[str] | dict = ()):
        return x / rounds, words

    assert half(3, rounds=np.int32(2), words={"a": 1}) == (1.5, {"a": 1})  # no setting: passed on as it is
    with pytest.raises(ValueError, match="rounds must be"):
        half(3, rounds=0)


def taken(call, **options):
    """What a call makes of options; ``None`` where it refuses them in one line."""
    try:
        return call(**options)
    except (ValueError, FileNotFoundError) as error:
        told = str(error)
    assert "\n" not in told
    return None


@pytest.mark.parametrize("model", MODELS)
def test_every_setting_of_a_recipe_is_taken_rightly_or_refused(model):
    hints = get_type_hints(Recipe)
    for name in [*RECIPE, *options_of(model)]:
        for value in BAD:
            found = taken(recipe, data="digits", budget="smoke", model=model, **{name: value})
            if found is None:
                continue
            kind = get_origin(hints.get(name)) or hints.get(name)
            assert not isinstance(kind, type) or isinstance(getattr(found, name), kind), (name, value)
            assert value == value, (name, "NaN")
            assert value not in (-1, math.inf, -math.inf), (name, value)


@pytest.mark.parametrize("name", STUDIES)
def test_every_setting_of_a_study_is_taken_rightly_or_refused_before_anything_runs(name, tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "run_cells", lambda *arguments, **options: ({}, {}))
    monkeypatch.setattr("poflow_lite.studies.cost_measures.on_noise", lambda *arguments: None)
    small = {} if name == "transport" else {"budget": "smoke"}
    for setting in settings_of(STUDIES[name]):
        for value in ("word", -1, 0.5, math.nan, None, ("a",), {"a": 1}):
            found = taken(run_study, study=STUDIES[name], out=tmp_path, **{**small, setting: value})
            if found is not None:
                assert value not in ("word", -1, 0.5) or setting in ("thresholds", "betas"), (setting, value)


@pytest.mark.parametrize("name", [*RECIPE, *{n: 0 for model in MODELS for n in options_of(model)}])
def test_every_setting_on_the_command_line_is_taken_or_refused_in_one_line(name, monkeypatch):
    def asked(model, data, budget, out, *, seed, device, resume, save_every_seconds, **changes):
        recipe(data, budget, model, **changes)
        return out

    monkeypatch.setattr(experiments, "train_recipe", asked)
    model = next(m for m in ("flow-factorized", *MODELS) if name in RECIPE or name in options_of(m))
    for text in ("word", "-1", "0.5", "nan", "inf", "1e400", "999999999999", "1,2", "a=b", "true", "a,,", "ä"):
        found = CliRunner().invoke(cli.app, ["train", "--model", model, "--set", f"{name}={text}"])
        assert found.exception is None or isinstance(found.exception, ValueError), (name, text, found.exception)
