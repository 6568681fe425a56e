from kit import md, code
from poflow_lite.course.notebooks import setup_cell

md(r"""
# 10 · Composing and generalising

## In one minute

**Question.** A model has learned to grow, turn and recolour digits: one motion at a time, for eight frames. Can it do one motion after another, two at once, backwards, faster, for longer? Can it do so on images of a kind that it never saw?

**Answer.** *Composing* (session 1): only if its flows are built for it. A potential flow that is good alone fails when it is composed. A 2×2 experiment separates two causes. A *free* velocity field mends what is composed forwards. The way back needs a free field *and* flows that end where the encoder would put the picture. *Generalising* (session 2): a recorded table of 21 tasks and 13 columns says, task by task, who is ahead, and whether drawing or moving decides.

**You will** render composed motions; compute what the order of two motions costs; derive the Baker–Campbell–Hausdorff formula to second order; carry it over to learned fields; intervene to find causes; run a 2×2 experiment and a swap test; read a large table with its floors.

**Before this** [07](07-flow-factorized-vae.ipynb) (the model), [09](09-experiments.ipynb) (errors, floors, operators chosen on validation images). Helpful: [03](03-equivariance.ipynb) (groups).

**Notation** $x_t$ frame · $T=8$ · $z_t\in\mathbb R^d$ latent · $\mu(x)$ mean of the encoder · $k$ transformation, $y$ weights $(K,)$ of what moves · $G_k$ generator, $M_k(a)=e^{aG_k}$ · $v^k(z,t)$ velocity · $[A,B]=AB-BA$ for matrices, $[v,w]$ Lie bracket of fields · *error*: L1 over pixels and frames $1..T$, ÷ that of *no motion* (frame 0 repeated), mean over motions · *floor*: the same error when each true frame is encoded and decoded.

**Run time** under 240 s on two idle cores, both sessions together.

**Needs** no network: digits, three pretrained models and the recorded runs are inside the package.
""")
code(setup_cell())
code(r"""
import copy
import math
from dataclasses import replace
from statistics import mean

import torch
from IPython.display import Markdown, display

from poflow_lite import datasets, metrics, plotting
from poflow_lite.course import checks, recorded
from poflow_lite.datasets import FIVE_TRANSFORMATIONS, Motion, Segment, render_motion
from poflow_lite.experiments import build_model, load_pretrained, recipe, sequences
from poflow_lite.fields import mixing_weights
from poflow_lite.flows import NotInvertible
from poflow_lite.metrics import Donors, order_gaps, with_coefficients
from poflow_lite.operators import OPERATORS, fit_operators, follow, training_latents
from poflow_lite.studies import generalisation as study
from poflow_lite.studies import tasks
from poflow_lite.studies.study import t_interval
from poflow_lite.studies.tasks import TASKS, measure_task, task_sequences
from poflow_lite.training import Schedule, fit
""")
code(r"""
trained = load_pretrained("digits-flow", "cpu")
potential, settings = trained.model, trained.settings
free = load_pretrained("digits-free-flow", "cpu").model
training, test = (sequences("digits", s, settings) for s in ("train", "test"))
upright = sequences("digits", "test", replace(settings, start="fixed"))
names, T, K = test.names, test.horizon, len(test.names)
pairs = torch.combinations(torch.arange(K)).tolist()  # (0, 1), (0, 2), (1, 2)
DIGIT = 18  # a legible 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def alone(k, z):
    return mixing_weights(torch.full((len(z),), k), K).to(z)  # weights y (B, K)


print(f"{test.name}: start poses are random, in training and here")
""")
code(r"""
OURS, SECOND, OTHER, RIVAL = 0, 1, 2, 3  # colours and markers, in every figure


def show(fig, title, alt):
    fig.suptitle(title, fontsize=11)
    plotting.show(fig, alt)


def dots(axis, x, y, i, label=None, **style):
    look = {"color": plotting.COLORS[i], "marker": plotting.MARKERS[i], "ls": "none"}
    axis.plot(x, y, label=label, **look | {"ms": 7, **style})


def line(axis, x, y, i, label=None, **style):
    look = {"color": plotting.COLORS[i], "marker": plotting.MARKERS[i], "ms": 5}
    axis.plot(x, y, label=label, **look | style)


def floors(axis, x, y, label=None):
    axis.plot(x, y, "|", color="black", ms=13, mew=2, label=label)


def unit(axis, label="no motion"):
    axis.axvline(1, color="0.4", ls="--", lw=1, label=label)
""", hide=True)

