"""How an exercise is checked: claims about the student's function, tested one after the other, each with a hint."""

import functools
import traceback
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Tensor]
Claims = Generator[tuple[Any, ...], None, str]


class CheckFailed(AssertionError):
    """An exercise is not solved yet; the message is a hint. A notebook shows it as one line, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback; the cell counts as failed all the same."""
        return [f"✗ {self}"]


class Exercise:
    """The check of one exercise, made from a generator of claims; call it with the student's function.

    The generator takes the function ``f``, guarded so that a stub, an exception, or a result that is no tensor fails
    with a line of its own. It yields claims in the order in which they are tested:

    - ``(condition, hint)``: a property that must hold;
    - ``(found, shape, hint)``: found must have that shape, a tuple;
    - ``(found, expected, hint)``: same shape, and values to 1e-4, relative or absolute. A fourth entry replaces 1e-4.

    What it returns completes the line "✓ name …" that a student sees at the end.

    Raises:
        CheckFailed: at the first claim that does not hold, with its hint.
    """

    def __init__(self, claims: Callable[[Function], Claims]) -> None:
        functools.update_wrapper(self, claims)
        self.name, self.claims = claims.__name__, claims

    def __call__(self, function: Function) -> None:
        """Check ``function`` and print a line if it passes."""
        claims = self.claims(lambda *arguments, **options: _guarded(function, self.name, arguments, options))
        try:
            while True:
                _settle(*next(claims))
        except StopIteration as end:
            print(f"✓ {self.name} {end.value}")
        except CheckFailed:
            raise
        except Exception as error:
            raise CheckFailed(f"{self.name} gave what cannot be checked ({error}): is its shape right?") from error


def _guarded(function: Function, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
    """``function(*arguments)``, a tensor; arguments are cloned, so that changing them in place fools no later claim."""
    try:
        result = function(*(a.clone() if isinstance(a, Tensor) else a for a in arguments), **options)
    except NotImplementedError:
        raise CheckFailed(f"{name} is not written yet: replace the line that raises NotImplementedError") from None
    except Exception as error:
        file = getattr(getattr(function, "__code__", None), "co_filename", None)
        lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        where = f" at `{lines[-1]}`" if lines and lines[-1] else ""
        raise CheckFailed(f"{name} stopped with {type(error).__name__}: {error}{where}") from error
    if result is None:
        raise CheckFailed(f"{name} returned nothing: does it end with a return?")
    if not isinstance(result, Tensor):
        raise CheckFailed(f"{name} must return a tensor, not {type(result).__name__}")
    return result


def _settle(found: Any, expected: Any, hint: str | None = None, tolerance: float = 1e-4) -> None:
    """Raise CheckFailed unless a claim holds; of two entries the second is the hint."""
    if hint is None:
        if not bool(found):
            raise CheckFailed(" ".join(expected.split()))
        return
    hint, found = " ".join(hint.split()), torch.as_tensor(found)
    wanted = torch.empty(expected) if isinstance(expected, tuple) else torch.as_tensor(expected)
    if found.shape != wanted.shape:
        raise CheckFailed(f"expected shape {tuple(wanted.shape)}, got {tuple(found.shape)}. {hint}")
    if not isinstance(expected, tuple):
        found = found.to(wanted)
        if not torch.allclose(found, wanted, rtol=tolerance, atol=tolerance):
            raise CheckFailed(f"{hint} (largest difference {(found - wanted).abs().max():.3g})")


# --- numbers to check with, in double precision ---------------------------------------------------------------------


def doubles(*values: Any) -> Tensor:
    """A tensor of the numbers, or of the rows of numbers, that are given."""
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers of a shape, the same whenever they are drawn."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    """Numbers between 0 and 1 of a shape, neither 0 nor 1 among them, the same whenever they are drawn."""
    drawn = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return drawn.clamp(1e-12, 1 - 1e-12)


def one_by_one(f: Function, *batches: Tensor) -> Tensor:
    """What f returns for each sample alone, joined again: equal to f of the batch if samples do not mix."""
    return torch.cat([f(*(batch[i : i + 1] for batch in batches)) for i in range(len(batches[0]))])
