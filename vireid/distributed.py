"""Several processes by torchrun: gather rows, average gradients, share batch statistics; the identity in one process.

Every rank r minimizes its own loss L_r and `Optimizers.step` averages the gradients, so together the ranks minimize
mean_r L_r. `gather` and `SyncBatchNorm` sum the gradients over ranks on the way back, which makes that average equal to
the gradient that one process with the whole batch would compute:
    gathered loss, the same on all ranks:   1/W sum_r (sum_s dL_s/dx_r) dx_r/dw = sum_r dL/dx_r dx_r/dw
    loss over own rows only:                1/W sum_r dL_r/dw                   = d(mean over all rows)/dw
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vireid.errors import ArgumentError


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if _running() else 0


def world() -> int:
    """Number of processes; 1 without torchrun."""
    return dist.get_world_size() if _running() else 1


def is_main() -> bool:
    """Whether this process is the one that writes files and prints."""
    return rank() == 0


def start(device: str | torch.device = "cpu") -> torch.device:
    """Join the processes that torchrun started and return this one's device; without torchrun `device` comes back.

    Raises ValueError where there are more processes than GPUs.
    """
    device = torch.device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    local = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ArgumentError(
                f"torchrun started process {local} on this machine, which has {torch.cuda.device_count()} GPUs; "
                f"pass --nproc-per-node={torch.cuda.device_count()}"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if not _running():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return device


def stop() -> None:
    """Leave the group of processes."""
    if _running():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for every rank."""
    if world() > 1:
        dist.barrier()


def gather(x: Tensor) -> Tensor:
    """Rows of all ranks, (n, ...) -> (sum of n over ranks, ...), in rank order.

    Differentiable: the gradient is summed over ranks and each rank receives the part of its own rows. Ranks may hold
    different numbers of rows. In one process `x` itself comes back.
    """
    if world() == 1:
        return x
    counts = [int(c) for c in _all_gather(torch.tensor([len(x)], device=x.device))]
    return _Gather.apply(x, counts)  # pyright: ignore[reportReturnType]


def any_rank(flag: bool, device: torch.device | str = "cpu") -> bool:
    """Whether `flag` holds on at least one rank."""
    if world() == 1:
        return flag
    seen = torch.tensor([int(flag)], device=device)
    dist.all_reduce(seen, dist.ReduceOp.MAX)
    return bool(seen)


def mean(values: Sequence[float], device: torch.device | str = "cpu") -> list[float]:
    """Each value averaged over ranks."""
    if world() == 1 or not values:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return (total / world()).tolist()


def gather_objects(value: Any) -> list[Any]:
    """`value` of every rank, in rank order."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def copy_from_main(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    if world() > 1:
        with torch.no_grad():
            for value in module.state_dict().values():
                sent = value.contiguous()  # weights in channels_last order are not
                dist.broadcast(sent, 0)
                value.copy_(sent)


def average_gradients(params: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over ranks; a rank without a gradient that another rank has counts as zero."""
    if world() == 1:
        return
    kinds: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
    for p in params:
        kinds.setdefault((p.dtype, p.device), []).append(p)
    for group in kinds.values():
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
        present = torch.tensor([float(p.grad is not None) for p in group], dtype=grads[0].dtype, device=grads[0].device)
        flat = torch.cat([*(g.reshape(-1) for g in grads), present])  # one transfer for all of them
        dist.all_reduce(flat)
        *parts, present = flat.split([*(g.numel() for g in grads), len(group)])
        for p, part, ranks in zip(group, parts, present.tolist(), strict=True):
            if ranks:
                p.grad = (part / world()).view_as(p)


class SyncBatchNorm(_BatchNorm):
    """BatchNorm1d, 2d or 3d whose batch statistics are those of all ranks; works on the CPU, which torch's own refuses.

    Parameters, buffers and running statistics are those of nn.BatchNorm. With n_r values per channel, mean m_r and
    biased variance v_r on rank r (Chan et al., 1979):
        n = sum n_r,   m = sum n_r m_r / n,   v = sum n_r (v_r + (m_r - m)^2) / n,   y = (x - m) / sqrt(v + eps) w + b
    and the running variance takes the unbiased v n / (n - 1).
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ArgumentError(f"batch normalization takes (N, C, ...), got shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> (N, C, ...); equals nn.BatchNorm in one process and in evaluation."""
        own_statistics = not self.training and self.running_mean is not None
        if world() == 1 or own_statistics:
            return super().forward(input)
        self._check_input_dim(input)
        x = input if input.dtype == torch.float64 else input.float()
        count, mean, variance = self._statistics(x)
        if self.training and self.running_mean is not None:
            self._follow(count, mean.detach(), variance.detach())
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        shape = (1, -1, *[1] * (x.dim() - 2))
        return torch.addcmul(shift.view(shape), x, scale.view(shape)).to(input.dtype)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values per channel (scalar), mean (C,) and biased variance (C,) over all ranks."""
        n = x.numel() // x.shape[1]
        dims = [0, *range(2, x.dim())]
        if n:
            variance, mean = torch.var_mean(x, dims, correction=0)
        else:  # a rank without rows takes part with weight 0
            variance = mean = x.sum(dims)
        local = torch.cat([mean.new_tensor([float(n)]), mean, variance])[None]
        ranks = _Gather.apply(local, [1] * world())
        counts, means, variances = ranks.split([1, x.shape[1], x.shape[1]], 1)  # pyright: ignore[reportAttributeAccessIssue]
        count = counts.sum().detach()
        mean = (counts * means).sum(0) / count
        return count, mean, (counts * (variances + (means - mean).square())).sum(0) / count

    @torch.no_grad()
    def _follow(self, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # momentum None means the plain average over all batches so far, as in nn.BatchNorm
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = variance * (count / (count - 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def convert_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm inside `module` by SyncBatchNorm with the same parameters, buffers and state-dict keys.

    The parameters stay the same objects, so optimizers built before still hold them.
    """
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        sync = SyncBatchNorm(module.num_features, module.eps, module.momentum, False, False)
        sync.affine, sync.track_running_stats = module.affine, module.track_running_stats
        sync._parameters, sync._buffers, sync.training = module._parameters, module._buffers, module.training
        return sync
    for name, child in module.named_children():
        converted = convert_batchnorm(child)
        if converted is not child:
            setattr(module, name, converted)
    return module


def _running() -> bool:
    return dist.is_available() and dist.is_initialized()


def _all_gather(x: Tensor) -> list[Tensor]:
    """Equal-shaped tensors of all ranks."""
    parts = [torch.empty_like(x) for _ in range(world())]
    dist.all_gather(parts, x.contiguous())
    return parts


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        sent = x.to(torch.uint8) if x.dtype == torch.bool else x
        longest = max(counts)
        if len(x) < longest:  # ranks exchange equal shapes, so the shorter ones are padded
            sent = torch.cat([sent, sent.new_zeros(longest - len(x), *x.shape[1:])])
        parts = _all_gather(sent)
        return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)]).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total.split(ctx.counts)[rank()], None
