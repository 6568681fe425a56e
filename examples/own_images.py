"""Images of your own: an array of any size that the networks can halve, grey or colour, 0..255 or 0..1."""

import numpy as np

from poflow_lite.datasets import ROTATE, SCALE, TransformationSequences
from poflow_lite.experiments import build_model, compare, recipe, train
from poflow_lite.training import Schedule

# image_folder("photographs", size=(32, 40)) reads a folder of PNG or JPEG files into such an array.
images = np.random.default_rng(0).integers(0, 256, (120, 32, 40), dtype=np.uint8)  # (N, H, W), grey

training, test = (TransformationSequences(part, (SCALE, ROTATE)) for part in (images[:100], images[100:]))
model = build_model("beta-vae", recipe("digits", "smoke", "beta-vae"), training.image_shape, len(training.names))
train(model, training, Schedule(steps=20), "runs/own-images", overwrite=True)
print(compare({"beta-vae": model}, training, test).to_string())
