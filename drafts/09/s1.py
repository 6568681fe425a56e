from kit import *
from poflow_lite.course.notebooks import setup_cell

md(r"""
# 09 · The experiments

## In one minute

**Question.** Ten models of this course get the first frame of a film and the name of a motion. Does what they draw follow the images? And how would you know?

**Answer.** No single number tells. A still picture with a faint haze has a perfect VP score. A blur names nearly every motion. An operator fitted to the test images reaches the floor. So session 1 takes the metrics one at a time, each with a case that fools it. Session 2 reads all of them at once: ten models, several seeds, one protocol. Figure 1 shows what is at stake.

**You will** compute each metric by hand; fool it; choose operators on validation images; read a recorded comparison with its intervals; name what our own model loses, and why; explain a live model that fails; enter a model of your own.

**Before this** [03](03-equivariance.ipynb) (equivariance error, ridge map), [07](07-flow-factorized-vae.ipynb) (readings A and B), [08](08-knowing-k-less.ipynb) (posterior of $k$), and [01](01-variational-autoencoders.ipynb) (importance weights).

**Notation** $x_t$ frame $t=0,\dots,T$, values in $[0,1]$ · $k\in\{$scale, rotate, hue$\}$ · $z_t$ latent, $d=32$ · $\hat x_t$ prediction from $x_0$ and $k$ alone · $E_k$ equivariance error · *floor*: the model's own autoencoding of $x_t$ · *operator*: what carries $z_0$ to $z_t$ · $\beta$ weight of the KL. Logarithms are natural, likelihoods in nats a frame.

**Run time** under 240 s for both sessions on two idle cores.

**Needs** no network: `mnist-10k`, pretrained models and the records are inside the package.
""")
code(setup_cell())
code(r"""
import contextlib
import copy
import io
import itertools
import math
import tempfile
import textwrap
from functools import partial
from statistics import mean

import torch
from scipy.stats import t as student
from torch import nn
from torch.nn import functional as F

from poflow_lite import experiments, metrics, plotting
from poflow_lite.course import checks, recorded
from poflow_lite.datasets import load_images
from poflow_lite.experiments import load_pretrained, sequences
from poflow_lite.flows import Trajectory
from poflow_lite.metrics import equivariance_errors, persistence, predict
from poflow_lite.objectives import diagonal_normal, gaussian_ceiling, reparameterize
from poflow_lite.operators import OPERATORS, AffineMaps, fit_operators, training_latents
from poflow_lite.operators import with_operator as by
from poflow_lite.studies import comparison, comparison_tables, run_study, tuning
""")
code(r"""
wanted = ("free-flow", "beta-vae", "msp")
loaded = [load_pretrained(f"mnist-10k-{name}", "cpu") for name in wanted]
(free, beta, msp), settings = (run.model for run in loaded), loaded[1].settings
three = (sequences("mnist-10k", s, settings) for s in ("train", "validation", "test"))
training, validation, held_out = three
names, T, K = held_out.names, settings.horizon, len(held_out.names)
shown = held_out.first(150)
films = [batch for _, batch in metrics.every_sequence(shown)]  # a batch for each k
""")
hidden(r"""
OURS, SECOND = plotting.COLORS[3], plotting.COLORS[1]  # free-flow, flow-factorized; the same everywhere
LOOKS = {"free-flow": (OURS, "o"), "flow-factorized": (SECOND, "D"), "beta-vae": (plotting.COLORS[0], "s")}


def show(fig, title, alt):
    fig.suptitle(title, fontsize=12)
    plotting.show(fig, alt)


def line(axis, x, y, i, label=None, low=None, high=None, **style):
    look = {"color": plotting.COLORS[i], "marker": plotting.MARKERS[i]}
    look |= {"ms": 5, **style}
    axis.plot(x, y, label=label, **look)
    if low is not None:
        axis.fill_between(x, low, high, color=look["color"], alpha=0.15)


def tell(rows, heads=names, form=".2f", width=11, first=34):
    print(" " * first + "".join(f"{head:>{width}}" for head in heads))
    for name, values in rows.items():
        print(f"{name:<{first}}" + "".join(f"{value:>{width}{form}}" for value in values))


for run in loaded:
    made = run.config
    print(f"{made['model']:<10}{made['data_set']}, {made['steps']:,} steps, seed {made['seed']}")
FIRST = 4  # image of Figure 1: a test 4
median = metrics.MedianFrame(training, 300)
ridge = by(beta, AffineMaps.linear(training_latents(beta, training, 500)))
rows = {"true film": lambda film: film.frames, "free-flow, own motion": partial(predict, free)}
rows |= {"β-VAE, ridge map": partial(predict, ridge), "no motion": persistence, "median frame": median}
film = held_out.batch(torch.full((K,), FIRST), torch.arange(K))
grid = torch.stack([predictor(film)[:, 2::2].flatten(0, 1) for predictor in rows.values()])
columns = [f"{name} {t}" for name in names for t in range(2, T + 1, 2)]
fig = plotting.image_grid(grid, list(rows), columns, size=0.62)
alt = "Five rows of a 4 under three motions: two predictions follow the true film, the still and the blur do not"
show(fig, "Two of these rows follow the film: how large is the difference, in numbers?", alt)
""")
md(r"""
**Figure 1.** A test digit, frames 2, 4, 6 and 8 of three films. Every predictor got frame 0 and $k$. The ridge map of the β-VAE was fitted to 500 training images.

> **Note.** The printed lines say how each model was trained. Only models that were trained alike may be ranked; session 2 does that. Here they are examples.
""")
md(r"""
# Session 1 · One metric at a time

| question | metric | what fools it | so look at |
|---|---|---|---|
| how far off are the pixels? | equivariance error | a sharp digit, three pixels off | black, median frame |
| could this model move at all? | the best of several operators | a fit to the test images | validation images |
| can $k$ be told from the prediction? | VP score | a haze, the median frame | the error |
| how probable is the film? | four log-likelihoods | wide variance; frames one by one | the sequence |
| which $k$ moved this film? | naming $k$ | the median frame | squared error |
| what comes after $T$? | extrapolation | a distant reference | the last frame held |
| is the motion apart from the picture? | own coefficients | a message about the picture | swapped coefficients |

## 1 · The equivariance error

**Question.** How far is a prediction from the film? Take $z_0$, the posterior mean of frame 0. Carry it to $z_t$ by $k$. Decode. Then sum the absolute differences:

$$E_k=\mathbb E_{x}\sum_{t=1}^{T}\bigl\lVert x_t-\hat x_t\bigr\rVert_1,\qquad \lVert\cdot\rVert_1\text{ over all pixels and channels}.$$

Each $k$ has its own number. Beside it stand three **references**. *No motion* shows $x_0$ for every $t$. The *median frame* is the pixel-wise median of training frames for each $(k,t)$; it knows nothing of the image. The *reconstruction floor* encodes and decodes each true frame.
""")
code(r"""
def error(predictor):  # E_k for each k
    missed = [(predictor(film) - film.frames)[:, 1:].abs() for film in films]
    return torch.stack([m.flatten(1).sum(1).mean() for m in missed])
""")
code(r"""
rows = {"β-VAE, ridge map": partial(predict, ridge), "no motion": persistence}
rows |= {"median frame": median, "β-VAE, floor": partial(metrics.reconstruct, beta)}
rows |= {"free-flow, own motion": partial(predict, free)}
E, still = {name: error(p) for name, p in rows.items()}, error(persistence)
for name, found in equivariance_errors(rows, shown).items():  # the package agrees
    assert torch.allclose(E[name], torch.tensor([*found.values()]), rtol=1e-4)
tell({"no motion, in pixel values": still}, form=".0f")
tell({f"{name}, ÷ no motion": e / still for name, e in E.items()})
""")
md(r"""
**Fool it.** Take the *true* film and push it to the right by a few pixels. Every digit is sharp, and moves as it should. Take also a black film.

**Predict first.** Which has the smaller error: the true film three pixels off, or black?
""")
code(r"""
def shifted(pixels):
    return lambda film: torch.roll(film.frames, pixels, -1)


def black(film):
    return 0 * film.frames


fools = {f"true film, {p} px off": shifted(p) for p in (1, 2, 3)}
fools["black film"] = black
tell({name: error(predictor) / still for name, predictor in fools.items()})
""", check=True)
hidden(r"""
fig, axes = plotting.figure(10, 2.7, 1, 6, width_ratios=[1, 1, 1, 1, 1, 2.2])
k, t = 1, T
panels = {"true": lambda film: film.frames, "free-flow": partial(predict, free)}
panels |= {"3 px off": shifted(3), "median frame": median, "black": black}
for axis, (name, predictor) in zip(axes, panels.items(), strict=False):
    picture = predictor(film)[k, t].clamp(0, 1).permute(1, 2, 0)
    axis.imshow(picture)
    share = error(predictor)[k] / still[k]
    axis.set(xticks=[], yticks=[])
    axis.set_title(f"{name}\n{share:.2f}", fontsize=10)
for i, name in enumerate(names):
    share = [(error(shifted(p))[i] / still[i]).item() for p in range(6)]
    line(axes[-1], range(6), share, i, name)
axes[-1].axhline(1, color="black", ls="--", lw=1)
axes[-1].axhline((error(black) / still)[1], color="0.5", ls=":", lw=1.2)
axes[-1].text(5, 0.8, "black, rotate", ha="right", fontsize=8, color="0.3")
axes[-1].set(xlabel="pixels off", ylabel="error ÷ no motion", ylim=(0, None))
axes[-1].legend(frameon=False, fontsize=8)
alt = "A sharp 4 three pixels off has a larger error than a black picture; errors rise with the displacement"
show(fig, "By its pixels, a sharp digit three pixels off is worse than no digit", alt)
""")
md(r"""
**Figure 2.** Left: frame 8 of a rotation, with the error of 150 such films ÷ no motion. Right: error of the true film, pushed to the right. Dashed: no motion. Spread not shown: it is one set of images.

**Finding.** Three pixels off, the true film has 1.08, 1.15 and 1.31 of the error of no motion. Black has 1.16, 0.90 and 1.00. The reason is a count. Black misses all the ink once. A stroke beside its place misses the ink and adds it again, where there should be none: twice.

So the error is no measure of what a reader sees. It is small only if the digit is the right one *and* in the right place. Read it against its references. "Below no motion" may be a blur: the median frame has 0.84 on rotation.

> **Note.** The floor is no bound. An operator that smooths codes can lie below it, and a flow whose encoder saw few late frames does.

## 2 · Operators: how is a model moved?

**Question.** A β-VAE was never asked to move. What is its error, then? It depends on who moves it. An **operator** is fitted to codes $z_t=\mu(x_t)$ of *training* films:

- *identity*: $z_t=z_0$;
- *traversal*: $z_t=z_0+r\,\frac tT\,e_i$, one latent dimension $i$ and range $r$ for each $k$;
- *translation*: $z_t=z_0+\delta^k_t$, the mean displacement;
- *linear*, the **ridge map**: $z_t=A^k_tz_0+b^k_t$, the least of $\mathrm{mean}\,\lVert Az_0+b-z_t\rVert^2+\lambda\lVert A-I\rVert^2$;
- its *own motion*, where a model has one: a flow, a roll, a matrix $M$.
""")
code(r"""
codes = training_latents(beta, training, 500)  # (K, N, T+1, d)
k, t, penalty, eye = 1, T, 0.01, torch.eye(settings.latent)
start, goal = codes[k, :, 0], codes[k, :, t]
x = start - start.mean(0)
gram = x.T @ x / len(x) + penalty * eye
A = eye + torch.linalg.solve(gram, x.T @ (goal - start) / len(x)).T
maps = AffineMaps.linear(codes, ridges=[penalty])
torch.testing.assert_close(A, maps.matrix[k, t], rtol=1e-3, atol=1e-3)
""")
code(r"""
def relative(predictor, where):  # error ÷ no motion, mean over k
    found = equivariance_errors({"it": predictor, "still": persistence}, where)
    return mean(found["it"][k] / found["still"][k] for k in names)


tried = {n: OPERATORS[n] for n in ("identity", "traversal", "translation", "linear")}
operators = fit_operators(beta, training, tried, images=500)
moved = {name: by(beta, operator) for name, operator in operators.items()}
places, seen = (validation.first(100), held_out.first(100)), {}
for name, model in moved.items():
    seen[name] = [relative(partial(predict, model), where) for where in places]
tell(seen, ("validation", "test"))
print("chosen on validation images:", min(seen, key=lambda name: seen[name][0]))
""")
md(r"""
**Finding.** One β-VAE has errors between 0.23 and 1.00 of no motion. Nothing was trained between these rows. A table that moves its baselines by one operator measures, above all, that operator. So every model gets all of them, and the choice is made on **validation** images.

**Fool it.** Why not fit and choose on the test images? Here the ridge maps are fitted to the codes of the first $N$ *test* images. They are measured on these, and on 100 others.

**Predict first.** A row of $(A,b)$ has 33 unknowns. What happens for $N\le33$?
""")
code(r"""
test_codes, told = training_latents(beta, held_out, 400), {}
fresh, coder = copy.copy(held_out), partial(metrics.reconstruct, beta)
fresh.images = held_out.images[500:600]
for N in (10, 20, 33, 50, 100, 200, 400):
    maps = AffineMaps.linear(test_codes[:, :N], ridges=[1e-6])
    own, mover = held_out.first(min(N, 100)), partial(predict, by(beta, maps))
    pairs = ((mover, own), (coder, own), (mover, fresh))
    told[f"N = {N}"] = [relative(*pair) for pair in pairs]
tell(told, ("own", "floor", "others"), ".3f")
""")
hidden(r"""
fig, axis = plotting.figure(7.2, 3.1)
own, least, others = zip(*told.values(), strict=True)
sizes = [int(name[4:]) for name in told]
line(axis, sizes, own, 2, "on the images of the fit")
line(axis, sizes, others, 0, "on 100 other images")
axis.plot(sizes, least, color="0.35", ls=":", label="floor")
axis.axhline(1, color="black", ls="--", lw=1, label="no motion")
axis.axvline(settings.latent + 1, color="0.7", lw=1)
axis.text(settings.latent + 2, 0.04, "33 unknowns a row", fontsize=8, color="0.3")
axis.set(xscale="log", xlabel="N, test images that the maps are fitted to", ylabel="error ÷ no motion")
axis.set(xticks=sizes, xticklabels=sizes, ylim=(0, 1.05 * max(others)))
axis.minorticks_off()
axis.legend(frameon=False, fontsize=8)
alt = "On its own images the fit lies on the floor up to 33 images; on others it peaks there, above no motion"
show(fig, "Fitted to the test images, a map reaches the floor and has learned nothing", alt)
""")
md(r"""
**Figure 3.** Ridge maps of the β-VAE with $\lambda=10^{-6}$. One draw of images, so no spread.

**Finding.** With $N\le33$ the map passes through every code: its error *is* the floor, 0.190 at $N=33$. On other images the error is 0.446 with 20 images, and 1.126 with 33, above no motion. *Choosing* is a weak form of fitting: the best of several candidates looks better than it is (Exercise 2).

## 3 · The VP score

**Question.** Can one tell from a prediction which motion was meant? *Variation predictability* ([Zhu et al. 2020](https://arxiv.org/abs/2007.12885)) shows a small network the first and last predicted frame. It is trained on 10 % of the pairs to name $k$, and tested on 90 %. The accuracy after the *last* epoch counts. The best test epoch would be a choice on the test pairs.
""")
code(r"""
def namer(seed):
    torch.manual_seed(seed)
    see = [nn.Conv2d(9, 16, 4, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.SiLU()]
    return nn.Sequential(*see, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, K))


def vp_by_hand(pairs, k, seed=0, epochs=60):
    first, last = pairs[:, 0], pairs[:, 1]
    pictures, network = torch.cat([first, last, last - first], 1), namer(seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(k), generator=generator)
    fitted, rest = order.tensor_split([len(k) // 10])
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(epochs):
        order = torch.randperm(len(fitted), generator=generator)
        for part in fitted[order].split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(pictures[part]), k[part]).backward()
            optimizer.step()
    return (network(pictures[rest]).argmax(1) == k[rest]).double().mean().item()
""")
md(r"""
**Fool it.** Two predictors know nothing of the motion. One is the median frame. The other shows $x_0$ under a faint haze: it adds $0.02k$ to every pixel of the later frames ($k=0,1,2$). **Predict first.** Rank the six rows below.
""")
code(r"""
def hazy(film):
    frames = persistence(film).clone()
    frames[:, 1:] += 0.02 * film.k[:, None, None, None, None]
    return frames
""")
code(r"""
rows = {"true film": lambda film: film.frames, "free-flow": partial(predict, free)}
rows |= {"β-VAE, ridge map": partial(predict, ridge), "no motion": persistence}
rows |= {"median frame": median, "no motion, haze": hazy}
pairs = {name: metrics.generated_pairs(p, shown) for name, p in rows.items()}
vp = {name: metrics.vp_score(*pair, seeds=(0,)).mean for name, pair in pairs.items()}
assert abs(vp_by_hand(*pairs["true film"]) - vp["true film"]) < 0.02
tell({n: [vp[n], *(error(p) / still)] for n, p in rows.items()}, ("VP", *names))
""")
hidden(r"""
kept = ["true film", "free-flow", "median frame", "no motion, haze"]
contestants = {"true film": lambda film: film.frames, "free-flow": partial(predict, free)}
contestants |= {"median frame": median, "no motion, haze": hazy}
drawn = {name: contestants[name](film) for name in kept}
pictures = torch.stack([torch.cat([d[:1, 0], d[:, T]]) for d in drawn.values()], 1)
labels = ["frame 0", *(f"{k}, frame {T}" for k in names)]
heads = [f"{n}\nVP {vp[n]:.2f}" for n in kept]
fig = plotting.image_grid(pictures, labels, heads, size=0.95)
alt = f"Last frames for three k: true, free-flow, a blur, stills with haze; VP {vp['median frame']:.2f} for both fools"
show(fig, "Two fools score as high as the true film", alt)
""")
md(r"""
**Figure 4.** What the VP score sees: first and last frames. The haze of the last column is hard to see, and enough.

**Finding.** The median frame and the haze score 1.00, like the free flow. The *true* film scores 0.99. Whatever tells the $k$ apart counts: a motion, a blur, a stain. A low score proves that something is wrong. A high one proves little, so it never stands without the error.

## 4 · Four log-likelihoods

**Question.** How probable is the true film to the model? "The likelihood" may mean four numbers. All are under $p(x\mid z)=\mathcal N(\hat x(z),I)$, in nats a frame. $\varphi^k_t$ is the operator.

| name | what it is | it asks |
|---|---|---|
| **sequence** | $\frac1{T+1}\log\int p(z_0)\prod_tp(x_t\mid\varphi^k_t(z_0))\,\mathrm dz_0$ | does *one* start explain all frames? |
| **predictive** | $\log\mathbb E_{q(z_0\mid x_0)}\,p(x_t\mid\varphi^k_t(z_0))$ | given $x_0$, is $x_t$ expected? |
| **pushed frame** | $\log\int p(z_0)\,p(x_t\mid\varphi^k_t(z_0))\,\mathrm dz_0$ | is frame $t$, alone, a picture of the model? |
| **frame** | $\log\int p_t(z\mid k)\,p(x_t\mid z)\,\mathrm dz$ | the same under reading A: no operator occurs |

All but the second are estimated by importance weights $p(z_0)/q(z_0\mid x_0)$ (lesson 01), which bounds them from below on average.
""")
code(r"""
ceiling = gaussian_ceiling(math.prod(held_out.image_shape))


@torch.no_grad()
def by_hand(model, film, S=50):
    q = model.encode(film.frames[:, 0])
    q = diagonal_normal(q.mean.repeat(S, 1), q.base_dist.scale.repeat(S, 1))
    z0 = reparameterize(q, torch.Generator().manual_seed(0))
    path = model.rollout(z0, film.k.repeat(S), range(T + 1)).z
    missed = model.decode(path).mean.unflatten(0, (S, -1)) - film.frames
    log_x = ceiling - 0.5 * missed.square().flatten(3).sum(3)  # (S, B, T+1)
    log_w = diagonal_normal(0 * z0, 1 + 0 * z0).log_prob(z0) - q.log_prob(z0)
    joint = (log_x.sum(2) + log_w.view(S, -1)).logsumexp(0) - math.log(S)
    ahead = log_x[..., 1:].logsumexp(0) - math.log(S)
    return joint.mean().item() / (T + 1), ahead.mean().item()
""")
code(r"""
some = held_out.batch(torch.arange(24), torch.arange(24) % K)
same = held_out.first(24).in_turns()  # image i under transformation i mod K
package = metrics.log_likelihood(ridge, same, images=24, samples=50)
theirs = package.sequence, package.predictive
for mine, other in zip(by_hand(ridge, some), theirs, strict=True):
    print(f"by hand {mine:.2f}, package {other:.2f}: other draws of z_0")
    assert abs(mine - other) < 0.5
print(f"ceiling {ceiling:.1f}")
""")
md(r"""
The **ceiling** is $-\frac D2\log2\pi$ for $D=3\cdot28\cdot28$ pixel values: it is reached by $\hat x=x$. Nothing can lie above it. A number that does has a wrong sign or a forgotten constant.

**Predict first.** The β-VAE stands still (identity), is translated, or is moved by its ridge map. Which of the four likelihoods will *not* notice?
""")
code(r"""
dealt, rows, worst = held_out.first(45).in_turns(), {}, {}


def likelihoods(model):
    L = metrics.log_likelihood(model, dealt, images=45, samples=40)
    frame = max(L.frame.values(), default=math.nan)  # the tighter of two bounds
    right = []
    for k, film in metrics.every_sequence(dealt, 15):
        evidence = metrics.log_evidence(model, film, K, samples=10)
        right.append((evidence.argmax(1) == k).double())
    for key, e in L.standard_error.items():
        worst[key] = max(e, worst.get(key, 0))
    scores = L.sequence, L.predictive, L.pushed_frame, frame, L.squared_error
    return *scores, torch.cat(right).mean().item()
""")
code(r"""
for name in ("identity", "translation", "linear"):
    rows[f"β-VAE, {name}"] = likelihoods(moved[name])
rows["free-flow, own motion"] = likelihoods(free)
heads = ("sequence", "predictive", "pushed", "frame", "‖x-x̂‖²", "naming")
tell(rows, heads, ".2f", first=24)
pixels, nats = worst.pop("squared_error"), max(worst.values())
print(f"largest standard errors: {nats:.1f} nats; squared error {pixels:.1f}")
""")
hidden(r"""
fig, axis = plotting.figure(7.4, 3.2)
for i, label in enumerate(("sequence", "predictive", "pushed frame", "frame")):
    below = [ceiling - values[i] for values in rows.values()]
    line(axis, range(len(rows)), below, (0, 2, 4, 7)[i], label, lw=2.6 if i == 0 else 1.3)
axis.set(xticks=range(len(rows)), xticklabels=[name.replace(", ", "\n") for name in rows])
axis.set(ylabel="nats a frame below the ceiling", ylim=(0, None))
axis.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
alt = "Nats below the ceiling for four movers: sequence and predictive fall as motion improves, frame stays level"
show(fig, "The frame likelihood does not notice that nothing moves", alt)
""")
md(r"""
**Figure 5.** 45 test digits, each under one motion; standard errors over digits are at most 3.1 nats, and 5.4 in squared error. Lower is better. The free flow has no reading A, hence no *frame*.

**Finding.** The *frame* likelihood is the same for all three operators of the β-VAE, −2254.92: no operator occurs in it. *Pushed frame* fools more subtly. For the identity it is −2286.22 here, by proposals from $x_0$. But a still model has $\varphi_t=\mathrm{id}$, so the true value is the frame likelihood, at least −2254.92. That is as good as the ridge map's −2251.00. One by one, the frames do not say that they belong together. The *sequence* does: −2209.26 for the identity, −2174.17 for the ridge map.

**And wide variance.** The *predictive* likelihood changes only from −2204.43 to −2164.68 while the squared error falls from 86.29 to 6.53. With unit variance a pixel that is wrong by 0.1 costs 0.005 nats. So the squared error stands beside it.

> **Note.** $\beta$ moves these numbers, too. A small $\beta$ gives sharp codes that the prior finds improbable. Compare likelihoods at equal $\beta$, or say the $\beta$.

## 5 · Naming $k$

**Question.** Given a whole film, which $k$ moved it? $p(k\mid x_{0:T})\propto p(x_{0:T}\mid k)$, under the joint reading (lesson 08). *Naming* is the share of films whose true $k$ has the largest posterior. The last column above holds it.

**Fool it.** The median films know no image. Which of the three is nearest to the film?
""")
code(r"""
named = []
for k, film in enumerate(films):
    distance = (film.frames[:, None] - median.frames).square().flatten(2).sum(2)
    named.append((distance.argmin(1) == k).double().mean().item())
tell({"named by the nearest median film": named}, form=".0%")
print(f"all {mean(named):.0%}; the translation {rows['β-VAE, translation'][-1]:.0%}")
""")
md(r"""
**Finding.** Three blurs name 94 % of the films. The translation names 98 % at seven times the squared error of the ridge map. Naming needs only that the *other* motions fit worse. It asks which, not how well.

## 6 · Beyond the last frame

**Question.** Training showed $t\le T$. Does the motion go on? *Extrapolation* is the error over $t=T+1,\dots,2T$. The flow runs its field on. The ridge maps have no entry beyond $T$: they start anew from $z_T$.

**Fool it.** Divide by no motion, as usual. At $t=16$ the first frame is far away: nearly anything is better. A fairer reference holds the *true* frame $T$.
""")
code(r"""
longer = held_out.first(100)
longer.horizon = 2 * T


def held(film):  # the true frames up to T, then frame T
    return film.frames[:, torch.arange(2 * T + 1).clamp(max=T)]
""")
code(r"""
ahead = {"no motion": persistence, "frame 8 held": held}
ahead |= {"free-flow": partial(predict, free)}
ahead |= {"β-VAE, ridge map": partial(predict, ridge)}
lost = {name: [] for name in ahead}  # for each k: the error of each frame, (2T+1,)
for (_, film), name in itertools.product(metrics.every_sequence(longer, 100), ahead):
    missed = (ahead[name](film) - film.frames).abs().flatten(2).sum(2)
    lost[name].append(missed.mean(0))
beyond = {name: torch.stack(found)[:, T + 1 :].sum(1) for name, found in lost.items()}
for unit in ("no motion", "frame 8 held"):
    tell({f"{name} ÷ {unit}": e / beyond[unit] for name, e in beyond.items()})
""")
hidden(r"""
fig, axes = plotting.figure(10, 3.1, 1, 3)
looks = {"no motion": ("black", "", "--"), "frame 8 held": ("0.5", "", ":")}
looks |= {"free-flow": (OURS, "o", "-"), "β-VAE, ridge map": (plotting.COLORS[0], "s", "-")}
for k, axis in enumerate(axes):
    for name, found in lost.items():
        color, marker, style = looks[name]
        axis.plot(found[k], color=color, marker=marker, ls=style, ms=4, label=name)
    axis.axvspan(T, 2 * T, color="0.93", lw=0)
    axis.set(title=names[k], xlabel="frame t", xticks=range(0, 2 * T + 1, 4), ylim=(0, None))
axes[0].set_ylabel("error of the frame")
axes[0].legend(frameon=False, fontsize=8)
alt = "Error of each frame to t = 16: beyond frame 8 predictions depart quickly, yet stay far below no motion"
show(fig, "Beyond frame 8, no motion is a reference that flatters", alt)
""")
md(r"""
**Figure 6.** Error of each frame, means over 100 test digits. Shaded: frames that no training showed.

**Finding.** On scale the ridge map has 0.44 of the error of no motion. That sounds like extrapolation. Yet it has 0.89 of the error of frame 8 held: most of the gain is only that frame 8 is nearer. On hue it has 0.92 of no motion, and 1.19 of frame 8 held: to stop would have been better. Its maps were fitted to films that start red, and start anew from the colour of frame 8. Only on rotation does it go on: 0.34. So the reference decides what the same numbers seem to say.

## 7 · The swap test

**Question.** Some models are told no $k$. They read the motion off a second frame. MSP solves for a matrix $M$ from the codes of frames 0 and 1, then predicts $z_t=M^tz_0$ ([Miyato et al. 2022](https://arxiv.org/abs/2210.05972)). Is $M$ the *motion*, or a message about the *picture*? Frame 1 contains both.

*Own*: $M$ of the film itself. *Swapped*: $M$ of another film under the same $k$. If $M$ is the motion, the two agree.

**Fool "own".** We build a cheat on the β-VAE. Its coefficients are $y=z_1-z_0$. It predicts $z_t=B_t(z_0,y)+c_t$, by one regression over all $k$.
""")
code(r"""
def two_frames(codes, penalty=1e-3):  # codes of training films (K, N, T+1, d)
    ones = torch.ones(*codes.shape[:2], 1)
    x = [codes[:, :, 0], codes[:, :, 1] - codes[:, :, 0], ones]
    x, z = torch.cat(x, 2).flatten(0, 1), codes.flatten(0, 1)
    gram = x.T @ x / len(x) + penalty * torch.eye(x.shape[1])
    table = torch.linalg.solve(gram, torch.einsum("ni,ntj->tij", x, z) / len(x))

    def rollout(z, y, times):
        x = torch.cat([z, y, torch.ones(len(z), 1)], 1)
        path = torch.stack([x @ table[int(t)] if t else z for t in times], 1)
        clock = torch.tensor([float(t) for t in times])
        return Trajectory(path, 0 * path[:, 1:, 0], path.diff(dim=1), y, clock)

    return rollout
""")
code(r"""
def read(frames):
    return beta.encode(frames[:, 1]).mean - beta.encode(frames[:, 0]).mean


cheat = copy.copy(beta)
cheat.infer, cheat.rollout, cheat.names_k = read, two_frames(codes), False
""")
code(r"""
def asked(reader, change):
    return error(lambda film: predict(reader, change(film))) / still


readers, swaps = {"MSP": msp, "cheat": cheat}, {}
for name, reader in readers.items():
    swaps[f"{name}, own"] = asked(reader, partial(metrics.with_own_coefficients, reader))
    swaps[f"{name}, swapped"] = asked(reader, metrics.Donors(reader, training, 200))
tell(swaps)
""")
hidden(r"""
image, k = FIRST, 1
one = held_out.batch(torch.tensor([image]), torch.tensor([k]))
strips, labels = [one.frames[0]], ["true film"]
for name, reader in readers.items():
    donors = metrics.Donors(reader, training, 200)
    for way, change in {"own": partial(metrics.with_own_coefficients, reader), "swapped": donors}.items():
        strips.append(predict(reader, change(one))[0])
        labels.append(f"{name}, {way}")
fig = plotting.image_grid(torch.stack(strips), labels, [f"t = {t}" for t in range(T + 1)], size=0.72)
gaps = {n: (swaps[f"{n}, swapped"] - swaps[f"{n}, own"])[k] for n in readers}
change = f"of MSP by {gaps['MSP']:+.2f}, of the cheat by {gaps['cheat']:+.2f}"
alt = f"A turning 4: with a donor's coefficients the error changes, {change}"
show(fig, "With another film's coefficients, the cheat draws another picture", alt)
""")
md(r"""
**Figure 7.** The same test 4, rotated. "Swapped" takes its coefficients from a training film that rotates another digit.

**Finding.** With its own coefficients the cheat looks like an honest model: 0.35, 0.29 and 0.31 of no motion. With a donor's it has 0.89, 0.99 and 0.37. On rotation that is as bad as standing still: it draws another picture. MSP rises from 0.22, 0.24 and 0.25 to 0.61, 0.50 and 0.45. So its $M$ holds the motion, but not the motion alone.

> **Note.** "Swapped" looks $k$ up to find its donor, as all other models are told $k$. "Own" has seen a second frame, so it is no rival of models that saw one. The tables of session 2 choose "swapped".

## Summary of session 1

1. The error needs black, blur, no motion and floor beside it. Each $k$ counts by itself.
2. A baseline is as good as what moves it. Operators are fitted to training images and chosen on validation images.
3. VP score and naming ask *which* $k$, not *how well*. A blur passes both.
4. Of four likelihoods only *sequence* ties the frames together. The squared error stands beside *predictive*.
5. Extrapolation needs the last frame as reference; a model that reads frames needs the swap.

## Common mistakes

- One average over $k$. A $k$ that fails altogether disappears in it.
- Fitting, choosing or stopping on test images.
- "The likelihood", without a name, an estimator or $\beta$.
- A high VP score as evidence of equivariance.

## Exercises

**Exercise 1 · Warm-up: share of the way** (2 points). An error says little without its references. `share_of_way(error, still, floor)` takes three tensors $(K,)$. It returns which share of the way from no motion to the floor a model goes, for each $k$: 0 where it is as bad as no motion, 1 where it reaches the floor, negative where it is worse than no motion. Where a $k$ moves nothing (no motion is not above the floor) it returns NaN.

<details><summary>Hint 1</summary>The whole way is the error of no motion minus the floor.</details>

<details><summary>Hint 2</summary>`torch.where(condition, a, b)` chooses element by element. Do not clamp: below the floor is more than 1.</details>
""")
solution("share_of_way", r"""
def share_of_way(error, still, floor):
    ### BEGIN SOLUTION
    share = (still - error) / (still - floor)
    return torch.where(still > floor, share, torch.nan)
    ### END SOLUTION
""")
check("share_of_way", 2)
md(r"""
**Exercise 2 · Derivation: the winner's curse** (4 points). $m$ operators are *equally* good: the true error of each is $E$. On $n$ test images the measured errors are independent, $e_i\sim\mathcal N(E,s^2/n)$. You report the least. (a) For $m=2$, show $\mathbb E\min(e_1,e_2)=E-\dfrac{s}{\sqrt{\pi n}}$. (b) For any $m$, show $\mathbb E\min_ie_i\ge E-s\sqrt{2\log m/n}$. (c) How large may the illusion be for $m=40$ candidates and $s=100$, on 20 images and on 1,000? (d) What is expected of the winner on *new* images?

<details><summary>Hint 1</summary>(a) $\min(a,b)=\frac{a+b}2-\frac{|a-b|}2$, and $\mathbb E|u|=\sigma\sqrt{2/\pi}$ for $u\sim\mathcal N(0,\sigma^2)$.</details>

<details><summary>Hint 2</summary>(b) With $M=\max_i(E-e_i)$ and any $\lambda>0$: $e^{\lambda\mathbb E M}\le\mathbb E e^{\lambda M}\le\sum_i\mathbb E e^{\lambda(E-e_i)}$. Then choose $\lambda$.</details>
""")
written("winner", 4, r"""
**Your derivation.**

<details><summary>Solution</summary>

(a) $e_1-e_2\sim\mathcal N(0,2s^2/n)$, so $\mathbb E|e_1-e_2|=\sqrt{2s^2/n}\sqrt{2/\pi}=2s/\sqrt{\pi n}$. Half of it is subtracted from $E$. (b) $e^{\lambda\mathbb EM}\le m\,e^{\lambda^2s^2/2n}$, so $\mathbb EM\le\frac{\log m}\lambda+\frac{\lambda s^2}{2n}$. At $\lambda=\sqrt{2n\log m}/s$ both terms are $\frac s2\sqrt{2\log m/n}$. (c) $\sqrt{2\log40}=2.72$: up to $272/\sqrt{20}=61$ on 20 images, and $272/\sqrt{1000}=8.6$ on 1,000. (d) $E$: nothing of the lead is left.
</details>
""")
md(r"""
## Quiz

**1.** A table reports −2140 nats a frame for $3\times28\times28$ under $\mathcal N(\hat x,I)$. What do you conclude?
<details><summary>Answer</summary>
That it is wrong: the ceiling is −2161.3. A flipped sign of the KL, a forgotten constant, or a mean for a sum.
</details>

**2.** Two operators have the same frame likelihood to the last digit. Is that a mistake?
<details><summary>Answer</summary>
No. By proposals from x_t no operator occurs in it.
</details>

**3.** Name a predictor with VP score 1 and naming above 90 % that has never seen the digit.
<details><summary>Answer</summary>
The median frame.
</details>

**4.** "Own" and "swapped" have equal errors. Can the coefficients still contain the picture?
<details><summary>Answer</summary>
Yes, as long as the decoder ignores it. The test asks what is used, not what is there.
</details>
""")
