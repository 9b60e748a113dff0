"""What AGW and the methods on its network share: the groups of parameters, the classifier and public weights."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from vireid.layers.neck import classifier
from vireid.layers.two_stream import TwoStream, TwoStreamSettings
from vireid.layers.two_stream_stripes import two_stream
from vireid.layers.two_stream_weights import load_two_stream
from vireid.method import Method
from vireid.training.optim import split_by_module


class TwoStreamMethod(Method[TwoStream]):
    """A method on AGW's two-stream network, whose own settings extend TwoStreamSettings."""

    Settings: ClassVar[type] = TwoStreamSettings

    # Why a trainable parameter's gradient is zero up to rounding; read by the test that looks for dead parameters.
    no_gradient: ClassVar[dict[str, str]] = {
        "embedder.trunk.nonlocal*.W.bias": "a shift right before a batch norm, which subtracts it again",
    }

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), settings: Any = None, **words: Any) -> None:
        super().__init__(num_pids, camids, settings, **words)
        self.embedder = self.build_embedder()
        self.classifier = classifier(self.embedder.dim, num_pids)

    def build_embedder(self) -> TwoStream:
        """The network that is trained and deployed; one of your own has `dim`, `neck` and `encode` as TwoStream has."""
        return two_stream(self.settings)

    def params(self) -> dict[str, list[nn.Parameter]]:
        """Neck and classifier are the "head" with ten times the learning rate; non-local blocks are in the backbone."""
        return split_by_module(self, head=(self.embedder.neck, self.classifier))

    def load_weights(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet's ResNet-50, a checkpoint of the released code, or an embedder file; returns the keys not used.

        A classifier is taken when it knows as many identities as this one, else its key is among those returned.
        """
        unused = load_two_stream(self.embedder, state)
        return [key for key in unused if not (key == "classifier.weight" and self.load_classifier(state[key]))]

    def load_classifier(self, weight: Tensor) -> bool:
        """Take the classifier's weight if it has the right shape; returns whether it had."""
        if weight.shape != self.classifier.weight.shape:
            return False
        self.classifier.load_state_dict({"weight": weight})
        return True
