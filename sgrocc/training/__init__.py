"""Training in torch and Lightning: samples, losses, stages, ablations."""
