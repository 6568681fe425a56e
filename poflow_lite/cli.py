"""The command ``poflow-lite``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Flow-factorized representation learning: train, measure and look.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option("--out", help="Folder of the run.")]
Seed = Annotated[int, typer.Option("--seed", help="Decides weights and every draw.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Budget = Annotated[str, typer.Option("--budget", help="smoke (seconds), lecture (minutes) or full (hours, or a GPU).")]
Data = Annotated[str, typer.Option("--data", help="digits, mnist, shapes3d, falcor3d, isaac3d; with -lite: rendered.")]
Assign = Annotated[
    list[str] | None,
    typer.Option("--set", help="NAME=VALUE, a setting of the recipe or of the model; may be repeated."),
]


@app.command()
def demo(out: Out = Path("runs/demo"), seed: Seed = 0, device: Device = "auto", budget: Budget = "lecture") -> None:
    """Train a flow-factorized VAE on bundled handwritten digits, measure it on held-out ones, draw what it learned."""
    from poflow_lite import experiments

    experiments.train("flow-factorized", "digits", budget, out, seed=seed, device=device, overwrite=True)
    _report(experiments.evaluate(out, device=device), out)


@app.command()
def train(
    model: Annotated[str, typer.Option("--model", help="vae, poflow, flow-factorized, …")] = "flow-factorized",
    data: Data = "digits",
    budget: Budget = "lecture",
    seed: Seed = 0,
    out: Out = Path("runs/train"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    device: Device = "auto",
    start: Annotated[str, typer.Option("--start", help="Start pose: fixed (the paper's) or random.")] = "fixed",
    kl_weight: Annotated[float | None, typer.Option("--kl-weight", help="β; default: the recipe's.")] = None,
    likelihood: Annotated[
        str, typer.Option("--likelihood", help="bernoulli, continuous-bernoulli or gaussian.")
    ] = "bernoulli",
    precision: Annotated[str, typer.Option("--precision", help="float32, or bfloat16 for the networks.")] = "float32",
    assign: Assign = None,
) -> None:
    """Train a model into a folder."""
    from poflow_lite import experiments

    changes: dict[str, Any] = {"start": start, "likelihood": likelihood, "precision": precision}
    changes |= {} if kl_weight is None else {"beta": kl_weight}
    changes |= _assignments(assign)
    try:
        folder = experiments.train(model, data, budget, out, seed=seed, device=device, resume=resume, **changes)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; the same command with --resume goes on from the last checkpoint in {out}", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"Trained. Measure it with: poflow-lite evaluate {folder}")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    split: Annotated[str, typer.Option("--split", help="test, or validation when choosing settings.")] = "test",
    device: Device = "auto",
) -> None:
    """Measure a trained model on images it has not seen, and draw them."""
    from poflow_lite import experiments

    _report(experiments.evaluate(folder, device=device, split=split), folder)


@app.command()
def tradeoff(
    data: Data = "digits",
    budget: Budget = "lecture",
    kl_weights: Annotated[
        str, typer.Option("--kl-weights", help="Values of β, separated by commas.")
    ] = "0.03,0.1,0.3,1",
    seeds: Annotated[str, typer.Option("--seeds", help="Separated by commas.")] = "0",
    out: Out = Path("runs/tradeoff"),
    device: Device = "auto",
) -> None:
    """Show what the KL weight trades: train one model for each β, measure all on the validation split."""
    from poflow_lite import experiments

    weights = _numbers(kl_weights, "--kl-weights", float)
    result = experiments.kl_tradeoff(data, budget, weights, out, seeds=_numbers(seeds, "--seeds", int), device=device)
    typer.echo(f"\n{result['data_set']}, budget {budget}: equivariance error ÷ no motion, nats per frame")
    typer.echo(
        "      β  seed" + "".join(f"{name:>16}" for name in ("scale", "rotate", "hue", "prediction", "reconstruction"))
    )
    for cell in result["cells"]:
        ratios = "".join(f"{value:>16.3f}" for value in cell["ratio_to_no_motion"].values())
        likelihoods = "".join(f"{cell['log_likelihood'][name]:>16.1f}" for name in ("prediction", "reconstruction"))
        typer.echo(f"{cell['kl_weight']:>7g}{cell['seed']:>6}{ratios}{likelihoods}")
    typer.echo(f"Figure and numbers: {out}/tradeoff.png, tradeoff.json")


@app.command()
def transport(
    pairs: Annotated[str, typer.Option("--pairs", help="gaussians, moons, or both.")] = "gaussians,moons",
    variants: Annotated[
        str | None, typer.Option("--variants", help="Names separated by commas; default: all five.")
    ] = None,
    seeds: Annotated[str, typer.Option("--seeds", help="Separated by commas.")] = "0",
    out: Out = Path("runs/transport"),
) -> None:
    """Learn optimal transport between clouds of points, with and without what makes it optimal (lesson 05)."""
    from poflow_lite.transport_study import VARIANTS, study_transport

    chosen = list(VARIANTS) if variants is None else variants.split(",")
    result = study_transport(pairs.split(","), out, variants=chosen, seeds=_numbers(seeds, "--seeds", int))
    columns = {
        "OT gap": "ot_gap",
        "energy/W₂²": "energy_ratio",
        "straightness": "straightness",
        "end error": "endpoint_error",
        "(sampling)": "sampling_error",
        "eigenvalue": "smallest_eigenvalue",
    }
    typer.echo(f"\n{'pair':<10}{'variant':<23}{'seed':>4}" + "".join(f"{heading:>13}" for heading in columns))
    for cell in result["cells"]:
        figures = "".join(f"{cell[name]:>13.3f}" for name in columns.values())
        typer.echo(f"{cell['pair']:<10}{cell['variant']:<23}{cell['seed']:>4}{figures}")
    typer.echo(f"Pictures and figures: {', '.join(f'{out}/{pair}.png' for pair in pairs.split(','))}, transport.json")


@app.command()
def beyond(
    data: Data = "digits",
    seeds: Annotated[str, typer.Option("--seeds", help="Separated by commas.")] = "0",
    budget: Budget = "lecture",
    studies: Annotated[
        str, typer.Option("--studies", help="Names separated by commas.")
    ] = "supervised,sparse,matching",
    out: Out = Path("runs/beyond"),
    jobs: Annotated[int, typer.Option("--jobs", help="Cells that run at once, each on its share of the cores.")] = 1,
    split: Annotated[str, typer.Option("--split", help="test, or validation when choosing settings.")] = "test",
    images: Annotated[int, typer.Option("--images", help="How many images are measured, at most.")] = 2000,
    device: Device = "auto",
) -> None:
    """Learn flows without labels (sparse), or without simulation (matching), beside the supervised one (lesson 12)."""
    from poflow_lite import beyond as study

    chosen = {"budget": budget, "seeds": _numbers(seeds, "--seeds", int), "studies": studies.split(",")}
    result = study.study_beyond(data, out, **chosen, jobs=jobs, split=split, images=images, device=device)
    typer.echo("\n" + study.beyond_table(result))
    _require_all_done(result, out)


@app.command()
def compare(
    data: Data = "digits",
    models: Annotated[str, typer.Option("--models", help="Names separated by commas, or all.")] = "all",
    seeds: Annotated[str, typer.Option("--seeds", help="Separated by commas.")] = "0",
    budget: Budget = "lecture",
    out: Out = Path("runs/compare"),
    jobs: Annotated[int, typer.Option("--jobs", help="Cells that run at once, each on its share of the cores.")] = 1,
    backend: Annotated[str, typer.Option("--backend", help="loky (this machine), dask or ray (a cluster).")] = "loky",
    split: Annotated[str, typer.Option("--split", help="test, or validation when choosing settings.")] = "test",
    images: Annotated[int, typer.Option("--images", help="How many images are measured, at most.")] = 2000,
    vary: Annotated[
        str | None, typer.Option("--vary", help="NAME=V1,V2,…: run every model with each value of a setting.")
    ] = None,
    scores: Annotated[bool, typer.Option(help="Measure log-likelihoods and VP scores too.")] = True,
    assign: Assign = None,
    device: Device = "auto",
) -> None:
    """Train all models, move their latents with every operator, and put what is measured into one table."""
    from poflow_lite import comparison, recipes, tables

    result = comparison.compare(
        data,
        list(recipes.MODELS) if models == "all" else models.split(","),
        out,
        budget=budget,
        seeds=_numbers(seeds, "--seeds", int),
        vary=None if vary is None else _values(vary, "--vary"),
        split=split,
        images=images,
        scores=scores,
        jobs=jobs,
        backend=backend,
        device=device,
        **_assignments(assign),
    )
    typer.echo("\n" + tables.write_tables(result, out))
    _require_all_done(result, out)


@app.command()
def ablate(
    data: Data = "digits",
    groups: Annotated[
        str, typer.Option("--groups", help="hamilton-jacobi, prior, density, field, … separated by commas, or all.")
    ] = "all",
    seeds: Annotated[str, typer.Option("--seeds", help="Separated by commas.")] = "0,1,2",
    budget: Budget = "lecture",
    out: Out = Path("runs/ablations"),
    jobs: Annotated[int, typer.Option("--jobs", help="Cells that run at once, each on its share of the cores.")] = 1,
    backend: Annotated[str, typer.Option("--backend", help="loky (this machine), dask or ray (a cluster).")] = "loky",
    split: Annotated[str, typer.Option("--split", help="test, or validation when choosing settings.")] = "test",
    images: Annotated[int, typer.Option("--images", help="How many images are measured, at most.")] = 2000,
    assign: Assign = None,
    device: Device = "auto",
) -> None:
    """Change one part of the flow-factorized VAE at a time, and put what each is good for into one table."""
    from poflow_lite import ablation_tables, ablations

    result = ablations.ablate(
        data,
        out,
        budget=budget,
        groups=None if groups == "all" else [name.strip() for name in groups.split(",")],
        seeds=_numbers(seeds, "--seeds", int),
        split=split,
        images=images,
        jobs=jobs,
        backend=backend,
        device=device,
        **_assignments(assign),
    )
    typer.echo("\n" + ablation_tables.write_tables(result, out))
    typer.echo(f"Figure and numbers: {out}/ablations.png, table.csv, ablations.json")
    _require_all_done(result, out)


@app.command()
def cost(
    data: Data = "digits",
    axes: Annotated[
        str, typer.Option("--axes", help="latent, horizon, transformations, batch_size, pixels; or all.")
    ] = "all",
    models: Annotated[str, typer.Option("--models", help="Names separated by commas, or all.")] = "all",
    seeds: Annotated[str, typer.Option("--seeds", help="Separated by commas.")] = "0",
    steps: Annotated[
        str, typer.Option("--steps", help="Numbers of steps to train for, separated by commas.")
    ] = "125,250,500,1000,2000",
    thresholds: Annotated[
        str, typer.Option("--thresholds", help="Shares of the error of no motion, separated by commas.")
    ] = "0.5,0.35,0.25",
    budget: Budget = "lecture",
    out: Out = Path("runs/cost"),
    jobs: Annotated[int, typer.Option("--jobs", help="Cells that run at once; times are measured alone.")] = 1,
    memory: Annotated[bool, typer.Option(help="Measure memory too: some seconds for each model and value.")] = True,
    assign: Assign = None,
    device: Device = "auto",
) -> None:
    """Measure time and memory of a training step against each size, and how long training takes to reach an error."""
    from poflow_lite import cost_study, costs, recipes

    changes = _assignments(assign)
    if "steps" in changes:
        raise ValueError("cost trains for several numbers of steps: give them by --steps 125,250, not by --set")
    result = cost_study.study_costs(
        data,
        out,
        budget=budget,
        axes=list(costs.AXES) if axes == "all" else axes.split(","),
        models=list(recipes.MODELS) if models == "all" else models.split(","),
        seeds=_numbers(seeds, "--seeds", int),
        steps=_numbers(steps, "--steps", int),
        thresholds=_numbers(thresholds, "--thresholds", float),
        memory=memory,
        jobs=jobs,
        device=device,
        **changes,
    )
    typer.echo("\n" + cost_study.cost_table(result))
    typer.echo(f"Figure and numbers: {out}/costs.png, costs.md, costs.json")
    if result["failed"]:
        raise ValueError(
            f"{len(result['failed'])} cells failed ({', '.join(result['failed'])}): their error.txt in {out} says why; "
            "the same command tries them again"
        )


def _require_all_done(result: dict[str, Any], out: Path) -> None:
    """Raise a ValueError that names the cells of a grid that failed, once what is done has been shown."""
    if result["failed"]:
        raise ValueError(
            f"{len(result['failed'])} cells failed ({', '.join(result['failed'])}): their error.txt in {out} says why; "
            "the same command tries them again"
        )


@app.command()
def generalise(
    data: Annotated[str, typer.Option("--data", help="digits, mnist, letters or sprites.")] = "digits",
    models: Annotated[str, typer.Option("--models", help="Names separated by commas, or all.")] = "all",
    trials: Annotated[str, typer.Option("--trials", help="Names separated by commas, or all.")] = "all",
    seeds: Annotated[str, typer.Option("--seeds", help="Separated by commas.")] = "0",
    budget: Budget = "lecture",
    out: Out = Path("runs/generalise"),
    jobs: Annotated[int, typer.Option("--jobs", help="Cells that run at once, each on its share of the cores.")] = 1,
    split: Annotated[str, typer.Option("--split", help="test, or validation when choosing settings.")] = "test",
    images: Annotated[int, typer.Option("--images", help="Images shown in each trial, at most.")] = 180,
    assign: Assign = None,
    device: Device = "auto",
) -> None:
    """Try all models on what they were not trained on: motions, poses, classes, data sets, images hard to read."""
    from poflow_lite import generalisation
    from poflow_lite.trials import TRIALS

    result = generalisation.generalise(
        data,
        out,
        models=generalisation.COMPARED if models == "all" else models.split(","),
        trials=tuple(TRIALS) if trials == "all" else [name.strip() for name in trials.split(",")],
        seeds=_numbers(seeds, "--seeds", int),
        budget=budget,
        split=split,
        images=images,
        jobs=jobs,
        device=device,
        **_assignments(assign),
    )
    typer.echo("\n" + generalisation.write_generalisation(result, out))
    _require_no_failures(result, out)


def _values(text: str, option: str) -> tuple[str, list[Any]]:
    """NAME=V1,V2,… as the name and its values: numbers where they read as numbers, words otherwise."""
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise ValueError(f"{option} takes NAME=VALUE, got {text!r}")

    def read(value: str) -> Any:
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
        return value

    return name.strip().replace("-", "_"), [read(value.strip()) for value in values.split(",")]


def _assignments(texts: list[str] | None) -> dict[str, Any]:
    """Settings given by ``--set NAME=VALUE``; several values separated by commas are a tuple."""
    pairs = [_values(text, "--set") for text in texts or []]
    return {name: values[0] if len(values) == 1 else tuple(values) for name, values in pairs}


def _numbers(text: str, option: str, kind: Callable[[str], float]) -> list:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} takes numbers separated by commas, got {text!r}") from None


@app.command()
def download(name: Annotated[str, typer.Argument(help="mnist")]) -> None:
    """Download a data set into data/, or into the folder that POFLOW_DATA names."""
    from poflow_lite.datasets import download_mnist

    if name != "mnist":
        raise ValueError(f"unknown data set {name!r}; known: mnist (digits needs no download)")
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
    try:
        path = render_file(rendered, out)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on from the last part", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{len(rendered.space):,} images of {rendered.name} are in {path}")


@app.command()
def ship(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    name: Annotated[str, typer.Argument(help="Name of the copy.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the course's checkpoints.")] = Path("data/checkpoints"),
) -> None:
    """Copy a finished run's model, in half precision, to the checkpoints that come with the course."""
    from poflow_lite import shipped

    path = shipped.ship(run, name, out)
    typer.echo(f"{path}: {path.stat().st_size / 2**20:.1f} MB")


