WRONG = {
    "equivalent": [
        (
            "nothing about 1",
            "return change.mean(1).abs() + reach < math.log(limit)",
            "low, high = change.mean(1) - reach, change.mean(1) + reach\n"
            "    return (low < 0) & (0 < high) & (-math.log(limit) < low) & (high < math.log(limit))",
        ),
        ("no proof of equality", "return", "return change.mean(1).abs() < reach\n    return"),
        ("no proof of equality", "change.mean(1).abs() + reach <", "change.mean(1).abs() - reach <"),
        ("no proof of equality", " + reach", ""),
        ("both borders count", ".abs()", ""),
        (
            "the lower border is 1/limit",
            "(values / references).log()",
            "values / references - 1",
            "math.log(limit)",
            "limit - 1",
        ),
        ("ratios in pairs", "change.std(1)", "(values.log().var(1) + references.log().var(1)).sqrt()"),
        ("divided by √n once", " / math.sqrt(change.shape[1])", ""),
        ("divided by √n once", "math.sqrt(change.shape[1])", "change.shape[1]"),
        ("with n - 1", "change.std(1)", "change.std(1, correction=0)"),
        ("is an argument", "critical *", "2.92 *"),
        ("for each variant", "return", "return change.mean().abs() < 1\n    return"),
    ],
    "small_determinant": [
        (
            "as many as building",
            "return torch.linalg.slogdet(torch.eye(weight.shape[1]) + (weight.T * bend[:, None]) @ weight)[1]",
        ),
        (
            "built without a product",
            "outer = weight[None, :, :, None] * bend[:, :, None, None] * weight[None, :, None, :]\n"
            "return (torch.eye(weight.shape[1]).to(weight) + outer.sum(1)).slogdet().logabsdet",
        ),
        ("the logarithm taken", "slogdet(", "det(", ".logabsdet", ".abs()"),
        ("absolute value", "torch.linalg.slogdet(", "torch.logdet(", ".logabsdet", ""),
        ("identity added", "eye +", "0 +"),
        ("1 + b", "return (bend * weight.square().sum(1)).sum(1)"),
        ("is not W Wᵀ", "weight @ weight.T", "(weight @ weight.T).diag().diag()"),
        ("not squared", "bend[:, :, None]", "bend[:, :, None].square()"),
        ("enters once", "bend[:, :, None]", "bend[:, :, None].mean(0, keepdim=True).expand(len(bend), -1, 1)"),
        ("enters once", "return torch", "return -torch"),
        ("each point", ".logabsdet", ".logabsdet.sum()"),
    ],
    "memory_exponents": [
        ("about 2, a little less", "1.87", "1.06"),
        ("Was `log_det` read", "1.06", "1.85"),
        ("about 2, a little less", "[[1.87, 0.73], [1.06, 0.28]]", "[[0.73, 1.87], [0.28, 1.06]]"),
        ("in proportion at most", "0.73", "1.2"),
        ("almost all that is kept", "0.73", "0.2"),
        ("with d and with T", "0.28", "0.0"),
        ("Rows: A, B", "[[1.87, 0.73], [1.06, 0.28]]", "[1.87, 0.73, 1.06, 0.28]"),
    ],
}
RIGHT = {
    "equivalent": [
        "change = (values / references).log()",
        "change = values.log() - references.log()",
        "return change.mean(1).abs() + reach < math.log(limit)",
        "low, high = (change.mean(1) - reach).exp(), (change.mean(1) + reach).exp()\n"
        "    return (1 / limit < low) & (high < limit)",
    ],
}
