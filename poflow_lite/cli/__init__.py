"""The command ``poflow-lite``: train and measure a model, run a study, get data, and make the course."""

from poflow_lite.cli.commands import app, main

__all__ = ["app", "main"]
