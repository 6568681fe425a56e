"""Videos of your own: labelled clips (N, T+1, C, H, W), each with the class k of what moves in it."""

import torch

from poflow_lite.datasets import ClipSequences
from poflow_lite.experiments import build_model, compare, recipe, train
from poflow_lite.training import Schedule

clips = torch.rand(60, 6, 3, 16, 24)  # six frames each
k = torch.arange(60) % 2  # what moves in each clip

training, test = (ClipSequences(clips[part], k[part], ("walk", "jump")) for part in (slice(0, 50), slice(50, 60)))
settings = recipe("digits", "smoke", horizon=training.horizon)
model = build_model("flow-factorized", settings, training.image_shape, len(training.names))
train(model, training, Schedule(steps=20), "runs/own-videos", overwrite=True)
print(compare({"flow-factorized": model}, training, test).to_string())
