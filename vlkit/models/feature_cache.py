"""What a frozen encoder once computed, kept on disk: never computed again for the same weights, input and settings.

Shapes: N inputs, D encoder width.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.files import digest, home, write_atomic
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.trainable import tensor_digest
from vlkit.types import TextBatch

log = logging.getLogger(__name__)
Blocks = Iterable[tuple[Sequence[int], Tensor]]
"""Numbers of inputs with their features, block by block."""
_FLUSH_EVERY = 60.0  # seconds of work that a kill may cost


def encoder_digest(encoder: nn.Module) -> str:
    """Hex digest of an encoder's weights, buffers and spec (about 1 s a GB)."""
    state = {name: tensor_digest(tensor) for name, tensor in encoder.state_dict().items()}
    spec = getattr(encoder, "spec", None)
    settings = type(encoder).__name__ if spec is None else spec.model_dump(mode="json", exclude={"name", "pretrained"})
    return digest({"state": state, "spec": settings})


class FeatureStore:
    """Features of one encoder under one setting, by the name of their input.

    Args:
        key: All that decides the features but the input itself: encoder digest, transform, precision.
    """

    def __init__(self, key: Mapping[str, Any]) -> None:
        self.path = home() / "features" / f"{digest(key)}.safetensors"
        self._known = _read(self.path)
        self._written, self._unsaved = time.monotonic(), False

    def fetch(self, names: Sequence[str], compute: Callable[[list[int]], Blocks]) -> Tensor:
        """features_ND of the named inputs in their order.

        Args:
            names: Digests of the inputs.
            compute: Given the numbers of the inputs that are not known yet, yields their features in blocks. What it
                yielded is kept even if it fails later. Inputs that it leaves out get zeros and are not remembered.

        Raises:
            VlkitError: Features that are not finite, no features at all, or a disk that is full.
        """
        first = {name: row for row, name in reversed(list(enumerate(names)))}
        missing = sorted(row for name, row in first.items() if name not in self._known)
        if missing:
            self._extend(names, compute(missing))
        found = [self._known.get(name) for name in names]
        known = next((feature_D for feature_D in found if feature_D is not None), None)
        if known is None:
            raise VlkitError(f"there are no features of any of {len(names)} inputs")
        none_D = torch.zeros_like(known)
        return torch.stack([none_D if feature_D is None else feature_D for feature_D in found])

    def flush(self) -> None:
        """Writes what is not on disk yet; until then a kill costs up to a minute of work."""
        if self._unsaved:
            names = torch.tensor([list(bytes.fromhex(name)) for name in self._known], dtype=torch.uint8)
            write_atomic(self.path, save({"names": names, "features": torch.stack(list(self._known.values()))}))
            self._written, self._unsaved = time.monotonic(), False

    def _extend(self, names: Sequence[str], blocks: Blocks) -> None:
        for rows, features_ND in blocks:
            if not bool(features_ND.isfinite().all()):
                raise VlkitError(f"the encoder gave features that are not finite for inputs {rows[0]} to {rows[-1]}")
            self._known |= zip((names[row] for row in rows), features_ND.detach().float().cpu(), strict=True)
            self._unsaved = True
            if time.monotonic() - self._written > _FLUSH_EVERY:
                self.flush()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        return {}
    try:
        table = load_file(path)
        names = [bytes(row).hex() for row in table["names"].tolist()]
        return dict(zip(names, table["features"], strict=True))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        log.warning("the feature cache %s is damaged (%s); computing it anew", path, error)
        return {}


def name_of(*what: object) -> str:
    """The name of an input in a store: a digest of what it is made of."""
    seal = hashlib.blake2b(digest_size=16)
    for part in what:
        seal.update(part if isinstance(part, bytes) else str(part).encode())
        seal.update(b"\0")
    return seal.hexdigest()


class Remembering(nn.Module):
    """A frozen encoder that encodes each image or text once in all; it behaves as the encoder itself.

    Features agree with those computed directly up to the rounding that the composition of batches brings. They carry no
    gradient.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self._store = FeatureStore({"encoder": encoder_digest(encoder), "by": "content"})

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("encoder"), name)

    def forward(self, given: Tensor | TextBatch) -> Tensor:
        """features_ND of pixels or tokens."""

        def compute(rows: list[int]) -> Blocks:
            part = TextBatch(*(side[rows] for side in given)) if isinstance(given, TextBatch) else given[rows]
            yield rows, encode_frozen(self.encoder, part)

        device = given.ids_BL.device if isinstance(given, TextBatch) else given.device
        return self._store.fetch(_content_names(given), compute).to(device)

    def flush(self) -> None:
        """Writes what is not on disk yet."""
        self._store.flush()


@torch.no_grad()
def encode_frozen(encoder: nn.Module, inputs: Tensor | TextBatch) -> Tensor:
    """features_ND as they are at inference: in eval mode, without gradient."""
    was = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        features_ND: Tensor = encoder(inputs)
    finally:
        for module, training in was.items():
            module.training = training
    return features_ND


def _content_names(given: Tensor | TextBatch) -> list[str]:
    if isinstance(given, TextBatch):
        pairs = zip(given.ids_BL.cpu(), given.mask_BL.cpu(), strict=True)
        return [name_of(ids_L[mask_L.bool()].numpy().tobytes()) for ids_L, mask_L in pairs]
    return [name_of(pixels_CHW.contiguous().numpy().tobytes()) for pixels_CHW in given.cpu()]


@contextmanager
def remembering(model: DualEncoder) -> Iterator[DualEncoder]:
    """Inside the block the model's encoders remember: for variants that share frozen encoders."""
    parts, plain = cast("Any", model), (model.image, model.text)
    memories = [Remembering(cast("nn.Module", encoder)) for encoder in plain]
    parts.image, parts.text = memories
    try:
        yield model
    finally:
        parts.image, parts.text = plain
        for memory in memories:
            memory.flush()
