"""Image encoders of transformers: ViT, DINOv2, and the image side of CLIP-like models.

Shapes: B batch, C channels, H height, W width, N image tokens, D encoder width, T width of a token.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from PIL.Image import Image
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.parts import assets
from vlkit.parts.building import (
    ImageTransform,
    LibraryImageEncoder,
    check_patches,
    check_side,
    check_transform,
    foreign_errors,
    given,
    image_facts,
    taken,
)
from vlkit.parts.configs import check_settings
from vlkit.parts.hf_common import is_two_tower, keep_side, last_states, load_model, read_config, side_width, unusable
from vlkit.parts.image_fit import Padded
from vlkit.parts.inside_models import part_inside, renamed
from vlkit.parts.token_layers import LAST, TokenLayers
from vlkit.spec.parts import HfImage
from vlkit.types import ImageFacts


class HfImageEncoder(LibraryImageEncoder):
    """A vision model of transformers.

    With pooling ``auto`` the image side of a two-tower model (CLIP, SigLIP, VisionTextDualEncoder, ...) ends in the
    model's own shared space, exactly as the library's ``get_image_features``.

    ``config`` is that of the whole model as it was read; of a two-tower model the image side is kept.

    ``options`` are what the library's forward needs for images of another size than the model was made for.
    """

    def __init__(self, model: nn.Module, config: Any, *, processor: Any, spec: HfImage) -> None:
        super().__init__()
        two_tower = is_two_tower(config)
        self.projects = two_tower and spec.pooling == "auto"
        if two_tower:
            model = keep_side(model, "image")
        self.model: nn.Module = model if self.projects or not two_tower else model.vision_model  # type: ignore[assignment]
        self.config, self.processor, self.spec = config, processor, spec
        vision = config.vision_config if two_tower else config
        self.transform = _transform(processor, fit=spec.fit)
        with foreign_errors(f"{spec.name}: its image processor names no sizes (preprocessor_config.json)"):
            self.image_size = _side(processor)
            sizes = (value for value in dict(processor.size).values() if isinstance(value, int))
            self.resized_to = max(self.image_size, *sizes)
        check_side(self.resized_to, where=spec.name)
        check_transform(self.transform, where=spec.name)
        patch = getattr(vision, "patch_size", None)
        self.patch_size: int | None = patch if isinstance(patch, int) else None
        self.tokens_behind = int(getattr(vision, "num_detection_tokens", None) or 0)  # YOLOS has them after the patches
        check_patches(spec.image_size, self.patch_size, where=spec.name)
        self.options = _size_options(self.vision, vision, size=self.image_size, name=spec.name)
        hidden = getattr(vision, "hidden_size", None) or next(iter(getattr(vision, "hidden_sizes", [])[-1:]), None)
        self._layers: TokenLayers | None = None
        if spec.layers != LAST:
            self.options["output_hidden_states"] = True
            count = len(self.on_shapes(self.image_size, "_states").hidden_states) - 1
            self._layers = TokenLayers(spec.layers, count=count, where=f"hf:{spec.name}")
        width = side_width(model, config, side="image") if self.projects else hidden
        if isinstance(width, int) and isinstance(hidden, int) and self._layers is None:
            self.width, self.token_width = width, hidden if hasattr(vision, "hidden_size") else width
        else:
            features_BD, tokens_BNT = self.on_shapes(self.image_size, "pooled_and_states")
            self.width, self.token_width = features_BD.shape[1], tokens_BNT.shape[2]

    @classmethod
    def build(cls, spec: HfImage, *, saved: Path | None = None, empty: bool = False) -> HfImageEncoder:
        """See ``image.build_image_encoder``."""
        folder = saved or assets.resolve(spec.name, library="hf")
        config, names = part_inside(read_config(folder), "image encoder", where=spec.name)
        refuse_patches(config, folder=folder)
        if not is_two_tower(config) and hasattr(config, "text_config"):
            raise VlkitError(
                f"{spec.name}: model_type = {config.model_type!r} is neither a vision model nor a two-tower model"
            )
        model, poolerless = load_model(
            folder, config, spec=spec, pooler=spec.pooling == "auto", saved=saved, empty=empty, **renamed(names)
        )
        if poolerless:  # recorded, so that a saved model is built the same way
            spec = spec.model_copy(update={"pooling": "mean"})
        processor = load_processor(folder, image_size=spec.image_size, squash=spec.fit != "own")
        with foreign_errors(unusable(config, where=spec.name), error=VlkitError):
            return cls(model, config, processor=processor, spec=spec)

    @property
    def vision(self) -> nn.Module:
        """The library's model of images alone."""
        return self.model.vision_model if self.projects else self.model  # type: ignore[return-value]

    def _states(self, pixels_BCHW: Tensor) -> Any:
        return self.vision(pixel_values=taken(pixels_BCHW, self), return_dict=True, **self.options)

    def transform_at(self, size: int) -> ImageTransform:
        """Its preprocessing for square images of another size."""
        settings = {**self.processor.to_dict(), **_scaled_sizes(self.processor, size)}
        return _transform(type(self.processor).from_dict(settings), fit=self.spec.fit)

    def tokens(self, pixels_BCHW: Tensor) -> Tensor:
        """tokens_BNT of the blocks that ``layers`` names; class and register tokens left out, unless asked for."""
        return self._tokens_of(self._states(pixels_BCHW), pixels_BCHW)

    def block_states(self, pixels_BCHW: Tensor) -> tuple[Tensor, ...]:
        """The library's states behind the embeddings and behind each block, with all their places."""
        options = {**self.options, "output_hidden_states": True}
        output: Any = self.vision(pixel_values=taken(pixels_BCHW, self), return_dict=True, **options)
        return tuple(output.hidden_states)

    def _tokens_of(self, output: Any, pixels_BCHW: Tensor) -> Tensor:
        last = last_states(output, where=self.spec.name)
        if self._layers is None:
            return self._wanted(last, pixels_BCHW)
        count = self._layers.count  # the library's states of all blocks begin with the embeddings
        found = {number: last if number == count else output.hidden_states[number] for number in self._layers.numbers}
        return self._layers.of({number: self._wanted(states, pixels_BCHW) for number, states in found.items()})

    def _wanted(self, states: Tensor, pixels_BCHW: Tensor) -> Tensor:
        return given(states, self.spec) if self.spec.extra_tokens else self._spatial(states, pixels_BCHW)

    def _spatial(self, states: Tensor, pixels_BCHW: Tensor) -> Tensor:
        states = given(states, self.spec)
        if states.ndim == 4:
            return states.flatten(2).transpose(1, 2)
        if self.patch_size is None:
            return states
        count = (pixels_BCHW.shape[-2] // self.patch_size) * (pixels_BCHW.shape[-1] // self.patch_size)
        end = states.shape[1] - self.tokens_behind  # class and register tokens stand before the patches
        return states[:, max(0, end - count) : end]

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """features_BD."""
        return self._pooled(self._output(pixels_BCHW), pixels_BCHW)

    def pooled_and_states(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """features_BD and ``tokens`` in one pass."""
        output = self._output(pixels_BCHW)
        return self._pooled(output, pixels_BCHW), self._tokens_of(output, pixels_BCHW)

    def _output(self, pixels_BCHW: Tensor) -> Any:
        model: Any = self.model
        if self.projects:
            return model.get_image_features(pixel_values=taken(pixels_BCHW, self), **self.options)
        return self._states(pixels_BCHW)

    def _pooled(self, output: Any, pixels_BCHW: Tensor) -> Tensor:
        if self.projects:
            return given(output if isinstance(output, Tensor) else output.pooler_output, self.spec)
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if self.spec.pooling == "auto" and pooled is not None:
            return given(pooled.flatten(1), self.spec)
        if self.spec.pooling == "cls":
            return given(output.last_hidden_state[:, 0], self.spec)
        return self._spatial(output.last_hidden_state, pixels_BCHW).mean(dim=1)

    def facts(self) -> ImageFacts:
        """See ``types.TellsFacts``."""
        last = self.on_shapes(self.image_size, "_states").last_hidden_state
        patches = 0 if self.patch_size is None else (self.image_size // self.patch_size) ** 2
        extra = max(0, last.shape[1] - patches) if patches and last.ndim == 3 else 0
        mean, std = ((self.processor.image_mean or ()), (self.processor.image_std or ()))
        return image_facts(self, extra_tokens=extra, mean=mean, std=std)

    def save_config(self, folder: Path) -> None:
        """Writes the model's config and its image processor's."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(str(folder))
        self.processor.save_pretrained(str(folder))


def refuse_patches(config: Any, *, folder: Path) -> None:
    """Models that take sequences of patches instead of square images are not offered.

    Raises:
        VlkitError: It is one (SigLIP 2 NaFlex).
    """
    if config.model_type in ("siglip2", "siglip2_vision_model"):
        raise VlkitError(
            f"{folder}: SigLIP 2 NaFlex takes patches of any shape; use a fixed-resolution SigLIP 2 instead"
        )


def load_processor(folder: Path, *, image_size: int | None, squash: bool = False) -> Any:
    """The image processor of a folder in hub layout, set to another square size where one is given.

    With ``squash`` it takes images of any shape to the square as they are, and cuts nothing off.

    Raises:
        AssetError: There is none.
        VlkitError: It cannot do so.
    """
    from transformers import AutoImageProcessor

    def load(**sizes: Any) -> Any:
        return AutoImageProcessor.from_pretrained(str(folder), trust_remote_code=False, **sizes)

    check_settings(folder)
    with foreign_errors(f"{folder} holds no image processor that can be read (preprocessor_config.json)"):
        processor = load()
        if squash:
            if getattr(processor, "crop_pct", None) is not None:
                kind = type(processor).__name__
                raise VlkitError(f"{folder}: its image processor ({kind}) always cuts margins off; set fit to own")
            side = image_size or _side(processor)
            return load(size={"height": side, "width": side}, do_center_crop=False)
        return processor if image_size is None else load(**_scaled_sizes(processor, image_size))


def _scaled_sizes(processor: Any, image_size: int) -> dict[str, dict[str, int]]:
    """The processor's sizes for another input: the resize rule and the margin between resize and crop stay."""
    square = {"height": image_size, "width": image_size}
    edge = dict(processor.size).get("shortest_edge")
    crop = dict(processor.crop_size) if getattr(processor, "do_center_crop", False) else None
    sizes = {
        "size": {"shortest_edge": round(image_size * edge / crop["height"]) if crop else image_size} if edge else square
    }
    return {**sizes, "crop_size": square} if crop else sizes


class _Processed:
    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Image) -> Tensor:
        pixels: Tensor = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels.float()


def _transform(processor: Any, *, fit: str) -> ImageTransform:
    settings = {
        key: value for key, value in processor.to_dict().items() if value is not None and key != "_name_or_path"
    }
    steps = _Processed(processor)
    if fit == "pad":
        mean = processor.image_mean or (0.5, 0.5, 0.5)
        return ImageTransform(Padded(steps, mean), {"library": "transformers", **settings, "fit": fit})
    return ImageTransform(steps, {"library": "transformers", **settings})


def _side(processor: Any) -> int:
    for size in (
        getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None,
        processor.size,
    ):
        if size:
            values = dict(size)
            return int(next(values[key] for key in ("height", "shortest_edge", "longest_edge") if values.get(key)))
    raise VlkitError(f"the image processor {type(processor).__name__} names no size")


def _size_options(vision: nn.Module, config: Any, *, size: int, name: str) -> dict[str, Any]:
    """Options of the vision model's forward for inputs of another size than it was made for."""
    own = getattr(config, "image_size", None)
    if own is None or own == size or not isinstance(own, int) or getattr(config, "patch_size", None) is None:
        return {}
    if "interpolate_pos_encoding" in inspect.signature(vision.forward).parameters:
        return {"interpolate_pos_encoding": True}
    if config.model_type.startswith("dinov"):
        return {}  # always interpolates
    raise VlkitError(f"{name}: image_size = {size}, but this architecture takes {own} only")