@app.command()
def student(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    notebooks: Annotated[Path, typer.Option("--notebooks", help="Folder of the lessons.")] = Path("notebooks"),
) -> None:
    """Write the lessons without solutions and outputs, for students."""
    from poflow_lite import lessons

    for path in lessons.find_lessons(notebooks):
        typer.echo(lessons.student_version(path, out))


@app.command()
def execute(
    paths: Annotated[list[Path] | None, typer.Argument(help="Lessons; all of notebooks/ by default.")] = None,
) -> None:
    """Run lessons in a fresh kernel and save their outputs: this, and nothing else, makes what is committed."""
    from poflow_lite import lessons

    for path in paths or lessons.find_lessons():
        seconds = lessons.execute(path)
        problems = lessons.lint(path)
        typer.echo(f"{path.name}: {seconds:.0f} s, " + ("no problems" if not problems else f"{len(problems)} problems"))
        for problem in problems:
            typer.echo(f"  {problem}")


def _require_no_failures(result: dict[str, Any], out: Path) -> None:
    if result["failed"]:
        raise ValueError(
            f"{len(result['failed'])} cells failed ({', '.join(result['failed'])}): their error.txt in {out} says why; "
            "the same command tries them again"
        )


def _report(metrics: dict[str, Any], folder: Path) -> None:
    """Print ``metrics.json`` as a table."""
    model = "flow" if metrics["model"] == "flow-factorized" else metrics["model"]
    columns = {
        model: "equivariance_error",
        "no motion": "no_motion",
        "median frame": "median_frame",
        "reconstruction floor": "reconstruction_floor",
    }
    typer.echo(f"\n{metrics['model']}, budget {metrics['budget']}, seed {metrics['seed']}, {metrics['data_set']}")
    widths = {heading: max(10, len(heading) + 2) for heading in [*columns, f"{model} ÷ no motion"]}
    typer.echo("L1 over all frames  " + "".join(f"{heading:>{width}}" for heading, width in widths.items()))
    for name, ratio in metrics["ratio_to_no_motion"].items():
        errors = "".join(f"{metrics[key][name]:>{widths[heading]}.0f}" for heading, key in columns.items())
        typer.echo(f"  {name:<18}{errors}{ratio:>{widths[f'{model} ÷ no motion']}.2f}")
    likelihood = metrics["log_likelihood"]
    typer.echo("Log-likelihood (nats per frame, N(x̂, I))")
    for name in ("prediction", "reconstruction"):
        error = likelihood["standard_error"][name]
        typer.echo(f"  {name:<38}{likelihood[name]:>10.1f} ± {error:.1f}   (ceiling {likelihood['ceiling']:.1f})")
    if metrics.get("smallest_eigenvalue", 1.0) <= 0:
        typer.echo(
            f"warning: the flow is not invertible everywhere (smallest eigenvalue of I + ∇²u is "
            f"{metrics['smallest_eigenvalue']:.2f}): its log-likelihood for prediction is not exact. Train longer, or "
            "raise the weight of the Hamilton-Jacobi penalty"
        )
    seconds = metrics["seconds"]
    typer.echo(f"Seconds: {seconds['train']:.0f} training, {seconds['evaluate']:.0f} evaluation ({metrics['device']})")
    typer.echo(f"Pictures and figures: {folder}/filmstrip.png, motion.gif, traversal.gif, metrics.json")


def main() -> None:
    """Run the command; a user's mistake is one line on standard error, never a traceback."""
    try:
        app()
    except (ValueError, OSError, FloatingPointError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
