PAIRWISE = """root = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
squared = (covariance / root[..., None] / root[..., None, :]).square()
return -0.5 * torch.log1p(-squared.tril(-1)).sum((-2, -1))"""
WRONG = {
    "mig": [
        ("its own entropy", " / entropies", ""),
        ("not the sum", ".mean()", ".sum()"),
        ("expected shape", ".mean()", ""),
        ("its own entropy", "((first - second) / entropies).mean()", "(first - second).sum() / entropies.max() / 2"),
        ("each gap has its own entropy", "return", "return (first - second).sum() / entropies.sum()\n    return"),
        ("each gap has its own entropy", "/ entropies)", "/ entropies.mean())"),
        ("second best", "first - second", "first"),
        ("latents are the rows", "information.topk(2, 0).values", "information[:3].topk(2, 1).values.unbind(1)"),
        ("second best", "first - second", "first - information.min(0).values"),
        ("must score 1", "first - second", "second - first"),
    ],
    "gaussian_total_correlation": [
        ("divide the variances out", "variances.log().sum(-1)", "0"),
        ("sign", "0.5 *", "-0.5 *"),
        ("factor ½", "0.5 *", ""),
        ("divide the variances out", "variances.log()", "variances.sqrt().log()"),
        ("expected shape", "return 0.5 * (", "return 0.5 * torch.sum("),
        ("factor ½", "0.5 *", "0.5 / len(covariance) *"),
        ("pair by pair", PAIRWISE),
    ],
    "slow_transition_kl": [
        ("sum over them", ".sum(-1)", ".mean(-1)"),
        ("one value for each sample", ".sum(-1)", ".sum(-1).mean()"),
        ("summed over latents", ".sum(-1)", ""),
        ("is the entropy", " - entropy", ""),
        ("is the entropy", "- entropy", "+ entropy"),
        ("log(λ/2)", "math.log(rate / 2)", "math.log(1 / 2)"),
        ("λ in front", "d = mean", "rate = 1 / rate\n    d = mean"),
        ("folded normal", "rate * distance", "rate * d.abs()"),
        ("same step down", "rate * distance", "rate * d"),
    ],
    "rotated_log_density": [
        ("turn z' back", "@ rotation", "@ rotation.T"),
        ("turn z' back", "z_rotated @ rotation", "z_rotated", "z - mean", "z - mean @ rotation.T"),
        ("turn z' back", "z_rotated @ rotation", "z_rotated"),
        ("unrotated posterior", "z - mean", "z - mean @ rotation.T"),
        ("summed over latents", ".sum(-1)", ".mean(-1)"),
        ("expected shape", ".sum(-1)", ""),
        ("standard deviation", "/ scale", "/ scale.sqrt()"),
        ("log σ", " + scale.log() + 0.5 * math.log(2 * math.pi)", ""),
    ],
}
