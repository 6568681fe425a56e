"""What is recorded beside every figure."""

import sys
from importlib.metadata import PackageNotFoundError

from poflow_lite import provenance


def test_the_command_is_what_a_shell_would_read(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/poflow-lite", "generalise", "--trials", "two at once,noise"])
    assert provenance.command() == "poflow-lite generalise --trials 'two at once,noise'"


def test_a_package_that_is_missing_is_named_and_stops_nothing(monkeypatch):
    def version(name):
        if name == "POT":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(provenance, "version", version)
    found = provenance.versions()
    assert found["POT"] == "not installed"
    assert found["torch"] == "1.0"
