"""Records: the results that are kept in ``data/results``, their pages, and how all of them are run anew."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from poflow_lite.datasets.places import folders
from poflow_lite.io import prepare_folder, require_known, write_atomically
from poflow_lite.settings import checked
from poflow_lite.studies import STUDIES
from poflow_lite.studies.study import Study, page, run_study

ABOUT = {
    "digits-ablations": "The flow-factorized VAE with one part taken out or changed at a time, over three seeds.",
    "digits-ablations-sizes": "The flow-factorized VAE with another size or weight at a time: one seed, so a look at "
    "trends and no proof.",
    "digits-cost": "Time and memory of a training step against each size, and training until an error is reached, with "
    "the weights that were chosen on mnist-10k.",
    "digits-generalisation": "Models of single motions, on motions, starts and images that they never saw, with the "
    'weights that were chosen on mnist-10k. Rows "random starts …" are of models that were trained on random starts, '
    "all others on fixed ones.",
    "digits-generalisation-trainings": "Five of the models, trained on fewer images, without some classes, or on other "
    "data, with the networks and steps of digits and the weights of mnist-10k. PoFlow, the best rival as trained, is "
    "not among them.",
    "mnist-10k-comparison": "Every model with every latent operator under the same metrics. β and, but for two VAEs, "
    "one weight of each model were chosen on validation images after 800 steps (mnist-10k-tuning); other weights were "
    "not varied; learning rate and networks are shared. free-flow differs from flow-factorized in five settings, "
    "listed at the end; which of them matters is not told apart. Its free field was thought of after earlier "
    "comparisons on these same test images; mnist-comparison has 1,000 others beside them.",
    "mnist-10k-labels": "A model that is told k of few sequences: 0, 1, 10 or 100 % of the labels. The term that keeps "
    "every k in use is off here, and without labels four seeds of five merge two k; mnist-10k-use shows what it does. "
    "Typed when autoencoding was 0.05 by default: today add `--set autoencoding=0.05`.",
    "mnist-10k-use": "A model that is told no k, by the weight of the term that keeps every k in use (balance). "
    "Without it four seeds of five merge two k (mnist-10k-labels, labelled = 0). "
    "Typed when autoencoding was 0.05 by default: today add `--set autoencoding=0.05`.",
    "mnist-10k-tuning": "Every model over the same values of β and over those of one weight of its own, on validation "
    "images. β was varied with 4 capsules (topographic-vae) and autoencoding 0.05 (weakly-supervised), not with what "
    "was chosen later.",
    "mnist-comparison": "Five of the models on the full MNIST, with the weights that were chosen on mnist-10k. "
    "Measured are the first 2,000 of its test images; the first 1,000 are those of mnist-10k.",
    "shapes3d-lite-comparison": "Five of the models on rendered scenes, with the weights that were chosen on "
    "mnist-10k and half of the steps of the budget.",
}
"""What a record shows where its study's first line says too little, and under which reservations."""


def load_records(folder: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """The results of studies in a folder, name ↦ content; by default those that come with the course.

    Raises:
        FileNotFoundError: if there are none.
    """
    searched = [Path(folder)] if folder else folders("results")
    for place in searched:
        contents = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(place.glob("*.json"))}
        if found := {name: content for name, content in contents.items() if content.get("study") in STUDIES}:
            return found
    raise FileNotFoundError(f"there is no record of a study in {', '.join(map(str, searched)) or 'data/results'}")


def run_again(names: Iterable[str], out: str | Path, **how: Any) -> dict[str, dict[str, Any]]:
    """Run recorded studies anew with the settings of their records, each into its own folder of ``out``.

    Args:
        names: of :func:`load_records`; all of them if there are none.
        out: folder; the same call goes on where an interrupted one stopped.
        how: "jobs", "backend" and "progress" of :func:`run_study`.

    Returns:
        Name ↦ the new result.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    known, found = load_records(), {}
    for name in (names := tuple(names) or tuple(known)):
        require_known("record", name, known)
    for name in names:
        study = STUDIES[known[name]["study"]]
        settings = checked(study.cells, known[name]["settings"])
        found[name] = run_study(study, Path(out) / name, **how, **settings)
    return found


def publish(out: str | Path, folder: str | Path | None = None) -> list[Path]:
    """Write a page and a figure for every record, and ``README.md``, which lists them; give the pages."""
    place, records = prepare_folder(out), load_records(folder)
    texts = {name: described(name, result) for name, result in records.items()}
    texts["README"] = contents(records)
    for name, text in texts.items():
        write_atomically(place / f"{name}.md", lambda path, text=text: path.write_text(text, encoding="utf-8"))
    for name, result in records.items():
        figure = STUDIES[result["study"]].figure(result)
        write_atomically(place / f"{name}.png", lambda path, figure=figure: figure.savefig(path, dpi=150, format="png"))
    return [place / f"{name}.md" for name in texts]


def described(name: str, result: dict[str, Any]) -> str:
    """The page of a record."""
    study = STUDIES[result["study"]]
    figure = f"![What the table below holds, drawn.]({name}.png)"
    again = f"Anew: `poflow-lite study all --only {name}`. Numbers: [{name}.json](../../data/results/{name}.json)."
    return f"# {name}\n\n{shown(name, study)}\n\n{figure}\n\n{page(study, result)}\n{again}\n"


def contents(records: dict[str, dict[str, Any]]) -> str:
    """The list of all pages."""
    texts = {name: shown(name, STUDIES[each["study"]]) for name, each in records.items()}
    firsts = {name: text.partition(". ")[0].rstrip(".") for name, text in texts.items()}
    settings = {name: told_apart(each["settings"]) for name, each in records.items()}
    lines = [f"| [{name}]({name}.md) | {first}. | {settings[name]} |" for name, first in firsts.items()]
    return "\n".join(
        [
            "# Recorded results",
            "",
            "Made from [data/results](../../data/results) by `poflow-lite course results`.",
            "",
            "| record | what it holds | settings |",
            "| --- | --- | --- |",
            *lines,
            "",
        ]
    )


def told_apart(settings: Mapping[str, Any]) -> str:
    """What tells a record from others of its study: data, what is compared and varied, seeds, each where given.

    >>> told_apart({"data": "digits", "models": ["vae"], "seeds": [0, 1], "vary": {"beta": [0.1, 1]}})
    'digits; vae; beta 0.1, 1; seeds 0, 1'
    """
    lists = {name: settings[name] for name in ("models", "groups", "tasks", "pairs") if settings.get(name)}
    data = settings.get("data", ())
    said = [", ".join([data] if isinstance(data, str) else data)] if data else []
    said += [", ".join(values) if len(values) <= 8 else f"{len(values)} {name}" for name, values in lists.items()]
    further = {**(settings.get("vary") or {}), "seeds": settings.get("seeds", ())}
    said += [f"{name} {', '.join(map(str, values))}" for name, values in further.items() if values]
    return "; ".join(said)


def shown(name: str, study: Study) -> str:
    """What a record shows: by :data:`ABOUT`, or by its study's first line."""
    if name in ABOUT:
        return ABOUT[name]
    said = (sys.modules[study.cells.__module__].__doc__ or "").partition("\n")[0].partition(": ")[2]
    return said[:1].upper() + said[1:]
