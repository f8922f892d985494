"""The exponential moving average of the weights that train (Polyak and Juditsky 1992; as in arXiv 1703.01780)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vlkit.distributed.sharding import like


class WeightAverage:
    """A copy of what trains in a model, moved a little towards it after each step; pieces of a weight stay pieces.

    In step t (from 0) the decay is min(``decay``, (1 + t) / (10 + t)), so that a short run forgets where it began.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._trains = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.tensors: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._trains.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after step ``step`` of the stage, from 0."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self._trains.items():
            self.tensors[name].lerp_(parameter.detach().to(self.tensors[name].dtype), 1 - keep)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from whole tensors by name."""
        for name, tensor in tensors.items():
            self.tensors[name] = like(tensor, self._trains[name].detach())

    @torch.no_grad()
    def exchange(self) -> None:
        """The model gets the average and the average the model's weights; a second call undoes the first."""
        for name, parameter in self._trains.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(kept)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Meanwhile the model has the averaged weights."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()
