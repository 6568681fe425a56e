"""The command ``poflow-lite``: train and measure a model, run a study, get data, and make the course."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poflow_lite.cli.lessons import lessons
from poflow_lite.cli.terminal import interruptible

if TYPE_CHECKING:
    from poflow_lite.studies import Study

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(lessons, name="course")

Out = Annotated[Path, typer.Option("--out", help="Folder of the run.")]
Seed = Annotated[int, typer.Option("--seed", help="Decides weights and every draw.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Budget = Annotated[str, typer.Option("--budget", help="smoke (seconds), lecture (minutes) or full (hours, or a GPU).")]
Data = Annotated[str, typer.Option("--data", help="digits, mnist, letters, sprites, shapes3d-lite, …")]
Assign = Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE or NAME=V1,V2,…; may be repeated.")]

DEMO = Path("runs/demo")


def main() -> None:
    """Run the command; whatever goes wrong is one line on standard error, a traceback only with ``--debug``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters shows ? instead of failing
    try:
        app()
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        told = " ".join(str(error).split())
        if not isinstance(error, ValueError | OSError | FloatingPointError):
            told = f"{type(error).__name__}: {told} (unforeseen: poflow-lite --debug … shows where it happened)"
        typer.echo(f"error: {told}", err=True)
        sys.exit(1)


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False) -> None:
    """Flow-factorized representation learning: train, measure and look."""


# --- --set NAME=VALUE ---------------------------------------------------------------------------------------------


def _read(text: str) -> Any:
    """A number or a truth where it reads as one, a word otherwise."""
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _assignments(texts: list[str] | None) -> dict[str, Any]:
    """Name ↦ value of NAME=VALUE, tuple of NAME=V1,V2,… and mapping of NAME=KEY=V1,V2,…, which may be repeated."""
    found: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"--set takes NAME=VALUE, got {text!r}")
        key, nested, values = value.rpartition("=")
        read = tuple(_read(part) for part in values.split(","))
        name = name.strip().replace("-", "_")
        if nested:
            found[name] = {**found.get(name, {}), key.strip().replace("-", "_"): read}
        else:
            found[name] = read if len(read) > 1 else read[0]
    return found


def _recipe_settings() -> list[str]:
    """Names of the fields of a recipe and of the options of all models."""
    from poflow_lite.experiments import MODELS, Recipe, options_of

    own = [name for name in Recipe.__dataclass_fields__ if name != "options"]
    return own + [name for model in MODELS for name in options_of(model)]


def _known(what: str, given: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    from poflow_lite.io import require_known

    names = list(dict.fromkeys(names))
    for name in given:
        require_known(what, name, names)
    return given


def _settings(study: Study, given: dict[str, Any]) -> dict[str, Any]:
    """Settings of a study, those of the recipe or a model as its "changes"; "all" is the default of the study's own."""
    from poflow_lite.studies import settings_of

    own = settings_of(study)
    changeable = _recipe_settings() if own.pop("changes", study) is None else []
    chosen = {name: own[name] if value == "all" and name in own else value for name, value in given.items()}
    _known(f"setting of the study {study.name}", chosen, [*own, *changeable])
    changes = {name: value for name, value in chosen.items() if name not in own}
    return {name: value for name, value in chosen.items() if name in own} | ({"changes": changes} if changes else {})


# --- one run ------------------------------------------------------------------------------------------------------


@app.command()
def demo(out: Out = DEMO, seed: Seed = 0, device: Device = "auto", budget: Budget = "lecture") -> None:
    """Train a free flow on bundled digits for a minute, measure it on held-out ones, draw what it learned.

    A demo that is in runs/demo is replaced; a run in another folder never is.
    """
    from poflow_lite import experiments

    shorter = {"steps": 1000} if budget == "lecture" else {}
    with interruptible("the same command starts anew" if out == DEMO else "start anew with another --out"):
        how = {"seed": seed, "device": device, "overwrite": out == DEMO}
        experiments.train_recipe("free-flow", "mnist-10k", budget, out, **how, **shorter)
        _report(experiments.evaluate_run(out, device=device), out)


@app.command()
def train(
    model: Annotated[str, typer.Option("--model", help="vae, poflow, flow-factorized, …")] = "flow-factorized",
    data: Data = "digits",
    budget: Budget = "lecture",
    seed: Seed = 0,
    out: Out = Path("runs/train"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    device: Device = "auto",
    save_every: Annotated[float, typer.Option("--save-every", help="Seconds between checkpoints.")] = 30.0,
    assign: Assign = None,
) -> None:
    """Train a model into a folder."""
    from poflow_lite import experiments

    changes = _known("setting", _assignments(assign), _recipe_settings())
    how = {"seed": seed, "device": device, "resume": resume, "save_every_seconds": save_every}
    with interruptible(f"the same command with --resume goes on from the last checkpoint in {out}"):
        folder = experiments.train_recipe(model, data, budget, out, **how, **changes)
    typer.echo(f"Trained. Measure it with: poflow-lite evaluate {folder}")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    split: Annotated[str, typer.Option("--split", help="test, or validation when choosing settings.")] = "test",
    device: Device = "auto",
) -> None:
    """Measure a trained model on images it has not seen, and draw them."""
    from poflow_lite import experiments

    with interruptible(f"the run in {folder} is as it was: the same command measures it anew"):
        _report(experiments.evaluate_run(folder, device=device, split=split), folder)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    name: Annotated[str, typer.Argument(help="Name of the copy.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of pretrained models.")] = Path("data/checkpoints"),
) -> None:
    """Copy a finished run's model, in half precision, to the pretrained models that come with the course."""
    from poflow_lite import experiments

    path = experiments.export(run, name, out)
    typer.echo(f"{path}: {path.stat().st_size / 2**20:.1f} MB")