# --- 1
md(r"""
# Session 1 · Composing

## 1 · Motions as data

**Question.** What should a learned motion be able to do beyond its training? Five wishes: run *after* another motion, *together* with another, *backwards*, *at another speed*, *for longer*. No training sequence shows any of them. All of them can be rendered, so each wish becomes a number.

A `Segment` says what moves, for how many frames, and how fast its clock runs. Each segment has a clock of its own from 0. A `Motion` is a list of segments, possibly played backwards.
""")
code(r"""
MOTIONS = {
    "scale, then rotate": Motion((Segment(("scale",), 4), Segment(("rotate",), 4))),
    "rotate + hue": Motion((Segment(("rotate", "hue"), 8),)),
    "hue, backwards": Motion((Segment(("hue",), 8),), backwards=True),
    "rotate, double speed": Motion((Segment(("rotate",), 4, speed=2.0),)),
    "rotate, 16 frames": Motion((Segment(("rotate",), 16),)),
}
one = torch.tensor([DIGIT])
films = [render_motion(upright, one, motion)[0] for motion in MOTIONS.values()]
steps = [torch.linspace(0, len(film) - 1, 9).round().int() for film in films]
nine = torch.stack([film[step] for film, step in zip(films, steps, strict=True)])
shares = [f"{t}/8" for t in range(9)]
title = "Five motions that no training sequence shows, rendered"
alt = "A 3 grows then turns; turns and recolours; returns to red; turns fast; far"
plotting.show(plotting.image_grid(nine, list(MOTIONS), shares, title, 0.75), alt)

t, pose = torch.arange(9.0), torch.zeros(1, 9, 3)  # log size, degrees, hue
pose[..., 0] = test.transformations[0].path(t.clamp(max=4))
pose[..., 1] = test.transformations[1].path((t - 4).clamp(min=0))
by_hand = upright.render(upright.images[[DIGIT]], pose)[0]
torch.testing.assert_close(by_hand, films[0], atol=1e-4, rtol=0)
print("first film: by hand = render_motion")
""")
md(r"""
**Figure 1.** True frames of five motions of one test digit, from 0/8 to 8/8 of each. Double speed takes four frames; every second column repeats.

**Finding.** The truth of a composed motion is one pose, made of the amounts of its parts: rendering it by hand gives the same film. That the order of scale and rotate can be forgotten here is no accident. Section 2 says when it can.

## 2 · The algebra of true motions

**Question.** Which transformations commute, and what does the order cost when they do not?

Each transformation of the plane is a one-parameter group: $M(a)M(b)=M(a+b)$ and $M(0)=I$ (lesson 03). Differentiate at $b=0$: $M'(a)=M(a)G$ with the **generator** $G=M'(0)$. Hence $M(a)=e^{aG}$. In homogeneous coordinates $(x,y,1)$ even a shift is a matrix.

Run $A$ for a short time $\varepsilon$ and then $B$. The later matrix stands on the left:

$$e^{\varepsilon B}e^{\varepsilon A}=I+\varepsilon(A+B)+\tfrac{\varepsilon^2}2\bigl(A^2+2BA+B^2\bigr)+O(\varepsilon^3).\tag{1}$$

*What the order costs.* Subtract (1) with $A$ and $B$ exchanged. All cancels but the mixed term: $e^{\varepsilon B}e^{\varepsilon A}-e^{\varepsilon A}e^{\varepsilon B}=\varepsilon^2[B,A]+O(\varepsilon^3)$.

*One motion instead of two.* Which $C$ has $e^C=e^{\varepsilon B}e^{\varepsilon A}$? Write (1) as $I+X$ and use $\log(I+X)=X-\tfrac12X^2+\dots$ The square is $X^2=\varepsilon^2(A^2+AB+BA+B^2)+O(\varepsilon^3)$, so

$$C=\varepsilon(A+B)+\tfrac{\varepsilon^2}2\bigl(2BA-AB-BA\bigr)+O(\varepsilon^3)=\varepsilon(A+B)+\tfrac{\varepsilon^2}2[B,A]+O(\varepsilon^3).$$

This is the **Baker–Campbell–Hausdorff formula** (BCH) to second order. All further terms are commutators of commutators. So if $[A,B]=0$, order does not matter for *any* duration, and "together" equals "one after the other".

**Predict first.** Of the ten pairs among scale, rotate, hue, translate (to the right) and shear (rows slide along $x$), which do *not* commute?

<details><summary>Answer</summary>
Three. Scale and rotate each with translate: a shift grows or turns when the picture does. Rotate with shear. Scale commutes with every linear map. Translate and shear both move rows along themselves. A colour map acts on each pixel whatever its place.
</details>
""")
code(r"""
a = torch.tensor(0.3).double()
for each in FIVE_TRANSFORMATIONS:
    G = datasets.generator_matrix(each)
    if each.matrix is not None:  # hue moves no pixel
        torch.testing.assert_close(torch.matrix_exp(a * G), each.matrix(a))
""")
code(r"""
frame = torch.tensor([0.0, 1.0]).double()
G = [datasets.generator_matrix(f) * f.path(frame).diff() for f in FIVE_TRANSFORMATIONS]
norms = torch.stack([torch.stack([(A @ B - B @ A).norm() for B in G]) for A in G])
torch.testing.assert_close(norms, datasets.commutator_norms(FIVE_TRANSFORMATIONS))
for i, j in torch.combinations(torch.arange(5)).tolist():
    both = f"{FIVE_TRANSFORMATIONS[i].name} and {FIVE_TRANSFORMATIONS[j].name}"
    print(f"{both:<20} norm of the commutator of one frame: {norms[i, j]:.3f}")
""", check=True)
code(r"""
def end(*order):
    images = upright.images[[DIGIT]]
    moved = datasets.TransformationSequences(images, FIVE_TRANSFORMATIONS)
    motion = Motion(tuple(Segment((k,), 8) for k in order))
    return render_motion(moved, torch.tensor([0]), motion)[0, -1]


chosen = [("scale", "rotate"), ("translate", "shear")]
chosen += [("rotate", "translate"), ("rotate", "shear")]
rows = [[upright.images[DIGIT], end(i, j), end(j, i)] for i, j in chosen]
rows = [[*row, (row[1] - row[2]).abs()] for row in rows]
gaps = [row[-1].sum() for row in rows]
labels = [f"{i}, {j}: L1 {gap:.0f}" for (i, j), gap in zip(chosen, gaps, strict=True)]
columns = ["start", "left first", "right first", "difference"]
images = torch.stack([torch.stack(row) for row in rows])
fig = plotting.image_grid(images, labels, columns, "", 1.0)
alt = "Two orders of four pairs: two end alike, rotate with translate or shear do not"
show(fig, "Two pairs end alike in both orders, two do not", alt)
""", hide=True)
md(r"""
**Figure 2.** Eight frames of one motion and then eight of the other, in both orders; true pictures.

**Finding.** Scale with rotate, and translate with shear, end alike: the differences are black. Rotate with translate or shear ends in other pictures. They are the pairs with a commutator that is not 0.

**How fast do such differences shrink?** We check the powers of $\varepsilon$ in all formulas above. Two more are rules for running two motions *together* with tools that know one at a time. Take turns: $(e^{B/n}e^{A/n})^n\to e^{A+B}$ (**Lie–Trotter**). By BCH each turn errs by $O(n^{-2})$ and there are $n$, so the error is $O(n^{-1})$. **Strang** puts half of $A$ on either side of $B$ and errs by $O(n^{-2})$ (Exercise 2).
""")
code(r"""
A, B, exp, power = 8 * G[1], 8 * G[3], torch.matrix_exp, torch.linalg.matrix_power
sizes, BA = [2.0**-n for n in range(1, 8)], B @ A - A @ B
errors = {name: [] for name in ("gap of orders", "gap - ε²[B, A]", "BCH, 1st order")}
errors |= {name: [] for name in ("BCH, 2nd order", "Lie-Trotter", "Strang")}
""")
code(r"""
for e in sizes:
    both, half = exp(e * B) @ exp(e * A), exp(e * A / 2)
    gap = both - exp(e * A) @ exp(e * B)
    bch = both - exp(e * (A + B)), both - exp(e * (A + B) + e**2 / 2 * BA)
    turns = [power(turn, round(1 / e)) for turn in (both, half @ exp(e * B) @ half)]
    found = gap, gap - e**2 * BA, *bch, *(turn - exp(A + B) for turn in turns)
    for own, value in zip(errors.values(), found, strict=True):
        own.append(value.norm().item())
for name, own in errors.items():
    print(f"{name:<15} order {math.log2(own[-2] / own[-1]):.1f}")
""", check=True)
code(r"""
fig, axes = plotting.figure(8.5, 2.9, 1, 2, sharey=True)
for i, (name, own) in enumerate(errors.items()):
    line(axes[int(i > 3)], sizes, own, i % 4, name)
for axis, what in zip(axes, ("ε", "1 ÷ n"), strict=True):
    axis.set(xscale="log", yscale="log", xlabel=what)
    axis.legend(frameon=False, fontsize=8)
axes[0].set_ylabel("Frobenius norm")
alt = "Straight lines of slopes two, three, two, three; and one, two; logarithmic axes"
title = "Every formula has the order that was derived: rotate by 80°, shift by 4 pixels"
show(fig, title, alt)
""", hide=True)
md(r"""
**Figure 3.** Left: the gap of the two orders, and BCH. Right: two ways of taking turns.

**Finding.** The measured orders are 2 and 3, 2 and 3, 1 and 2, as derived. The commutator explains the gap of the orders up to third order.

## 3 · The same for learned fields

**Question.** A learned flow is no matrix. Does the argument survive? It needs a Taylor expansion only. Go $\varepsilon$ along $v$ and then $\varepsilon$ along $w$, to $z+\varepsilon v(z)+\varepsilon w\bigl(z+\varepsilon v(z)\bigr)$. Subtract the other order:

$$\text{(first }v\text{)}-\text{(first }w\text{)}=\varepsilon^2\bigl[(Dw)v-(Dv)w\bigr]+O(\varepsilon^3)=:\varepsilon^2[v,w]+O(\varepsilon^3).$$

This is the **Lie bracket**. For $v=Az$, $w=Bz$ it is $(BA-AB)z$, the commutator of section 2. For gradients the derivatives are Hessians: $[\nabla u,\nabla\tilde u]=\nabla^2\tilde u\,\nabla u-\nabla^2u\,\nabla\tilde u$.

**Predict first.** Is the bracket of two gradients again a gradient? Try $\nabla u=Az$, $\nabla\tilde u=Bz$ with symmetric $A,B$.

<details><summary>Answer</summary>
No. It is (BA − AB)z, and (BA − AB)ᵀ = −(BA − AB): an antisymmetric matrix, a pure rotation, unless it vanishes. Two potential flows in turn do what no potential flow does.
</details>

We compute the bracket three ways on `digits-flow`, a pretrained model whose flows follow potentials.
""")
code(r"""
field, z = potential.flow.field, training_latents(potential, training, 60)[0, :, 0]


def velocity(k, field=field):
    return lambda x: field.velocity(x, 0.0, alone(k, x))


def along(w, v, z):  # (Dw) v: how w changes along v
    return torch.autograd.functional.jvp(w, z, v(z))[1]
""")
code(r"""
for i, j in pairs:
    v, w = velocity(i), velocity(j)
    bracket = along(w, v, z) - along(v, w, z)
    torch.testing.assert_close(bracket, metrics.lie_bracket(field, z, 0.0, i, j))
    H_i, H_j = (field.hessian(z, 0.0, alone(k, z)) for k in (i, j))
    turned = (H_j @ v(z)[..., None] - H_i @ w(z)[..., None])[..., 0]
    torch.testing.assert_close(bracket, turned, atol=1e-5, rtol=1e-4)
precise, x, e = copy.deepcopy(field).double(), z.double(), 1e-4
v, w = velocity(1, precise), velocity(2, precise)
first, other = x + e * v(x), x + e * w(x)
gap = (first + e * w(first) - other - e * v(other)) / e**2
torch.testing.assert_close(gap.float(), bracket, atol=1e-3, rtol=1e-2)
print("jvp = lie_bracket = Hessians = two small steps in both orders")
""")
md(r"""
Infinitesimals are one thing, pictures another. `order_gaps` moves by $i$ for four frames and by $j$ for four, then the other way round, and compares the last *pictures*. Scale, rotate and hue commute, so the true gap is 0. Beside the learned gap stands the error of the last frame: a gap that is small against the error would not matter.

As a reference we take the *linear step* of lesson 09: one affine map for each $k$, fitted to the encoder's means of training frames and iterated. It knows no clock.
""")
code(r"""
chosen = {"step": OPERATORS["linear step"]}
step = fit_operators(potential, training, chosen, images=500)["step"]


def gaps_of(model, operator, shown=None):
    shown = shown or test.first(60)
    return order_gaps(model, lambda z, m: follow(operator, z, m, shown.names), shown)
""")
code(r"""
gaps = {"its own flow": gaps_of(potential, potential)}
gaps["linear step"] = gaps_of(potential, step)
gaps["free flow"] = gaps_of(free, free)
for name, found in gaps.items():
    for i, j in pairs:
        gap, error = (0.5 * (m[i, j] + m[j, i]) for m in (found.learned, found.error))
        both = f"{names[i]}, {names[j]}"
        print(f"{name:<13} {both:<14} gap {gap:3.0f}, error {error:4.0f}")
""")
md(r"""
**Finding.** For the potential flow the two orders end 43 to 98 apart, more than half of the error of the picture. The free flow of section 6, with 7 to 44, and the linear step commute better. The truth knows no order, so the gap is pure error. How much does it cost?

> **Note.** A bracket grows with the speeds. To compare two models, choose the denominator that your question needs: `metrics.bracket_shares` divides by the two terms before they cancel, `order_gaps` looks at pictures.

## 4 · Five wishes, with numbers

**Question.** Each wish is measured beside its references: no motion is 1, and the floor is the price of coding.

**Predict first.** `digits-flow` is as good as its floor for single motions. Rank the wishes for it, from best to worst: double speed, switching, two at once, backwards, 16 frames.

<details><summary>Answer</summary>
Double speed, then 16 frames and switching, two at once, backwards. If you expected backwards to be the easiest, as a flow can be inverted exactly, you are in good company.
</details>

First one motion by hand, so that nothing in the table is magic: render, encode frame 0, follow, decode, compare.
""")
code(r"""
TRIED = {"single": TASKS["random starts"]}
TRIED |= {s: replace(TASKS[s], start="random") for s in ("half speed", "double speed")}
for name in ("switching", "two at once", "three at once", "backwards"):
    TRIED[name] = TASKS[f"random starts {name}"]
TRIED["16 frames"] = TASKS["random starts twice as long"]
""")
code(r"""
def tried(model, operators, images=60):  # task ↦ error ÷ no motion by operator
    rows = {}
    for name, task in TRIED.items():
        shown = task_sequences(task, "digits", "test", images)
        errors = measure_task(model, operators, task, shown)
        still = errors.pop("no motion")
        rows[name] = dict.fromkeys(errors, math.nan)  # for a flow that cannot go back
        for n, e in errors.items():
            if len(e) == len(still):
                rows[name][n] = mean(e[m] / still[m] for m in still)
    return rows
""")
code(r"""
shown = task_sequences(TRIED["switching"], "digits", "test", 60)
motion = tasks.switching(shown)[0]
true = render_motion(shown, torch.arange(60), motion, seeded())
path = follow(potential, potential.encode(true[:, 0]).mean, motion, names)
missed = (potential.decode(path).mean - true)[:, 1:].abs().sum() / 60
told = measure_task(potential, {"flow": potential}, TRIED["switching"], shown)
assert math.isclose(told["flow"][motion.name], missed, rel_tol=1e-3)
print(f"{motion.name}: {missed:.0f}, no motion {told['no motion'][motion.name]:.0f}")
""")
code(r"""
wishes = {"potential": tried(potential, {"linear step": step, "flow": potential})}
columns = "floor", "linear step", "flow", "flow in turn"
print(f"{'potential flow':<15}" + "".join(f"{name:>14}" for name in columns))
for name, row in wishes["potential"].items():
    cells = (f"{row[c]:14.2f}" if c in row else f"{'':14}" for c in columns)
    print(f"{name:<15}" + "".join(cells))
""")
md(r"""
**Finding.** Alone and at other speeds the flow is as good as its floor, or better: 0.38 against 0.41 for single motions. Composed it is not: 0.53 for switching (floor 0.43), 0.59 for two at once (0.39), 0.75 for three (0.42), 0.52 over 16 frames (0.38). Backwards it is worse than no motion, 1.13. The linear step, which a student writes in ten lines, stays near the floor everywhere. *In turn* means all of one motion and then all of the next: it does not help. So is the flow wrong about motion? The single row says no.

## 5 · Why? Half of a square was trained

**Question.** Equivariance is a commuting square: move the picture and encode it, or encode it and move the latent. The two should meet.

$$\begin{array}{ccc}x_0&\longrightarrow&x_t\\\downarrow\mu&&\downarrow\mu\\z_0&\longrightarrow&z_t\;\overset?=\;\mu(x_t)\end{array}$$

The objective of lesson 07 asks that $z_t$ *decodes* to $x_t$. Nothing asks that $z_t$ is where the *encoder* puts $x_t$. A second flow, trained from encoded pictures only, is then handed a point that it never saw. We measure the distance $\|z_T-\mu(x_T)\|$ in units of the way $\|\mu(x_T)-\mu(x_0)\|$.

A correlation is no cause, so we also *intervene*. At the switch between two flows we hand over (1) the latent as it is, (2) the latent decoded and encoded again, which uses nothing that the model does not have, (3) the code of the true frame. And we run the inverse flow from the end of its own path, or from the code of the last frame.
""")
code(r"""
def away(model, images=60):  # ‖z_T - μ(x_T)‖ ÷ ‖μ(x_T) - μ(x_0)‖ for each k
    found = []
    for k in range(K):
        batch = test.batch(torch.arange(images), k, generator=seeded())
        first, last = (model.encode(batch.frames[:, t]).mean for t in (0, T))
        z = model.rollout(first, batch.k, range(T + 1)).z[:, -1]
        found.append((z - last).norm(dim=1).mean() / (last - first).norm(dim=1).mean())
    return torch.stack(found)
""")
code(r"""
BRIDGES = {"passed on": lambda model, z, x: z}
BRIDGES["encoded anew"] = lambda model, z, x: model.encode(model.decode(z).mean).mean
BRIDGES["true code"] = lambda model, z, x: model.encode(x).mean


def ratio(found, true, start):
    return (found - true).abs().sum() / (start - true).abs().sum()
""")
code(r"""
def second_half(model, bridge, images=60):  # error after the switch, six motions
    found = []
    for motion in tasks.switching(test):
        true = render_motion(test, torch.arange(images), motion, seeded())
        y = [w.expand(images, K) for w in motion.weights(names)]
        first, second = motion.segments
        z = model.rollout(model.encode(true[:, 0]).mean, y[0], first.clock).z[:, -1]
        z = bridge(model, z, true[:, first.frames])
        late = true[:, first.frames + 1 :]
        path = model.rollout(z, y[1], second.clock).z[:, 1:]
        found.append(ratio(model.decode(path).mean, late, true[:, :1]))
    return torch.stack(found).mean().item()
""")
code(r"""
def way_back(model, own_end, images=60):  # error of the inverse flow
    found = []
    for k, motion in enumerate(tasks.each_alone(test)):
        true = render_motion(test, torch.arange(images), motion, seeded())
        z, y = model.encode(true[:, -1]).mean, torch.full((images,), k)
        if own_end:
            z = model.rollout(model.encode(true[:, 0]).mean, y, range(T + 1)).z[:, -1]
        try:
            path = model.rollout(z, y, range(T, -1, -1)).z[:, 1:]
        except NotInvertible:  # some step folds space
            return math.nan
        before = true[:, :-1].flip(1)
        found.append(ratio(model.decode(path).mean, before, true[:, -1:]))
    return torch.stack(found).mean().item()
""")
code(r"""
def interventions(model):
    found = {f"second flow, {n}": second_half(model, b) for n, b in BRIDGES.items()}
    found["back from its own end"] = way_back(model, True)
    return found | {"back from the code": way_back(model, False)}


far = away(potential).tolist()
print("away ÷ way:", ", ".join(f"{n} {x:.2f}" for n, x in zip(names, far, strict=True)))
for name, value in interventions(potential).items():
    print(f"{name:<28} {value:.2f}")
""")
