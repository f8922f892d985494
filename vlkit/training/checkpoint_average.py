"""One model of the last checkpoints of a run: their weights averaged, as model soups and NeoBabel do.

Sources: Izmailov et al. (arXiv 1803.05407, equal weights), NeoBabel (2507.06137: its last twenty checkpoints, with
equal weights or with larger ones for later checkpoints).
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Literal

import torch
from torch import Tensor

from vlkit.errors import VlkitError, some
from vlkit.paths import local_path
from vlkit.training.checkpoints import checkpoint_model
from vlkit.training.run_folder import Run, steps_in
from vlkit.types import Model, as_module

Weighting = Literal["equal", "linear", "exponential"]


def average_checkpoints(
    run: str | PathLike[str], *, last: int | None = None, weights: Weighting = "equal", decay: float = 0.9
) -> Model:
    """The finished model of a run, with the averaged weights of its last checkpoints.

    Args:
        run: The run folder; ``loop.keep_checkpoints`` of its recipe says how many were kept.
        last: How many of the newest checkpoints; None takes all that were kept.
        weights: equal; linear: 1, 2, 3, ... from the oldest to the newest; exponential: each the one after it times
            ``decay``.
        decay: Above 0, up to 1.

    Raises:
        VlkitError: The run is not finished, has too few checkpoints, or they are of different stages.
    """
    folder = Run(local_path(run))
    if not folder.model_path.is_dir():
        raise VlkitError(f"{folder.path} has no finished model; let the run end first (vlkit train ... --resume)")
    found = steps_in(folder.checkpoints)
    if last is not None and not 1 <= last <= len(found):
        raise VlkitError(f"last = {last}: {folder.path} has {len(found)} checkpoints; raise loop.keep_checkpoints")
    if not found:
        raise VlkitError(f"{folder.path} has no checkpoints to average")
    chosen = found[: last or len(found)][::-1]
    shares = checkpoint_shares(len(chosen), weights, decay)
    total: dict[str, Tensor] = {}
    for path, share in zip(chosen, shares, strict=True):
        tensors = checkpoint_model(path)
        if total and tensors.keys() != total.keys():
            others = some(sorted(tensors.keys() ^ total.keys()), most=3)
            raise VlkitError(
                f"{path} holds other weights than those before it ({others}): another stage began between them; set "
                f"last to a smaller number"
            )
        for name, tensor in tensors.items():
            part = tensor.double() * share if tensor.is_floating_point() else tensor
            total[name] = total[name] + part if name in total and tensor.is_floating_point() else part
    model = folder.model()
    own = dict(as_module(model).state_dict())
    with torch.no_grad():
        for name, tensor in total.items():
            own[name].copy_(tensor)
    return model


def checkpoint_shares(count: int, weights: Weighting, decay: float) -> Sequence[float]:
    """What each of ``count`` checkpoints counts, the oldest first; they add up to 1.

    Raises:
        VlkitError: ``decay`` is out of range.
    """
    if not 0 < decay <= 1:
        raise VlkitError(f"decay = {decay:g} is out of range; give a number above 0 and up to 1")
    plain = {
        "equal": [1.0] * count,
        "linear": [float(number + 1) for number in range(count)],
        "exponential": [decay ** (count - 1 - number) for number in range(count)],
    }[weights]
    return [one / sum(plain) for one in plain]
