"""What surrounds the package: workflows and hooks name what exists, and the lock fits what is asked for."""

import json
import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from typer.main import get_command

from poflow_lite import cli

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
LOCKS = sorted((ROOT / "docs").glob("*/package-lock.json"))


@pytest.mark.parametrize("path", [*WORKFLOWS, ROOT / ".pre-commit-config.yaml"], ids=lambda path: path.stem)
def test_what_is_run_elsewhere_exists_here(path):
    text = path.read_text(encoding="utf-8")
    assert yaml.safe_load(text)
    for line in re.findall(r"poflow-lite ([^\n]*)", text):
        command = get_command(cli.app)
        for word in line.split():
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, line
            command = command.commands[word]
    for name in re.findall(r"(?:tests/|docs/)[\w/.]+", text):
        assert (ROOT / name).exists(), name


def test_the_lock_holds_everything_that_is_asked_for_in_a_version_that_is_allowed():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = {name.lower().replace("_", "-"): version for name, version in (x.split("==") for x in lines if "==" in x)}
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = asked["optional-dependencies"]
    wanted = [*asked["dependencies"], *extras["notebooks"], *extras["test"]]
    for one in (Requirement(text) for text in wanted if not text.startswith("poflow-lite")):
        assert one.specifier.contains(locked[one.name.lower().replace("_", "-")]), one
    assert not [line for line in lines if "://" in line]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.parent.name)
def test_locks_of_npm_name_no_address_and_pin_what_is_asked(path):
    packages = json.loads(path.read_text(encoding="utf-8"))["packages"]
    asked = json.loads((path.parent / "package.json").read_text(encoding="utf-8"))
    for name, version in {**asked["dependencies"], **asked.get("devDependencies", {})}.items():
        assert packages[f"node_modules/{name}"]["version"] == version
    assert not [name for name, package in packages.items() if "resolved" in package]
