"""Experiments: recipes, training and measuring runs, pretrained models, and comparing models with each other."""

from poflow_lite.experiments.building import (
    MODELS,
    build_model,
    build_networks,
    options_of,
    recipe,
    register_model,
)
from poflow_lite.experiments.comparison import COMPARED, compare, measure_operators, validation_errors
from poflow_lite.experiments.pretrained import export, load_pretrained
from poflow_lite.experiments.recipes import BUDGETS, Recipe, sequences
from poflow_lite.experiments.runs import Run, evaluate, evaluate_run, load_run, save_pictures, train, train_recipe

__all__ = [
    "BUDGETS",
    "COMPARED",
    "MODELS",
    "Recipe",
    "Run",
    "build_model",
    "build_networks",
    "compare",
    "evaluate",
    "evaluate_run",
    "export",
    "load_pretrained",
    "load_run",
    "measure_operators",
    "options_of",
    "recipe",
    "register_model",
    "save_pictures",
    "sequences",
    "train",
    "train_recipe",
    "validation_errors",
]
