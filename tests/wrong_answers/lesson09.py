WRONG = {
    "share_of_way": [
        ("expected shape", "return torch.where(still > floor, share, torch.nan)", "return share.mean()"),
        ("whole way", "(still - error) / (still - floor)", "1 - error / still"),
        ("no way at all", "(still - error) / (still - floor)", "(error - floor) / (still - floor)"),
        ("no way at all", "(still - error) / (still - floor)", "floor / error"),
        ("whole way", "(still - error) / (still - floor)", "(still - error) / (still - floor).mean()"),
        ("a way of its own", "(still - error) / (still - floor)", "((still - error) / (still - floor)) ** 2"),
        ("neither clamp", "(still - floor)", "(still - floor)\n    share = share.clamp(0, 1)"),
        ("neither clamp", "(still - error)", "(still - error).abs()"),
        ("NaN there", "torch.where(still > floor, share, torch.nan)", "share"),
        ("NaN there", "torch.nan", "0.0"),
    ],
    "sign_flip": [
        ("expected shape", ".double().mean()\n", ".double()\n"),
        ("never 0", "means >= (1 - 1e-9) * values.mean().abs()", "means > values.mean().abs() + 1e-12"),
        (
            "both sides",
            ".abs()\n    return (means >= (1 - 1e-9) * values.mean().abs())",
            "\n    return (means >= values.mean() - 1e-9)",
        ),
        ("p = 1", "(1 - 1e-9) * values.mean().abs()", "(1 - 1e-9) * values.abs().mean()"),
        (
            "each pattern once",
            "bits = torch.arange(2**n)[:, None] >> torch.arange(n) & 1",
            "bits = torch.randint(2, (4096, n))",
        ),
        ("Mind rounding", "(1 - 1e-9) * values.mean().abs()", "values.mean().abs() - 1e-9"),
    ],
    "own_model": [
        ("expected shape", "return torch.tensor([[0.58, 0.60], [0.63, 0.65]])"),
        ("errors ÷ no motion", "return torch.tensor([[580.0, 600.0, 1030.0], [630.0, 650.0, 1030.0]])"),
        ("the last column", "return torch.tensor([[1.03, 0.60, 0.58], [1.03, 0.65, 0.63]])"),
        ("so the floor comes first", "return torch.tensor([[0.70, 0.60, 1.03], [0.90, 0.65, 1.03]])"),
        ("300 steps", "return torch.tensor([[0.82, 0.83, 1.07], [0.90, 0.91, 1.07]])"),
        ("Was the weight passed", "return torch.tensor([[0.58, 0.60, 1.03], [0.58, 0.60, 1.03]])"),
        ("the second row", "return torch.tensor([[0.58, 0.70, 1.03], [0.63, 0.68, 1.03]])"),
        ("the same images", "return torch.tensor([[0.30, 0.60, 1.03], [0.35, 0.65, 1.03]])"),
    ],
}
RIGHT = {
    "sign_flip": (
        "signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * len(differences)).double()\n"
        "signs = signs.view(-1, len(differences))\n"
        "sums = (signs @ differences.double()).abs()\n"
        "return (sums >= differences.double().sum().abs() * (1 - 1e-9)).double().mean()",
    )
}