def _report_likelihood(likelihood: dict[str, Any] | None) -> None:
    if likelihood is None:
        typer.echo(
            "Log-likelihood: none, for its estimate is above the ceiling, where no density can be, or NaN: "
            "a flow that folds space has none. Train longer, or use more substeps"
        )
        return
    frame = likelihood["frame"]
    meaning = {
        "sequence": "log p(x_0…x_T | k) ÷ (T + 1), all frames sharing z_0",
        "predictive": "log p(x_t | x_0, k)",
        max(frame, key=frame.get, default=""): "log p(x_t | k), each frame by itself",
    }
    typer.echo(f"Log-likelihood (nats per frame, N(x̂, I), ceiling {likelihood['ceiling']:.1f})")
    for name, said in meaning.items():
        if name:
            value, error = frame.get(name, likelihood.get(name)), likelihood["standard_error"][name]
            typer.echo(f"  {'frame' if name in frame else name:<12}{value:>9.1f} ± {error:.1f}   {said}")
    typer.echo(f"Squared error of a predicted frame: {likelihood['squared_error']:.1f}")


def _report(metrics: dict[str, Any], folder: Path) -> None:
    """Print ``metrics.json`` as a table."""
    import pandas as pd

    model = "flow" if metrics["model"] in ("free-flow", "flow-factorized") else metrics["model"]
    columns = {name.replace("_", " "): name for name in ("no_motion", "median_frame", "reconstruction_floor")}
    columns = {model: "equivariance_error", **columns}
    table = pd.DataFrame({heading: metrics[name] for heading, name in columns.items()}).map("{:.0f}".format)
    table[f"{model} ÷ no motion"] = [f"{ratio:.2f}" for ratio in metrics["ratio_to_no_motion"].values()]
    typer.echo(f"\n{metrics['model']}, budget {metrics['budget']}, seed {metrics['seed']}, {metrics['data_set']}")
    typer.echo(f"L1 over all frames\n{table.to_string()}")
    _report_likelihood(metrics["log_likelihood"])
    frame = (metrics["log_likelihood"] or {}).get("frame")
    gradient = metrics["settings"]["options"].get("field", "gradient") == "gradient"  # others may turn without folding
    if frame and gradient and metrics.get("smallest_eigenvalue", 1.0) <= 0:
        typer.echo(
            f"warning: the flow is not invertible everywhere (smallest eigenvalue of I + ∇²u is "
            f"{metrics['smallest_eigenvalue']:.2f}): its frame log-likelihood is not exact. Train longer, or "
            "raise the weight of the Hamilton-Jacobi penalty"
        )
    seconds = metrics["seconds"]
    typer.echo(f"Seconds: {seconds['train']:.0f} training, {seconds['evaluate']:.0f} evaluation ({metrics['device']})")
    typer.echo(f"Pictures and figures: {folder}/filmstrip.png, motion.gif, traversal.gif, metrics.json")


# --- studies ------------------------------------------------------------------------------------------------------


