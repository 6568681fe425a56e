"""Where the files of the course lie: data sets, pretrained models, recorded results. One search for all of them."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def folders(kind: str = "") -> list[Path]:
    """The folders ``data/KIND`` that exist, in the order in which they are searched.

    They are that of the working directory, of the one above (lessons run in ``notebooks/``), of the checkout that holds
    this package, and for ``kind`` "checkpoints" and "results" the copy inside an installed package. Data sets, ``kind``
    "", are never kept inside a package.
    """
    checkout = [PACKAGE.parent] if (PACKAGE.parent / "pyproject.toml").is_file() else []
    places = [Path(), Path(".."), *checkout, *([PACKAGE] if kind else [])]
    return [folder for place in places if (folder := place / "data" / kind).is_dir()]


def find(kind: str, name: str) -> Path:
    """The first file ``name`` in :func:`folders` of this kind.

    Raises:
        FileNotFoundError: if it is in none of them; the message says which were searched.
    """
    searched = folders(kind)
    path = next((path for folder in searched if (path := folder / name).is_file()), None)
    if path is None:
        where = ", ".join(map(str, searched)) or f"no folder data/{kind} in {Path.cwd()} or the package"
        raise FileNotFoundError(f"there is no {name} ({where}): run this in the course's folder, or install it again")
    return path
