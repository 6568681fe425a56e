WRONG = {
    "map_1d": [
        ("argsort of the argsort", "return target"),
        ("in the order of `source`", "[rank]", ""),
        ("inverse permutation", ".argsort().argsort()", ".argsort()"),
        ("sorted images", "target.sort().values", "target"),
        ("most expensive", "target.sort()", "target.sort(descending=True)"),
        ("exactly one source", "return source + target.mean() - source.mean()"),
        ("exactly one source", "return target[(source[:, None] - target).abs().argmin(1)]"),
        ("one image for each", "[rank]", "[rank, None]"),
    ],
    "sinkhorn_divergence": [
        ("a scalar tensor", ".sum()\n\n", ".sum(1)\n\n"),
        ("at 0 from itself", "entropic(x, y) - entropic(x, x) / 2 - entropic(y, y) / 2", "entropic(x, y)"),
        ("at 0 from itself", " - entropic(y, y) / 2", ""),
        ("at 0 from itself", "entropic(x, x) / 2 - entropic(y, y) / 2", "entropic(x, x) - entropic(y, y)"),
        ("The ½ of C", ".square() / 2", ".square()"),
        ("The ½ of C", ".square() / 2", ""),
        ("torch.logsumexp", "torch.logsumexp((g - C) / epsilon, 1)", "((g - C) / epsilon).exp().sum(1).log()"),
        ("never negative", "entropic(x, y) - entropic(x, x) / 2 - entropic(y, y) / 2",
         "(entropic(x, x) + entropic(y, y)) / 2 - entropic(x, y)"),
        ("OT_ε is Σ P C + ε KL", "C + epsilon * log_ratio", "C"),
        ("OT_ε is Σ P C + ε KL", "C + epsilon * log_ratio", "C + log_ratio.exp() * 0 - epsilon * log_ratio"),
    ],
    "penalty": [
        ("Rows: λ", "torch.tensor([[", "torch.tensor([0.0, 1.0, 30.0]) or torch.tensor([["),
        ("Benamou-Brenier", "return", "return 0.3 *"),
    ],
}  # fmt: skip
