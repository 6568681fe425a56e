WRONG = {
    "best_spike": [
        ("same shape", "(saving / weight", "(saving.mean() / weight"),
        ("a probability", "torch.sigmoid", ""),
        ("keeps the prior share", " + math.log(activity / (1 - activity))", ""),
        ("keeps the prior share", "activity / (1 - activity)", "activity"),
        ("keeps the prior share", "return (saving > weight * math.log((1 - activity) / activity)).double()"),
        ("mind the sign", "saving / weight", "-saving / weight"),
        ("is the KL weighted", "saving / weight", "saving"),
        ("activity is an argument", "return torch", "activity = 0.2\n    return torch"),
        ("keeps the prior share", "math.log(activity / (1 - activity))", "math.log10(activity / (1 - activity))"),
    ],
    "isometry": [
        ("expected shape", "U @ Vh", "start @ (U @ Vh).T"),
        ("no least squares alone", "U @ Vh", "torch.linalg.lstsq(start, end).solution.T"),
        ("must be orthogonal", "U @ Vh", "end.T @ start"),
        ("Is it transposed", "U @ Vh", "(U @ Vh).T"),
        ("from end to start", "end.T @ start", "start.T @ end"),
        ("Reflections", "U @ Vh", "torch.cat([U[:, :-1], U[:, -1:] * torch.det(U @ Vh)], 1) @ Vh"),
        ("is the identity", "U @ Vh", "torch.linalg.qr(torch.randn(4, 4, dtype=start.dtype)).Q"),
        ("is the identity", "U @ Vh", "torch.linalg.qr(end.T @ start).Q"),
    ],
    "gradients_alone": [
        ("expected shape", "return torch.tensor([1.0, 0.4])"),
        ("a share", "return torch.tensor([[100.0, 0.33], [100.0, 0.4]])"),
        ("divided by that of no motion", "return torch.tensor([[1.0, 330.0], [1.0, 400.0]])"),
        ("the first row", "return torch.tensor([[0.5, 1.2], [1.0, 0.4]])"),
        ("try another seed", "return torch.tensor([[1.0, 0.33], [0.6, 0.7]])"),
        ("the claim stands", "return torch.tensor([[1.0, 0.33], [1.0, 1.3]])"),
    ],
}
RIGHT = {"isometry": ("W, _, Vh = torch.linalg.svd(start.T @ end)\nreturn (W @ Vh).T",)}
