"""Tests of vireid/distributed.py: the identity in one process; in two, the values and gradients of one."""

import pytest
import torch
from torch import nn

from vireid import distributed
from vireid.distributed import SyncBatchNorm, convert_batchnorm


def test_one_process_is_the_identity():
    x = torch.ones(3, requires_grad=True)
    assert (distributed.rank(), distributed.world(), distributed.is_main()) == (0, 1, True)
    assert distributed.gather(x) is x
    assert distributed.mean([1.0, 2.0]) == [1.0, 2.0] and distributed.gather_objects("x") == ["x"]
    assert distributed.any_rank(True) and not distributed.any_rank(False)
    assert distributed.start("cpu") == torch.device("cpu")
    distributed.stop()
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.tensor([1.0, 2.0])
    distributed.average_gradients([p])
    assert p.grad.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("norm", "shape"), [(nn.BatchNorm1d, (6, 5)), (nn.BatchNorm2d, (3, 5, 4, 2)), (nn.BatchNorm3d, (2, 5, 2, 2, 2))]
)
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
def test_converted_batchnorm_is_batchnorm_in_one_process(norm, shape, options):
    torch.manual_seed(0)
    own = norm(5, **options)
    twin = convert_batchnorm(nn.Sequential(norm(5, **options)))[0]
    twin.load_state_dict(own.state_dict())
    assert isinstance(twin, SyncBatchNorm) and list(own.state_dict()) == list(twin.state_dict())
    for training in (True, True, False):
        own.train(training)
        twin.train(training)
        x = torch.randn(shape)
        assert torch.equal(own(x), twin(x))
    assert all(torch.equal(a, b) for a, b in zip(own.state_dict().values(), twin.state_dict().values(), strict=True))


def test_conversion_keeps_parameters_and_mode():
    net = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4))).eval()
    before = list(net.parameters())
    convert_batchnorm(net)
    assert isinstance(net[1][0], SyncBatchNorm) and not net[1][0].training
    assert all(a is b for a, b in zip(before, net.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"\(N, C, \.\.\.\)"):
        net[1][0](torch.zeros(4))
