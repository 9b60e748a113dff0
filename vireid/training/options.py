"""Options of the loop: how a training is carried out, whatever it trains. Imports no torch."""

from __future__ import annotations

from typing import Literal

from vireid.declaration import Count, Index, settings


@settings
class LoopOptions:
    """Seed, precision, log and resumption of one training."""

    seed: Index = 0
    """Seed of all random draws."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward pass."""
    compile: bool = False
    """Compile the network with torch.compile."""
    resume: bool = False
    """Continue the run in its folder (--run), with its own settings; more epochs may be given."""
    log_every: Count = 10
    """Iterations from one record of the log to the next."""
    tensorboard: bool = False
    """Also write a TensorBoard log."""
    wandb: bool = False
    """Also log to W&B (WANDB_MODE=offline: into the run folder)."""
    mlflow: bool = False
    """Also log to MLflow (MLFLOW_TRACKING_URI; by default into the run folder)."""
    progress: bool = True
    """Show progress bars."""
