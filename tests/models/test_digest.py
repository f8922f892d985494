"""Digests of weights: they hang on all that decides what a part gives, and on nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vlkit.models import digest as digests
from vlkit.models.digest import fixed_weights, part_digest, tensor_digest, weights_digest
from vlkit.models.dual_encoder.model import DualEncoder


def test_digests_see_every_bit_type_and_shape() -> None:
    base = torch.zeros(2, 3)
    others = [base.clone(), base.half(), base.view(3, 2), base.bfloat16(), torch.zeros(2, 3, dtype=torch.int32)]
    others[0][1, 2] = -0.0
    assert len({tensor_digest(tensor) for tensor in [base, *others]}) == 6
    assert (
        tensor_digest(base) == tensor_digest(torch.zeros(3, 2).T.contiguous()) == tensor_digest(torch.zeros(4, 3)[::2])
    )
    assert tensor_digest(torch.tensor(1.0)) != tensor_digest(torch.tensor(2.0))


def test_the_digest_hangs_on_weights_buffers_and_settings(model: DualEncoder) -> None:
    digest = part_digest(model.image)
    assert part_digest(model.image) == digest
    with torch.no_grad():
        model.image.positions_ND[0, 0] += 1e-3
    moved = part_digest(model.image)
    model.image.register_buffer("more", torch.zeros(1))
    buffered = part_digest(model.image)
    model.image.spec = model.image.spec.model_copy(update={"patch_size": 4})
    assert len({digest, moved, buffered, part_digest(model.image)}) == 4
    torch.manual_seed(0)
    assert part_digest(nn.Linear(2, 2)) != part_digest(nn.Linear(2, 2))


def test_fixed_weights_are_read_once(model: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, seen = weights_digest(model), []
    monkeypatch.setattr(digests, "tensor_digest", lambda tensor: seen.append(tensor) or tensor_digest(tensor))
    with fixed_weights(model):
        count = len(seen)
        with fixed_weights(model):
            assert weights_digest(model) == plain
        assert weights_digest(model) == plain and len(seen) == count == len(model.state_dict())
        assert weights_digest(model.image) != plain
    with torch.no_grad():
        model.log_scale += 1
    assert weights_digest(model) != plain
    with fixed_weights("no module"):
        pass
