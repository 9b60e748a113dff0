"""What two processes of vireid/distributed.py gather and average equals one process on all rows."""

import torch
from torch import nn

from vireid import distributed
from vireid.distributed import convert_batchnorm


def compare_in_two_processes() -> None:
    """Compare with the same computation on all rows, which every rank can do by itself.

    Called in each process of the launch in training/test_loop.py, because a launch takes seconds.
    """
    rank = distributed.rank()
    torch.manual_seed(0)
    rows = torch.randn(7, 4, 3, 2, dtype=torch.float64) * 3 + 10
    own = slice(0, 3) if rank == 0 else slice(3, 7)  # unequal on purpose

    x = torch.arange(14.0, dtype=torch.float64).view(7, 2).requires_grad_()
    part = x.detach()[own].requires_grad_()
    together = distributed.gather(part)
    assert torch.equal(together, x)
    ((together**2).sum() * (1 + rank)).backward()
    assert torch.equal(part.grad, (2 * x.detach() * 3)[own])  # both ranks' gradients, 1 + 2 times
    assert distributed.gather(torch.tensor([rank == 0] * (1 + rank))).tolist() == [True, False, False]
    assert distributed.gather(torch.tensor([rank])).tolist() == [0, 1]

    for momentum in (0.1, None):
        for x in (rows, rows[:, :, 0, 0]):
            kind = nn.BatchNorm2d if x.dim() == 4 else nn.BatchNorm1d
            one = kind(4, momentum=momentum).double()
            nn.init.normal_(one.weight)
            nn.init.normal_(one.bias)
            two = convert_batchnorm(nn.Sequential(kind(4, momentum=momentum).double()))[0]
            two.load_state_dict(one.state_dict())
            for _ in range(3):
                full, half = x.clone().requires_grad_(), x[own].clone().requires_grad_()
                weight = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
                a, b = one(full), two(half)
                torch.testing.assert_close(b, a[own], rtol=1e-12, atol=1e-12)
                one.zero_grad()
                two.zero_grad()
                (a * weight).sum().backward()
                (b * weight[own]).sum().backward()
                torch.testing.assert_close(half.grad, full.grad[own], rtol=1e-10, atol=1e-12)
                distributed.average_gradients(two.parameters())
                torch.testing.assert_close(two.weight.grad * 2, one.weight.grad, rtol=1e-10, atol=1e-12)
                torch.testing.assert_close(two.bias.grad * 2, one.bias.grad, rtol=1e-10, atol=1e-12)
            for name, value in one.state_dict().items():
                torch.testing.assert_close(two.state_dict()[name], value, rtol=1e-12, atol=1e-12)
            assert torch.equal(two.eval()(x[own]), nn.Module.eval(two)(x)[own])

    a, b, c = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    a.grad = torch.tensor([2.0, 4.0]) * (1 + rank)
    b.grad = torch.tensor([6.0, 8.0]) if rank == 1 else None
    distributed.average_gradients([a, b, c])
    assert a.grad.tolist() == [3.0, 6.0] and b.grad.tolist() == [3.0, 4.0] and c.grad is None

    net = nn.Linear(2, 2)
    nn.init.constant_(net.weight, rank + 5)
    distributed.copy_from_main(net)
    assert net.weight.eq(5).all()
    assert distributed.mean([rank, 4.0]) == [0.5, 4.0] and distributed.any_rank(rank == 1)
    assert distributed.gather_objects({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
