"""Training: the loop, optimizers, settings, the run folder and the log."""
