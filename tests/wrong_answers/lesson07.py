WRONG = {
    "translation_kl": [
        ("summed over latents", ".sum(-1)", ".mean(-1)"),
        ("expected shape", "horizon + 1", "horizon"),
        ("nothing has moved", "t * velocity", "velocity"),
        ("v = 1 + 2 D t", "2 * diffusion * t", "diffusion * t"),
        ("v = 1 + 2 D t", "v = 1 + 2 * diffusion * t", "v = (1 + 2 * diffusion * t) ** 2"),
        ("v = 1 + 2 D t", "- 1 - ratio.log()", "- 1 - scale[:, None].square().log() + 0 * v"),
        ("to N(0, I)", "scale[:, None].square()", "scale[:, None]"),
        ("mixed over the batch", "0.5 * (", "0.5 * (0 * mean.mean() + velocity.mean() * 0.1 * t[None] * diffusion + "),
        ("the mean at t is", "moved.square() / v", "mean[:, None].square() / v"),
    ],
    "both_proposals": [
        ("expected shape", "logsumexp(1)", "logsumexp((0, 1))"),
        ("log of the mean", "- math.log(2)", ""),
        ("log of the mean", " - math.log(log_weights.shape[1])", ""),
        ("log of the mean", "return log_weights.logsumexp(1)", "return log_weights.mean(1)"),
        ("every draw gives log c", "torch.logaddexp(log_q_a, log_q_b) - math.log(2)", "0.5 * (log_q_a + log_q_b)"),
        ("every draw gives log c", "log_joint - log_mixture", "log_joint - log_q_a"),
        (
            "every draw gives log c",
            "S = log_joint.shape[1] // 2\n"
            "w = torch.cat([(log_joint - log_q_a)[:, :S], (log_joint - log_q_b)[:, S:]], 1)\n"
            "return w.logsumexp(1) - math.log(2 * S)",
        ),
        (
            "underflow",
            "return (log_joint.exp() / (0.5 * log_q_a.exp() + 0.5 * log_q_b.exp())).mean(1).log()",
        ),
        ("log of the mean", "log_weights.shape[1]", "log_weights.numel()"),
    ],
    "mending": [
        ("expected shape", "return torch.tensor([40.0, 22.0, 4.0])"),
        ("positive", "return torch.tensor([[40.0, 1.5], [-22.0, 1.6], [4.0, 1.1]])"),
        ("not in latent units", "return torch.tensor([[3.0, 1.5], [2.0, 1.6], [1.0, 1.1]])"),
        ("share of the way that", "return torch.tensor([[40.0, 9.0], [22.0, 8.0], [4.0, 3.0]])"),
        ("order of rows", "return torch.tensor([[40.0, 1.5], [4.0, 1.1], [22.0, 1.6]])"),
        ("hardly fall", "return torch.tensor([[40.0, 1.5], [22.0, 0.6], [4.0, 1.1]])"),
    ],
}
