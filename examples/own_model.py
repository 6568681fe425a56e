"""A model of your own: a subclass of the VAE, or anything with its methods, by its name in the tables."""

from poflow_lite.experiments import build_networks, compare, load_run, register_model, sequences, train_recipe
from poflow_lite.models import VAE


class SphereVAE(VAE):
    """A VAE whose posterior means shall lie on the sphere of radius √d, where most draws of the prior lie."""

    def terms(self, batch, generator=None):
        terms = super().terms(batch, generator)
        mean = self.encode(batch.frames.flatten(0, 1)).mean
        terms.penalties["sphere"] = 0.1 * (mean.norm(dim=1) - mean.shape[1] ** 0.5).square()
        return terms


register_model("sphere-vae", lambda r, shape, K: SphereVAE(*build_networks(r, shape), r.likelihood, r.beta))
run = load_run(train_recipe("sphere-vae", "digits", "smoke", "runs/own-model", steps=20, overwrite=True))
training, test = (sequences("digits", split, run.settings) for split in ("train", "test"))
print(compare({"sphere-vae": run.model}, training, test.first(20)).to_string())
