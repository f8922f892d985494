"""EfficientNet-Lite0 from its original checkpoint to a timm folder in hub layout."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vlkit.errors import AssetError

_ARCHITECTURE = "tf_efficientnet_lite0"


def convert(files: Mapping[str, bytes], folder: Path) -> Iterator[int]:
    """Writes the folder and yields the percentage done.

    ``files`` has ``weights``, a PyTorch checkpoint whose tensors come in the order of timm's state dict.

    Raises:
        AssetError: The tensors are not those of the architecture.
    """
    import timm
    from safetensors.torch import save_file

    theirs = torch.load(io.BytesIO(files["weights"]), map_location="cpu", weights_only=True)
    yield 20
    model = timm.create_model(_ARCHITECTURE, pretrained=False)
    tensors = rename(theirs, model.state_dict())
    yield 60
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architecture": _ARCHITECTURE,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "pretrained_cfg": {
            "tag": "in1k",
            "custom_load": False,
            "input_size": [3, 224, 224],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "num_classes": model.num_classes,
            "pool_size": [7, 7],
            "first_conv": "conv_stem",
            "classifier": "classifier",
            "license": "apache-2.0",
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    yield 100


def rename(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``theirs`` under the names of ``ours``: one by one in order, each pair of one shape.

    Raises:
        AssetError: The two do not go together.
    """
    if len(theirs) != len(ours):
        raise AssetError(
            f"the checkpoint has {len(theirs)} tensors, {_ARCHITECTURE} of the installed timm has {len(ours)}"
        )
    named: dict[str, Tensor] = {}
    for (old, value), (new, expected) in zip(theirs.items(), ours.items(), strict=True):
        if value.shape != expected.shape:
            raise AssetError(
                f"tensor {old!r} has shape {tuple(value.shape)}, {new!r} of timm has {tuple(expected.shape)}"
            )
        named[new] = value.to(expected.dtype).contiguous()
    return named
