"""Bridges from any text encoder's states to those that a denoiser reads in the place of its own text encoder's.

Shapes: B texts, L their length, T width of a state, M states that the denoiser reads, E their width, H hidden width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn

from vlkit.errors import ShapeError


class ConditionBridge(nn.Module):
    """What all of them share: two widths, and how many states come out whatever the length of a text.

    Args:
        in_width: T of the text encoder's states.
        out_width: E of the denoiser's.
        count: M.
    """

    kind: ClassVar[str]
    spec: Any  # what builds it again; whoever builds from a spec sets it

    def __init__(self, in_width: int, out_width: int, *, count: int) -> None:
        super().__init__()
        self.in_width, self.out_width, self.count = in_width, out_width, count

    def forward(self, states_BLT: Tensor, mask_BL: Tensor) -> Tensor:
        """states_BME; ``mask_BL`` is 1 for real tokens, which stand first. Padding makes no difference."""
        raise NotImplementedError


class PeaBridge(ConditionBridge):
    """A perceptron of each token (PEA-Diffusion, arXiv 2311.17086, section 3.2; the layers are those of its code).

    Deliberate difference: the first M tokens are taken, and a learned state stands in the places of a shorter text, so
    that a text encoder of any length will do.
    """

    kind = "pea"

    def __init__(self, in_width: int, out_width: int, *, count: int, hidden: int) -> None:
        super().__init__(in_width, out_width, count=count)
        self.rest_T = nn.Parameter(torch.zeros(in_width))
        self.norm = nn.LayerNorm(in_width)
        self.up, self.middle = nn.Linear(in_width, hidden), nn.Linear(hidden, hidden)
        self.down = nn.Linear(hidden, out_width, bias=False)
        self.places_MT = nn.Parameter(torch.zeros(count, in_width))

    def forward(self, states_BLT: Tensor, mask_BL: Tensor) -> Tensor:
        """See ``ConditionBridge``."""
        real_BL1 = mask_BL[:, : self.count].unsqueeze(-1) > 0
        taken_BLT = torch.where(real_BL1, states_BLT[:, : self.count], self.rest_T)
        short = self.count - taken_BLT.shape[1]
        rest_BMT = self.rest_T.expand(len(taken_BLT), short, -1)
        x_BMT = self.norm(torch.cat([taken_BLT, rest_BMT], dim=1)) + self.places_MT
        x_BMH = F.gelu(self.middle(F.gelu(self.up(x_BMT))))
        out_BME: Tensor = self.down(x_BMH)
        return out_BME


class MulanBridge(ConditionBridge):
    """Learned queries that look at the text (MuLan's language adapter, arXiv 2412.01271, section 3.2).

    Two linear maps into the denoiser's width, pre-norm transformer layers over the text, and as many over M queries
    that see each other and the text. Deliberate differences: there are as many queries as the denoiser's own text
    encoder gives states, so that one can learn from the other state by state; a last norm and linear map follow.
    """

    kind = "mulan"

    def __init__(self, in_width: int, out_width: int, *, count: int, layers: int, heads: int, ratio: int) -> None:
        super().__init__(in_width, out_width, count=count)
        if out_width % heads:
            raise ShapeError(
                f"bridge.heads = {heads} does not divide {out_width}, the width of the denoiser's text input; lower it"
            )
        sizes: dict[str, Any] = {"dim_feedforward": ratio * out_width, "dropout": 0.0, "activation": "gelu"}
        order: dict[str, Any] = {"batch_first": True, "norm_first": True}
        self.into = nn.Sequential(nn.Linear(in_width, out_width), nn.GELU(), nn.Linear(out_width, out_width))
        self.readers = nn.ModuleList(
            nn.TransformerEncoderLayer(out_width, heads, **sizes, **order) for _ in range(layers)
        )
        self.askers = nn.ModuleList(
            nn.TransformerDecoderLayer(out_width, heads, **sizes, **order) for _ in range(layers)
        )
        self.queries_ME = nn.Parameter(torch.empty(count, out_width))
        nn.init.normal_(self.queries_ME)
        self.norm, self.out = nn.LayerNorm(out_width), nn.Linear(out_width, out_width)

    def forward(self, states_BLT: Tensor, mask_BL: Tensor) -> Tensor:
        """See ``ConditionBridge``."""
        hidden_BL = mask_BL == 0
        text_BLE = self.into(states_BLT)
        for reader in self.readers:
            text_BLE = reader(text_BLE, src_key_padding_mask=hidden_BL)
        x_BME = self.queries_ME.expand(len(text_BLE), -1, -1)
        for asker in self.askers:
            x_BME = asker(x_BME, text_BLE, memory_key_padding_mask=hidden_BL)
        out_BME: Tensor = self.out(self.norm(x_BME))
        return out_BME
