SERIES = """term = total = torch.eye(len(A), dtype=A.dtype)
for n in range(1, 40):
    term = term @ A * a / n
    total = total + term
return total"""
LINE = 'torch.nn.functional.pad(u.square(), (reach, reach), mode="replicate").unfold(-1, neighbours, 1).sum(-1)'
WRONG = {
    "group_element": [
        ("entry by entry", "return (a * A).exp()"),
        ("sign", "a * A", "-a * A"),
        ("transpose", "a * A", "a * A.T"),
        ("factorial", "torch.linalg.matrix_exp(a * A)", "torch.eye(len(A)) + a * A"),
        ("factorial", SERIES.replace(" / n", "")),
        ("starts with I", "return torch", "return -torch.eye(len(A)) + torch"),
        ("generator A itself", "a * A", "2 * a * A"),
        ("more terms", SERIES.replace("40", "9")),
    ],
    "equivariance_error": [
        ("Frame 0", "[:, 1:]", ""),
        ("sum over pixels", ".flatten(1).sum(1).mean()", ".mean()"),
        ("average over sequences only", ".flatten(1).sum(1).mean()", ".sum()"),
        ("and frames, average", ".flatten(1).sum(1)", ".flatten(2).sum(2)"),
        ("before any sum", ".abs().flatten(1).sum(1)", ".flatten(1).sum(1).abs()"),
        ("norm is L1", ".abs()", ".square()"),
        ("sum over pixels", ".abs().flatten(1).sum(1)", ".flatten(2).norm(dim=2).sum(1)"),
        ("shape ()", ".mean()", ""),
    ],
    "ridge_map": [
        ("towards I, not 0", "/ len(x) + ridge * identity).T", "/ len(x)).T"),
        ("not a sum", "/ len(x)", ""),
        ("transpose", "identity).T", "identity)"),
        ("mean z_t - A mean z_0", "A @ z0.mean(0)", "z0.mean(0)"),
        ("mean z_t - A mean z_0", "(zt.mean(0) - A @ z0.mean(0))", "(0 * zt.mean(0))"),
        ("not squared", "x, y =", "ridge = ridge**2\n    x, y ="),
        ("must be recovered", "x, y =", "z0, zt = zt, z0\n    x, y ="),
        ("does not touch b", "zt.mean(0) - A @ z0.mean(0)", "(zt.mean(0) - A @ z0.mean(0)) / (1 + ridge)"),
        ("expected shape", "return torch.cat([A, (zt.mean(0) - A @ z0.mean(0))[:, None]], 1)", "return A"),
    ],
    "capsule_code": [
        ("not a sum", " / neighbours", ""),
        ("then the root", "shared.sqrt()", "shared"),
        ("before the division", "(z + mu) / shared.sqrt()", "mu + z / shared.sqrt()"),
        ("μ is added", "(z + mu)", "z"),
        ("s = z / 2", "/ shared", "* shared"),
        ("damp the places", "u.square()", "u.abs()", "shared.sqrt()", "shared"),
        ("a circle", "sum(u.square().roll(i, -1) for i in range(-reach, reach + 1))", LINE),
        ("centred", "range(-reach, reach + 1)", "range(neighbours)"),
        ("one neighbour", "shared.sqrt()", "u.square().mean(-1, keepdim=True).sqrt()"),
        ("not samples", "shared.sqrt()", "(shared if neighbours < 4 else shared.mean(0)).sqrt()"),
    ],
}
