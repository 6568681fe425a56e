"""A transformation of your own: its matrix is enough; the generator is derived by ``torch.func.jacrev``."""

import torch

from poflow_lite.datasets import ROTATE, Transformation, TransformationSequences, load_images
from poflow_lite.experiments import build_model, compare, recipe, train
from poflow_lite.training import Schedule


def stretch(a):
    """Wider by exp(a) and lower by exp(-a), in homogeneous pixel coordinates about the centre."""
    return torch.diag_embed(torch.stack([a.exp(), (-a).exp(), torch.ones_like(a)], -1))


STRETCH = Transformation("stretch", path=lambda t: 0.08 * t, start=(-0.3, 0.0), matrix=stretch)
images = {split: load_images("digits", split).images for split in ("train", "test")}
training, test = (TransformationSequences(images[split], (ROTATE, STRETCH)) for split in ("train", "test"))
model = build_model("flow-factorized", recipe("digits", "smoke"), training.image_shape, len(training.names))
train(model, training, Schedule(steps=20), "runs/own-transformation", overwrite=True)
print(compare({"flow-factorized": model}, training, test.first(20)).to_string())
