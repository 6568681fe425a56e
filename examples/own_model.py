"""A model of your own: a subclass of the VAE, or anything with its methods, by its name in the tables."""

from poflow_lite.experiments import compare, load_run, register_model, sequences, train_recipe
from poflow_lite.models import VAE
from poflow_lite.networks import ConvDecoder, ConvEncoder


class SparseVAE(VAE):
    """A VAE that pays for the L1 norm of its posterior means as well."""

    def terms(self, batch, generator=None):
        terms = super().terms(batch, generator)
        terms.penalties["l1"] = 0.1 * self.encode(batch.frames.flatten(0, 1)).mean.abs().sum(1)
        return terms


register_model("sparse-vae", lambda r, shape, K: SparseVAE(ConvEncoder(shape, r.latent), ConvDecoder(shape, r.latent)))
run = load_run(train_recipe("sparse-vae", "digits", "smoke", "runs/own-model", steps=20, overwrite=True))
training, test = (sequences("digits", split, run.settings) for split in ("train", "test"))
print(compare({"sparse-vae": run.model}, training, test.first(20)).to_string())
