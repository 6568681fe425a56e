"""A metric of your own: a function of a model, moved by an operator, and of sequences that it was not trained on."""

from poflow_lite.experiments import build_model, compare, recipe, sequences, train
from poflow_lite.metrics import equivariance_error
from poflow_lite.training import Schedule


def squared_error(model, held_out):
    """Mean over transformations of Σ_t ‖x_t - x̂_t‖², summed over pixels."""
    errors = equivariance_error(model, held_out, distance=lambda a, b: (a - b).square().flatten(2).sum(-1))
    return sum(errors.values()) / len(errors)


settings = recipe("digits", "smoke", "beta-vae")
training, test = (sequences("digits", split, settings) for split in ("train", "test"))
model = build_model("beta-vae", settings)
train(model, training, Schedule(steps=20), "runs/own-metric", overwrite=True)
print(compare({"beta-vae": model}, training, test.first(20), metrics={"squared error": squared_error}).to_string())