@app.command()
def study(
    name: Annotated[str | None, typer.Argument(help="Which; without it, all are listed with their settings.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="As for train.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="smoke, lecture or full.")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Separated by commas.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Cells that run at once, each on its share of the cores.")] = 1,
    backend: Annotated[str, typer.Option("--backend", help="loky (this machine), dask or ray (a cluster).")] = "loky",
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the study; default: runs/NAME.")] = None,
    assign: Assign = None,
    listed: Annotated[bool, typer.Option("--list", help="List all studies with their settings.")] = False,
    only: Annotated[str | None, typer.Option("--only", help="With all: which of data/results.")] = None,
) -> None:
    """Train and measure the cells of a study that are not done yet, and put them into one table and one figure.

    NAME "all" runs every study anew whose result is recorded in data/results, with the settings of its record: it takes
    --only, --jobs, --backend and --out.
    """
    from poflow_lite.io import require_known
    from poflow_lite.studies import STUDIES, run_study

    if listed or name is None:
        typer.echo("\n\n".join(map(_described, STUDIES.values())))
        return
    require_known("study", name, [*STUDIES, "all"])
    given = {"data": data, "budget": budget, "device": device, "seeds": None if seeds is None else _seeds(seeds)}
    given = {option: value for option, value in given.items() if value is not None} | _assignments(assign)
    if name == "all":
        if given:
            raise ValueError(f"study all takes the settings of the records, got {', '.join(given)}: name one study")
        _study_all(only, out or Path("runs/all"), jobs, backend)
        return
    if only is not None:
        raise ValueError(f"--only chooses among the records of study all, got --only {only} with the study {name}")
    folder = out or Path("runs") / name
    with interruptible("the same command goes on with the cells that are left"):
        settings = _settings(STUDIES[name], given)
        result = run_study(STUDIES[name], folder, jobs=jobs, backend=backend, **settings)
    if (folder / "table.md").exists():
        typer.echo("\n" + (folder / "table.md").read_text(encoding="utf-8"))
        typer.echo(f"Figure and numbers: {folder}/{name}.png, table.csv, {name}.json")
    _require_all(result["failed"], folder)


def _study_all(only: str | None, out: Path, jobs: int, backend: str) -> None:
    from poflow_lite.studies.records import run_again

    names = [] if only is None else only.split(",")
    with interruptible("the same command goes on with the cells that are left"):
        results = run_again(names, out, jobs=jobs, backend=backend)
    for name, result in results.items():
        typer.echo(f"{out / name}: {result['study']}, {len(result['cells'])} cells")
    _require_all([f"{name}/{cell}" for name, result in results.items() for cell in result["failed"]], out)


def _require_all(failed: Collection[str], folder: Path) -> None:
    if failed:
        raise ValueError(
            f"{len(failed)} cells failed ({', '.join(failed)}): their error.txt in {folder} says why; the same command "
            "tries them again"
        )


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--seeds takes numbers separated by commas, got {text!r}") from None


def _described(study: Study) -> str:
    """Name and question of a study, and its settings as ``--set`` takes them."""
    from poflow_lite.studies import settings_of

    first = (sys.modules[study.cells.__module__].__doc__ or "").partition("\n")[0]
    lines = [f"{study.name}: {first}"]
    for name, value in settings_of(study).items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
        lines.append("  any setting of the recipe or the model" if name == "changes" else f"  {name}={text}")
    return "\n".join(lines)


# --- data and course ----------------------------------------------------------------------------------------------


@app.command()
def download(name: Annotated[str, typer.Argument(help="mnist")]) -> None:
    """Download a data set into data/, or into the folder that POFLOW_DATA names."""
    from poflow_lite.datasets import download_mnist

    if name != "mnist":
        raise ValueError(f"unknown data set {name!r}; known: mnist (digits needs no download)")
    with interruptible("the same command starts anew"):
        typer.echo(f"MNIST is in {download_mnist()}")


@app.command()
def render(
    scene: Annotated[str, typer.Argument(help="shapes3d-lite, falcor3d-lite or isaac3d-lite.")],
    out: Annotated[Path, typer.Option("--out", help="The HDF5 file to write.")],
    size: Annotated[int, typer.Option("--size", help="Pixels along each side.")] = 64,
    device: Device = "auto",
) -> None:
    """Render all images of a scene into one file with the layout of 3dshapes.h5; an interrupted rendering goes on."""
    from poflow_lite.datasets import load_scene, render_file
    from poflow_lite.training import resolve_device

    rendered = load_scene(scene, size, resolve_device(device))
    with interruptible("the same command goes on from the last part"):
        path = render_file(rendered, out)
    typer.echo(f"{len(rendered.space):,} images of {rendered.name} are in {path}")
