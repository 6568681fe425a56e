"""Commands on one run: train it, measure it, ship it, and get the data for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from poflow_lite.cli.options import Assign, Budget, Data, Device, Out, Seed, Split, app, assignments

__all__ = ["demo", "download", "evaluate", "render", "ship", "train"]


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
    changes |= assignments(assign)
    try:
        folder = experiments.train(model, data, budget, out, seed=seed, device=device, resume=resume, **changes)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; the same command with --resume goes on from the last checkpoint in {out}", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"Trained. Measure it with: poflow-lite evaluate {folder}")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    split: Split = "test",
    device: Device = "auto",
) -> None:
    """Measure a trained model on images it has not seen, and draw them."""
    from poflow_lite import experiments

    _report(experiments.evaluate(folder, device=device, split=split), folder)


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
