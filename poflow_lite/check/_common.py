"""What all checks share: calling a student's function kindly, and saying what a property should have been."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["CheckFailed", "attempt", "close", "passed", "require"]


class CheckFailed(AssertionError):
    """An exercise is not solved yet; the message says which property does not hold and hints at why."""


def attempt(function: Callable[..., Any], *arguments: Any, **options: Any) -> Tensor:
    """Call a student's function; a stub, an exception or no tensor becomes a :class:`CheckFailed` that says so.

    Arguments are cloned first, so that a function that changes its input in place cannot fool a later check.
    """
    name = getattr(function, "__name__", "your function")
    fresh = [argument.clone() if isinstance(argument, Tensor) else argument for argument in arguments]
    try:
        result = function(*fresh, **options)
    except NotImplementedError:
        raise CheckFailed(f"{name} is not written yet: replace the line that raises NotImplementedError") from None
    except Exception as error:
        raise CheckFailed(f"{name} stopped with {type(error).__name__}: {error}") from error
    if result is None:
        raise CheckFailed(f"{name} returned nothing: does it end with a return?")
    if not isinstance(result, Tensor):
        raise CheckFailed(f"{name} must return a tensor, not {type(result).__name__}")
    return result


def require(condition: bool | Tensor, message: str) -> None:
    """Fail with ``message`` unless ``condition`` holds."""
    if not bool(condition):
        raise CheckFailed(message)


def close(found: Any, expected: Any, message: str, tolerance: float = 1e-4) -> None:
    """Fail with ``message`` unless shapes agree and values do to a relative and absolute ``tolerance``."""
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    if found.shape != expected.shape:
        raise CheckFailed(f"expected shape {tuple(expected.shape)}, got {tuple(found.shape)}. {message}")
    if not torch.allclose(found.to(expected), expected, rtol=tolerance, atol=tolerance):
        gap = (found.to(expected) - expected).abs().max().item()
        raise CheckFailed(f"{message} (largest difference {gap:.3g})")


def passed(what: str) -> None:
    """Tell the student that a check passed."""
    print(f"✓ {what}")
