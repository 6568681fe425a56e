"""What holds for the exercises of every lesson: the solution passes, and what is not an answer fails with a hint."""

import pytest
from lesson_helpers import solution, stub

from poflow_lite import check

LESSONS = {
    "00-start-here": check.lesson00,
    "01-variational-autoencoders": check.lesson01,
    "02-disentanglement": check.lesson02,
    "03-equivariance": check.lesson03,
    "04-time-evolving-densities": check.lesson04,
    "05-optimal-transport": check.lesson05,
    "06-poflow": check.lesson06,
    "07-flow-factorized-vae": check.lesson07,
    "08-knowing-k-less": check.lesson08,
    "09-experiments": check.lesson09,
    "10-composing-and-generalising": check.lesson10,
    "11-ablations-and-cost": check.lesson11,
    "12-beyond": check.lesson12,
}
EXERCISES = [(notebook, name) for notebook, module in LESSONS.items() for name in module.__all__]
every_exercise = pytest.mark.parametrize(("notebook", "name"), EXERCISES)


def fails(notebook, name, answer, hint):
    with pytest.raises(check.CheckFailed, match=hint):
        getattr(LESSONS[notebook], name)(answer)


@every_exercise
def test_solution_passes(notebook, name, capsys):
    getattr(LESSONS[notebook], name)(solution(notebook, name))
    assert capsys.readouterr().out.startswith(f"✓ {name}")


@every_exercise
def test_stub_fails(notebook, name):
    fails(notebook, name, stub(notebook, name), "not written yet")


@every_exercise
def test_function_that_returns_nothing_fails(notebook, name):
    fails(notebook, name, lambda *arguments, **options: None, "returned nothing")


@every_exercise
def test_function_that_returns_no_tensor_fails(notebook, name):
    fails(notebook, name, lambda *arguments, **options: 1.0, "must return a tensor, not float")


@every_exercise
def test_exception_is_reported(notebook, name):
    def broken(*arguments, **options):
        raise IndexError("no such axis")

    fails(notebook, name, broken, "IndexError: no such axis")
