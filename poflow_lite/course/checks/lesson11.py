"""Checks of lesson 11, ablations and cost: equality of ratios, a small determinant, exponents of memory."""

import math

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from poflow_lite.course.checks.exercise import Claims, Exercise, Function, doubles, normal, uniform


@Exercise
def equivalent(f: Function) -> Claims:
    """f(values (V, n), references (V, n), limit, critical) -> booleans (V,): is the ratio shown to be within limits?"""
    noise = doubles(-1, 0, 1)  # of three pairs: mean 0, standard deviation 1
    references = 100 + 5 * normal(2, 3)
    ratios = torch.stack([1 + 0.001 * noise, 1 + 0.2 * noise])
    found = f(references * ratios, references, 1.05, 2.92)
    yield found, (2,), "It is one verdict for each variant, (V,)"
    hint = (
        "Ratios of 0.999, 1, 1.001 are within 1.05, however the references differ: ratios in pairs, then their spread"
    )
    yield found[0], 1, hint
    hint = "Ratios of 0.8, 1, 1.2 are not shown to be within 1.05: an interval that is wide is no proof of equality"
    yield found[1], 0, hint
    hint = """Ratios of 1.019, 1.02, 1.021 are all above 1 and yet within 1.05: equal within the limits. The tests ask
        nothing about 1: different and negligible do not exclude each other"""
    small = torch.stack([1.02 + 0.001 * noise, 0.98 + 0.001 * noise])
    yield f(references * small, references, 1.05, 2.92), [1, 1], hint
    hint = "Ratios near 1.3 and near 0.7 are outside 1.25 and 1/1.25, however sure: both borders count"
    far = torch.stack([1.3 + 0.001 * noise, 0.7 + 0.001 * noise])
    yield f(references * far, references, 1.25, 2.92), [0, 0], hint
    hint = "On the scale of ratios the lower border is 1/limit, 0.8 for 1.25: 0.79 is outside, 0.81 and 1.24 are inside"
    border = torch.stack([0.79 + 0.0001 * noise, 0.81 + 0.0001 * noise, 1.24 + 0.0001 * noise])
    yield f(border, torch.ones(3, 3).double(), 1.25, 2.92), [0, 1, 1], hint
    reach = 2.92 / math.sqrt(3)  # for log ratios with a standard deviation of 1, in units of it
    unit = math.log(1.1) / reach
    logs = torch.stack([0.97 * unit * noise, 1.03 * unit * noise]).exp()
    hint = "The reach is critical · σ/√n: the deviation with n - 1, divided by √n once, times `critical`"
    yield f(logs, torch.ones(2, 3).double(), 1.1, 2.92), [1, 0], hint
    few, many = f(logs[:1], torch.ones(1, 3).double(), 1.1, 4.3), f(logs[1:], torch.ones(1, 3).double(), 1.1, 1.0)
    yield torch.cat([few, many]), [0, 1], "The quantile is an argument: a larger one asks for more proof"
    draws = (math.log(1.2) + 0.02 * normal(4000, 3, seed=1)).exp()  # the truth lies on the border
    share = f(draws, torch.ones(4000, 3).double(), 1.2, 2.919986).double().mean()
    yield abs(share - 0.05) < 0.015, f"With the truth on the border {share:.1%} are called equal, where 5 % may be"
    return f"errs in {share:.1%} of 4,000 studies whose true ratio lies on the border"


@Exercise
def small_determinant(f: Function) -> Claims:
    """f(weight (m, d), bend (B, m)) -> (B,): log |det(I + Wᵀ diag(bend) W)| by m × m determinants, nats."""
    weight, bend = normal(3, 5), 0.1 + 0.3 * uniform(4, 3)
    found = f(weight, bend)
    yield found, (4,), "It is a number for each point"
    hint = "Without bend the matrix is I, and log det I = 0: is the identity added, and the logarithm taken?"
    yield f(weight, 0 * bend), [0.0] * 4, hint
    hint = "For one hidden unit det(I + b w wᵀ) = 1 + b ‖w‖²: bend enters once, not squared, nor its root"
    yield f(weight[:1], bend[:, :1]), (1 + bend[:, 0] * weight[0].square().sum()).log(), hint
    whole = torch.eye(5) + torch.einsum("ji,bj,jk->bik", weight, bend, weight)
    hint = "It must equal the d × d determinant: I + D W Wᵀ, D = diag(bend) of each point; diag(W Wᵀ) is not W Wᵀ"
    yield found, whole.logdet(), hint
    hint = "Where the determinant is negative its absolute value counts: slogdet(…).logabsdet"
    yield f(weight, doubles([-3.0, 0.0, 0.0])), (3 * weight[0].square().sum() - 1).log()[None], hint
    kept: list[int] = []
    wide = (normal(2, 400) / 20).requires_grad_()
    with (
        FlopCounterMode(display=False) as counter,
        saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x),
    ):
        f(wide, bend[:, :2])
    products = counter.get_total_flops() / 2
    hint = f"For d = 400, m = 2 it took {products:,.0f} multiplications, as many as building d × d; W Wᵀ takes 1,600"
    yield products < 400**2, hint
    hint = f"For d = 400 it kept an array of {max(kept, default=0):,} numbers: that is d × d, built without a product"
    yield max(kept, default=0) < 400**2, hint
    return "needs no d × d matrix"


@Exercise
def memory_exponents(f: Function) -> Claims:
    """f() -> (2, 2): exponents of the memory kept for the backward pass; rows A, B, columns against d, against T."""
    found = f().double()
    yield found, (2, 2), "Rows: A, B. Columns: against d, against T"
    (d_with, t_with), (d_without, t_without) = found
    yield (found > 0).all(), "Memory grows with d and with T under both readings"
    hint = f"Under A d × d matrices are kept at T B points: against d about 2, a little less; you have {d_with:.2f}"
    yield 1.6 < d_with < 2.1, hint
    hint = f"""Under B no matrix is kept for a point, only latents and the weights: against d about 1; you have
        {d_without:.2f}. Was `log_det` read, or the Jacobian built?"""
    yield 0.8 < d_without < 1.4, hint
    yield d_with > t_with, "Under A d costs more than T does: are the columns in order?"
    hint = "Against T memory grows in proportion at most: the weights are kept whatever T"
    yield max(t_with, t_without) < 1.05, hint
    yield t_with > t_without, "Under A almost all that is kept belongs to the T B points, under B much to the weights"
    return "shows that the matrices of the density are what fills the memory"
