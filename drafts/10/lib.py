import time, torch, sys, math, copy
torch.set_num_threads(1)
from dataclasses import replace
from statistics import mean
from poflow_lite import datasets, experiments, plotting
from poflow_lite.datasets import *
from poflow_lite.experiments import recipe, sequences, build_model, load_pretrained
from poflow_lite.training import Schedule, fit
from poflow_lite.studies.tasks import TASKS, measure_task, task_sequences, lent_steps, each_alone, switching
from poflow_lite.metrics import *
from poflow_lite.operators import *
from poflow_lite.fields import mixing_weights
SMALL={"network":"patches","channels":(32,),"start":"random"}
def seeded(seed=0): return torch.Generator().manual_seed(seed)
RECIPE = recipe("digits","lecture","flow-factorized",**SMALL,hamilton_jacobi=0.0)
training, test = (sequences("digits", s, RECIPE) for s in ("train","test"))
names, T = test.names, test.horizon
def train(model="flow-factorized", steps=400, seed=0, **changes):
    base = SMALL | ({"hamilton_jacobi":0.0} if model=="flow-factorized" else {})
    s = recipe("digits","lecture",model,**(base|{"steps":steps}|changes))
    m = build_model(model,s,training.image_shape,3,seed)
    draws = getattr(m,"draws",{})
    fit(m, lambda g: training.sample(s.batch_size,s.frames,g,**draws), Schedule(steps,s.learning_rate,warmup=30), seed=seed, progress=False)
    return m.requires_grad_(False).eval()
SHOWN = {"single": TASKS["random starts"]}
SHOWN |= {name: replace(TASKS[name], start="random") for name in ("half speed", "double speed")}
SHOWN |= {name: TASKS[f"random starts {name}"] for name in ("switching", "two at once", "three at once", "backwards")}
SHOWN |= {"16 frames": TASKS["random starts twice as long"]}
def measure(model, operators, images=60):
    rows = {}
    for title, task in SHOWN.items():
        errors = measure_task(model, operators, task, task_sequences(task, "digits", "test", images))
        still = errors.pop("no motion")
        rows[title] = {name: mean(e[m] / still[m] for m in still) for name, e in errors.items() if len(e) == len(still)}
    return rows
BRIDGES = {
    "passed on": lambda model, z, x: z,
    "decoded and encoded": lambda model, z, x: model.encode(model.decode(z).mean).mean,
    "code of the true frame": lambda model, z, x: model.encode(x).mean,
}
def second_half(model, bridge, images=60):
    ratios = []
    for motion in switching(test):
        true = render_motion(test, torch.arange(images), motion, seeded())
        (first, second), k = motion.segments, torch.stack(motion.weights(names))
        middle = model.rollout(model.encode(true[:, 0]).mean, k[:1].expand(images, -1), first.clock).z[:, -1]
        start = bridge(model, middle, true[:, first.frames])
        path = model.rollout(start, k[1:].expand(images, -1), second.clock).z[:, 1:]
        late = true[:, first.frames + 1 :]
        ratios.append((model.decode(path).mean - late).abs().sum() / (true[:, :1] - late).abs().sum())
    return torch.stack(ratios).mean().item()
def way_back(model, own_end, images=60):
    ratios = []
    for k, motion in enumerate(each_alone(test)):
        true = render_motion(test, torch.arange(images), motion, seeded())
        end, k = model.encode(true[:, -1]).mean, torch.full((images,), k)
        if own_end:
            end = model.rollout(model.encode(true[:, 0]).mean, k, range(T + 1)).z[:, -1]
        before = true[:, :-1].flip(1)
        found = model.decode(model.rollout(end, k, range(T, -1, -1)).z[:, 1:]).mean
        ratios.append((found - before).abs().sum() / (true[:, -1:] - before).abs().sum())
    return torch.stack(ratios).mean().item()
def mismatch(model, images=60):
    out=[]
    for k in range(3):
        b = test.batch(torch.arange(images), k, generator=seeded())
        e = model.encode(b.frames.flatten(0, 1)).mean.unflatten(0, b.frames.shape[:2])
        z = model.rollout(e[:, 0], b.k, range(T+1)).z
        out.append(((z-e).norm(dim=-1).mean(0)[-1]/(e-e[:,:1]).norm(dim=-1).mean(0)[-1]).item())
    return out
CELLS={f"{f}{' + agreement' if c else ''}":dict(field=f,consistency=c) for f in ("gradient","free") for c in (0.0,0.1)}
