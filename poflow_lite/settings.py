"""Settings: what each option may be is said in its annotation, and checked in one place, before anything is trained.

def _slow_vae(r: Recipe, …, *, rate: Positive = 6.0, transition: Weight = 0.01): …

>>> def cook(*, minutes: Count = 3, salt: Weight = 1.0): ...
>>> checked(cook, {"minutes": 5})
{'minutes': 5}
>>> checked(cook, {"minutes": 0})
Traceback (most recent call last):
ValueError: minutes must be greater than or equal to 1, got 0
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, wraps
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

__all__ = [
    "Count",
    "Flag",
    "Natural",
    "Positive",
    "Seed",
    "Share",
    "Size",
    "Split",
    "Weight",
    "checked",
    "checks_arguments",
]

Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
"""1, 2, …: how many."""
Natural = Annotated[int, Field(strict=True, ge=0, le=10**9)]
"""0, 1, …"""
Size = Annotated[int, Field(strict=True, ge=1, le=2**16)]
"""1, 2, …: of a layer or an image; an upper limit refuses what no memory holds."""
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
"""What starts a random generator."""
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
"""A positive finite number."""
Weight = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
"""A finite number of at least 0."""
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
"""A number from 0 to 1."""
Split = Literal["train", "validation", "test"]
Flag = Annotated[bool, Field(strict=True)]
"""True or False, not a word or a number."""

Owner = TypeVar("Owner", bound=Callable[..., Any])


def checked(owner: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of parameters of a function or fields of a dataclass, each as its annotation has it.

    A list, or a single value, is accepted where a tuple is asked for, and a NumPy number as a number. What has no
    annotation, or one of a class of its own, passes as it is.

    Raises:
        ValueError: for a value of another type or out of range; it names the setting, what came and what it may be.
    """
    hints = get_type_hints(owner, include_extras=True)
    return {name: _value(name, value, hints.get(name, Any)) for name, value in values.items()}


def checks_arguments(function: Owner) -> Owner:
    """Let a function check by :func:`checked`, whenever it is called, its keywords that are settings of this module."""
    keywords = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    hints = get_type_hints(function, include_extras=True)
    names = [name for name in keywords if get_origin(hints[name]) is Annotated]

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return function(*args, **options | checked(function, {n: options[n] for n in names if n in options}))

    return call


def _value(name: str, value: Any, hint: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    several = any(get_origin(option) in (tuple, Sequence) for option in (hint, *get_args(hint)))
    if several and (isinstance(value, str) or not isinstance(value, Sequence | Mapping | None)):
        value = (value,)
    adapter = _adapter(hint)
    if adapter is None:
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        wrong = error.errors()[-1]  # of alternatives such as "a number or None", the last said
        place = "".join(f"[{part!r}]" for part in wrong["loc"] if not str(part).startswith(("function", "constrained")))
        said = wrong["msg"].replace("Input should", "must").replace("dictionary", "mapping, such as beta=0.03,0.1")
        raise ValueError(f"{name}{place} {said}, got {reprlib.repr(wrong['input'])}") from None


@lru_cache(maxsize=512)
def _adapter(hint: Any) -> TypeAdapter | None:
    """What validates a hint; ``None`` for a class that pydantic does not know, such as a tensor."""
    try:
        return TypeAdapter(hint)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        return None
