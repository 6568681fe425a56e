"""A latent operator of your own: a function that fits it to latents (K, N, T+1, d) of training sequences."""

from poflow_lite.experiments import build_model, compare, recipe, sequences, train
from poflow_lite.operators import OPERATORS, AffineMaps
from poflow_lite.training import Schedule


def half_way(model, training, latents):
    """The least-squares translation, but only half of it."""
    whole = AffineMaps.translation(latents)
    return AffineMaps(whole.matrix, 0.5 * whole.offset)


settings = recipe("digits", "smoke", "beta-vae")
training, test = (sequences("digits", split, settings) for split in ("train", "test"))
model = build_model("beta-vae", settings)
train(model, training, Schedule(steps=20), "runs/own-operator", overwrite=True)
print(compare({"beta-vae": model}, training, test.first(20), operators=OPERATORS | {"half way": half_way}).to_string())
