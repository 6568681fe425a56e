"""Commands that train a grid of models and print a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poflow_lite.cli.options import (
    Assign,
    Budget,
    Data,
    Device,
    Jobs,
    Out,
    Seeds,
    Split,
    app,
    assignments,
    numbers,
    require_all_done,
    values_of,
)

__all__ = ["ablate", "beyond", "compare", "cost", "generalise", "tradeoff", "transport"]


@app.command()
def tradeoff(
    data: Data = "digits",
    budget: Budget = "lecture",
    kl_weights: Annotated[
        str, typer.Option("--kl-weights", help="Values of β, separated by commas.")
    ] = "0.03,0.1,0.3,1",
    seeds: Seeds = "0",
    out: Out = Path("runs/tradeoff"),
    device: Device = "auto",
) -> None:
    """Show what the KL weight trades: train one model for each β, measure all on the validation split."""
    from poflow_lite import experiments

    weights = numbers(kl_weights, "--kl-weights", float)
    result = experiments.kl_tradeoff(data, budget, weights, out, seeds=numbers(seeds, "--seeds", int), device=device)
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
    seeds: Seeds = "0",
    out: Out = Path("runs/transport"),
) -> None:
    """Learn optimal transport between clouds of points, with and without what makes it optimal (lesson 05)."""
    from poflow_lite.studies.transport_study import VARIANTS, study_transport

    chosen = list(VARIANTS) if variants is None else variants.split(",")
    result = study_transport(pairs.split(","), out, variants=chosen, seeds=numbers(seeds, "--seeds", int))
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
def compare(
    data: Data = "digits",
    models: Annotated[str, typer.Option("--models", help="Names separated by commas, or all.")] = "all",
    seeds: Seeds = "0",
    budget: Budget = "lecture",
    out: Out = Path("runs/compare"),
    jobs: Jobs = 1,
    backend: Annotated[str, typer.Option("--backend", help="loky (this machine), dask or ray (a cluster).")] = "loky",
    split: Split = "test",
    images: Annotated[int, typer.Option("--images", help="How many images are measured, at most.")] = 2000,
    vary: Annotated[
        str | None, typer.Option("--vary", help="NAME=V1,V2,…: run every model with each value of a setting.")
    ] = None,
    scores: Annotated[bool, typer.Option(help="Measure log-likelihoods and VP scores too.")] = True,
    assign: Assign = None,
    device: Device = "auto",
) -> None:
    """Train all models, move their latents with every operator, and put what is measured into one table."""
    from poflow_lite import recipes
    from poflow_lite.studies import comparison, tables

    result = comparison.compare(
        data,
        list(recipes.MODELS) if models == "all" else models.split(","),
        out,
        budget=budget,
        seeds=numbers(seeds, "--seeds", int),
        vary=None if vary is None else values_of(vary, "--vary"),
        split=split,
        images=images,
        scores=scores,
        jobs=jobs,
        backend=backend,
        device=device,
        **assignments(assign),
    )
    typer.echo("\n" + tables.write_tables(result, out))
    require_all_done(result, out)


@app.command()
def generalise(
    data: Annotated[str, typer.Option("--data", help="digits, mnist, letters or sprites.")] = "digits",
    models: Annotated[str, typer.Option("--models", help="Names separated by commas, or all.")] = "all",
    trials: Annotated[str, typer.Option("--trials", help="Names separated by commas, or all.")] = "all",
    seeds: Seeds = "0",
    budget: Budget = "lecture",
    out: Out = Path("runs/generalise"),
    jobs: Jobs = 1,
    split: Split = "test",
    images: Annotated[int, typer.Option("--images", help="Images shown in each trial, at most.")] = 120,
    assign: Assign = None,
    device: Device = "auto",
) -> None:
    """Try all models on what they were not trained on: motions, poses, classes, data sets, images hard to read."""
    from poflow_lite.studies import generalisation
    from poflow_lite.studies.trials import TRIALS

    result = generalisation.generalise(
        data,
        out,
        models=tuple(generalisation.CONTESTANTS) if models == "all" else models.split(","),
        trials=tuple(TRIALS) if trials == "all" else [name.strip() for name in trials.split(",")],
        seeds=numbers(seeds, "--seeds", int),
        budget=budget,
        split=split,
        images=images,
        jobs=jobs,
        device=device,
        **assignments(assign),
    )
    typer.echo("\n" + generalisation.write_generalisation(result, out))
    require_all_done(result, out)


@app.command()
def ablate(
    data: Data = "digits",
    groups: Annotated[
        str, typer.Option("--groups", help="hamilton-jacobi, prior, density, field, … separated by commas, or all.")
    ] = "all",
    seeds: Seeds = "0,1,2",
    budget: Budget = "lecture",
    out: Out = Path("runs/ablations"),
    jobs: Jobs = 1,
    backend: Annotated[str, typer.Option("--backend", help="loky (this machine), dask or ray (a cluster).")] = "loky",
    split: Split = "test",
    images: Annotated[int, typer.Option("--images", help="How many images are measured, at most.")] = 2000,
    assign: Assign = None,
    device: Device = "auto",
) -> None:
    """Change one part of the flow-factorized VAE at a time, and put what each is good for into one table."""
    from poflow_lite.studies import ablation_tables, ablations

    result = ablations.ablate(
        data,
        out,
        budget=budget,
        groups=None if groups == "all" else [name.strip() for name in groups.split(",")],
        seeds=numbers(seeds, "--seeds", int),
        split=split,
        images=images,
        jobs=jobs,
        backend=backend,
        device=device,
        **assignments(assign),
    )
    typer.echo("\n" + ablation_tables.write_tables(result, out))
    typer.echo(f"Figure and numbers: {out}/ablations.png, table.csv, ablations.json")
    require_all_done(result, out)


@app.command()
def cost(
    data: Data = "digits",
    axes: Annotated[
        str, typer.Option("--axes", help="latent, horizon, transformations, batch_size, pixels; or all.")
    ] = "all",
    models: Annotated[str, typer.Option("--models", help="Names separated by commas, or all.")] = "all",
    seeds: Seeds = "0",
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
    from poflow_lite import recipes
    from poflow_lite.studies import cost_study, costs

    changes = assignments(assign)
    if "steps" in changes:
        raise ValueError("cost trains for several numbers of steps: give them by --steps 125,250, not by --set")
    result = cost_study.study_costs(
        data,
        out,
        budget=budget,
        axes=list(costs.AXES) if axes == "all" else axes.split(","),
        models=list(recipes.MODELS) if models == "all" else models.split(","),
        seeds=numbers(seeds, "--seeds", int),
        steps=numbers(steps, "--steps", int),
        thresholds=numbers(thresholds, "--thresholds", float),
        memory=memory,
        jobs=jobs,
        device=device,
        **changes,
    )
    typer.echo("\n" + cost_study.cost_table(result))
    typer.echo(f"Figure and numbers: {out}/costs.png, costs.md, costs.json")
    require_all_done(result, out)


@app.command()
def beyond(
    data: Data = "digits",
    seeds: Seeds = "0",
    budget: Budget = "lecture",
    studies: Annotated[
        str, typer.Option("--studies", help="Names separated by commas.")
    ] = "supervised,sparse,matching",
    out: Out = Path("runs/beyond"),
    jobs: Jobs = 1,
    split: Split = "test",
    images: Annotated[int, typer.Option("--images", help="How many images are measured, at most.")] = 2000,
    device: Device = "auto",
) -> None:
    """Learn flows without labels (sparse), or without simulation (matching), beside the supervised one (lesson 12)."""
    from poflow_lite.studies import beyond as study

    chosen = {"budget": budget, "seeds": numbers(seeds, "--seeds", int), "studies": studies.split(",")}
    result = study.study_beyond(data, out, **chosen, jobs=jobs, split=split, images=images, device=device)
    typer.echo("\n" + study.beyond_table(result))
    require_all_done(result, out)
