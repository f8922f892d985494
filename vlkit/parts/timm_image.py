"""Image encoders of timm.

Shapes: B batch, C channels, H height, W width, N image tokens, D encoder width, T width of a token, K classes.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlkit.errors import AssetError, UnknownName, VlkitError
from vlkit.foreign import json_kind
from vlkit.parts import assets, building
from vlkit.parts.configs import read_settings
from vlkit.parts.image_fit import Padded
from vlkit.parts.token_layers import LAST, TokenLayers
from vlkit.parts.weight_files import read_header, within
from vlkit.paths import local_path
from vlkit.spec.parts import TimmImage
from vlkit.types import ClassRows, ImageFacts

_CONFIG = "config.json"


class TimmImageEncoder(building.LibraryImageEncoder):
    """A timm model: pooled features before the classifier, which stays where the weights have one.

    ``arguments`` are extra ones of its architecture, for ``save_config``.
    """

    def __init__(self, model: nn.Module, spec: TimmImage, *, arguments: dict[str, Any]) -> None:
        from timm.data import resolve_data_config

        super().__init__()
        self.model, self.spec, self._arguments = model, spec, arguments
        timm_model: Any = model
        self.width = int(getattr(timm_model, "head_hidden_size", None) or timm_model.num_features)
        self.token_width = int(timm_model.num_features)
        self._layers: TokenLayers | None = None
        chosen = {} if spec.image_size is None else {"img_size": spec.image_size}
        with building.foreign_errors(f"{spec.name}: timm cannot use its preprocessing (pretrained_cfg)"):
            self.data_config: dict[str, Any] = resolve_data_config(chosen, model=timm_model)
            if spec.fit != "own":
                self.data_config |= {"crop_mode": "squash", "crop_pct": 1.0}
            self.image_size = int(self.data_config["input_size"][-1])
            self.resized_to = math.ceil(self.image_size / self.data_config["crop_pct"])
            building.check_side(self.resized_to, where=spec.name)
            self.transform = self.transform_at(self.image_size)
        building.check_transform(self.transform, where=spec.name)
        if spec.layers != LAST:
            self._layers = TokenLayers(spec.layers, count=len(timm_model.feature_info), where=f"timm:{spec.name}")
            self.token_width = int(self.on_shapes(self.image_size, "tokens").shape[2])

    @classmethod
    def build(cls, spec: TimmImage, *, saved: Path | None = None, empty: bool = False) -> TimmImageEncoder:
        """See ``image.build_image_encoder``."""
        import timm

        arguments: dict[str, Any] = {}
        config: dict[str, Any] = {}
        folder: Path | None
        pretrained = spec.pretrained and not empty and saved is None
        if saved is not None or local_path(spec.name).is_dir():
            folder = saved or local_path(spec.name)
        else:
            architecture = spec.name.partition(".")[0]
            known = timm.is_model(architecture)
            if not known and "/" not in spec.name:
                raise UnknownName(
                    "timm model", architecture, allowed=timm.list_models(), hint="See timm.list_models()."
                )
            folder = assets.resolve(spec.name, library="timm") if pretrained or not known else None
        if folder is not None:
            source = f"local-dir:{folder}"
            config = _read_config(folder)
            arguments = dict(config.get("model_args") or {})
            fixed = bool((config.get("pretrained_cfg") or config).get("fixed_input_size"))
        else:
            source = spec.name
            fixed = bool(timm.get_pretrained_cfg(spec.name).fixed_input_size)
            if not spec.pretrained:
                arguments["num_classes"] = 0  # a random classifier would be read as class prototypes
        if spec.image_size is not None and fixed:
            arguments["img_size"] = spec.image_size
        size = "" if spec.image_size is None else f" with image_size = {spec.image_size}"
        weights = None if folder is None or saved is not None else _weights(folder)
        if pretrained and weights is None:
            raise AssetError(f"{folder} holds no weights (model.safetensors)")
        judged = weights is not None and (pretrained or weights.suffix == ".safetensors")
        shapes = read_header(weights) if weights is not None and judged else {}
        with (
            building.foreign_errors(f"timm cannot build {spec.name!r}{size}", error=VlkitError),
            building.weightless(saved=saved is not None, empty=empty),
            within(shapes, where=spec.name, settings=config),
        ):
            model = timm.create_model(
                source,
                pretrained=pretrained,
                pretrained_cfg_overlay=_taking(weights if pretrained else None),
                **arguments,
            )
        patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
        building.check_patches(spec.image_size, patch[0] if isinstance(patch, tuple) else None, where=spec.name)
        return cls(model, spec, arguments=arguments)

    @property
    def architecture(self) -> str:
        """The name that timm gives it, without a tag."""
        model: Any = self.model
        return str(model.pretrained_cfg.get("architecture") or self.spec.name.partition(".")[0])

    @property
    def _prefix(self) -> int:
        """Tokens that show no part of the image, which stand before the others."""
        return int(getattr(self.model, "num_prefix_tokens", 0))

    def transform_at(self, size: int) -> building.ImageTransform:
        """Its preprocessing for square images of another size."""
        from timm.data import create_transform

        config = {**self.data_config, "input_size": (3, size, size)}
        steps = create_transform(**config, is_training=False)
        if self.spec.fit == "pad":
            return building.ImageTransform(Padded(steps, config["mean"]), {"library": "timm", **config, "fit": "pad"})
        return building.ImageTransform(steps, {"library": "timm", **config})

    def tokens(self, pixels_BCHW: Tensor) -> Tensor:
        """tokens_BNT of the blocks that ``layers`` names; class and register tokens left out, unless asked for."""
        if self._layers is None or self._layers.needs_last:
            return self._features_and_tokens(pixels_BCHW)[1]
        return self._layers.of(self._of_blocks(pixels_BCHW, self._layers, intermediates_only=True, stop_early=True))

    def pooled_and_states(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """features_BD and ``tokens`` in one pass."""
        features, tokens_BNT = self._features_and_tokens(pixels_BCHW)
        return self._pooled(features), tokens_BNT

    def _features(self, pixels_BCHW: Tensor) -> Tensor:
        model: Any = self.model
        features: Tensor = model.forward_features(self._taken(pixels_BCHW))
        return features

    def _taken(self, pixels_BCHW: Tensor) -> Tensor:
        # convolutions follow the layout of their input, and this one is up to 4 times as fast on a CPU
        return building.taken(pixels_BCHW, self.model).contiguous(memory_format=torch.channels_last)

    def _features_and_tokens(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        if self._layers is None:
            features = self._features(pixels_BCHW)
            return features, self._spatial(features)
        features, states = self._of_blocks(pixels_BCHW, self._layers)
        if self._layers.needs_last:
            states[self._layers.count] = self._spatial(features)
        return features, self._layers.of(states)

    def _of_blocks(self, pixels_BCHW: Tensor, layers: TokenLayers, **options: bool) -> Any:
        """Tokens of the chosen blocks by number as they leave the block, before them the features where asked for."""
        model: Any = self.model
        numbers = sorted(set(layers.numbers))
        extra = {"return_prefix_tokens": True} if self._prefix and self.spec.extra_tokens else {}
        found = model.forward_intermediates(
            self._taken(pixels_BCHW), indices=[number - 1 for number in numbers], norm=False, **options, **extra
        )
        features, maps = (None, found) if options else found
        states = {}
        for number, one in zip(numbers, maps, strict=True):
            one_BThw, extra_BPT = one if extra else (one, None)
            tokens_BNT = one_BThw.flatten(2).transpose(1, 2)
            whole = tokens_BNT if extra_BPT is None else torch.cat([extra_BPT, tokens_BNT], dim=1)
            states[number] = building.given(whole, self.spec)
        return states if options else (features, states)

    def _pooled(self, features: Tensor) -> Tensor:
        model: Any = self.model
        try:
            return building.given(model.forward_head(features, pre_logits=True), self.spec)
        except NotImplementedError as error:
            raise VlkitError(f"timm:{self.spec.name} gives no feature of a whole image: {error}") from error

    def _spatial(self, features: Tensor) -> Tensor:
        model: Any = self.model
        if not isinstance(features, Tensor):
            raise VlkitError(
                f"timm:{self.spec.name} gives no tokens, only features of whole images: what it makes of patches is "
                f"{json_kind(type(features))} of {len(features)}; leave decoders and token losses out, or take another "
                f"encoder"
            )
        features = building.given(features, self.spec)
        if features.ndim == 3:
            return features if self.spec.extra_tokens else features[:, self._prefix :]
        if features.shape[1] == model.num_features:
            return features.flatten(2).transpose(1, 2)
        return features.flatten(1, 2)  # channels last, as Swin has them

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Pooled features_BD, as the classifier would get them."""
        return self._pooled(self._features(pixels_BCHW))

    def facts(self) -> ImageFacts:
        """See ``types.TellsFacts``."""
        model: Any = self.model
        extra = int(getattr(model, "num_prefix_tokens", 0))
        config = self.data_config
        return building.image_facts(self, extra_tokens=extra, mean=config["mean"], std=config["std"])

    def class_rows(self) -> ClassRows | None:
        """The classifier's rows with timm's English names; None without a linear ImageNet-1k classifier."""
        from timm.data import ImageNetInfo

        model: Any = self.model
        last = model.get_classifier()
        if not isinstance(last, nn.Linear) or (last.out_features, last.in_features) != (1000, self.width):
            return None
        info = ImageNetInfo("imagenet-1k")
        names = tuple(
            tuple(name.strip() for name in info.index_to_description(index).split(",")) for index in range(1000)
        )
        weight_KD = last.weight.detach().float().clone()
        bias_K = weight_KD.new_zeros(1000) if last.bias is None else last.bias.detach().float().clone()
        return ClassRows(weight_KD, bias_K, names)

    def save_config(self, folder: Path) -> None:
        """Writes ``config.json`` in timm's hub layout."""
        model: Any = self.model
        cfg = {key: value for key, value in dict(model.pretrained_cfg).items() if value is not None}
        for key in ("architecture", "file", "url", "state_dict", "source", "hf_hub_id", "hf_hub_filename"):
            cfg.pop(key, None)
        content = {
            "architecture": self.architecture,
            "num_classes": model.num_classes,
            "num_features": model.num_features,
            "pretrained_cfg": {**cfg, "num_classes": model.num_classes},
            "model_args": self._arguments,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _CONFIG).write_text(json.dumps(content, indent=2, default=str), encoding="utf-8")


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / _CONFIG).is_file():
        raise AssetError(f"{folder} is no timm folder in hub layout: it has no {_CONFIG}")
    content = read_settings(folder / _CONFIG)
    if content.get("architecture") is None:
        raise AssetError(f"{folder / _CONFIG} has no key 'architecture'; it is no timm model")
    return content


def _weights(folder: Path) -> Path | None:
    """The weights file of a folder in hub layout, if any; pickles of tensors where there are no safetensors."""
    for pattern in ("model.safetensors", "*.safetensors", "pytorch_model.*", "*.bin", "*.pth", "*.pt"):
        if found := sorted(folder.glob(pattern)):
            return found[0]
    return None


def _taking(weights: Path | None) -> dict[str, Any]:
    """Settings of timm that name this weights file alone, whatever a configuration says of addresses and loaders."""
    places: dict[str, Any] = {
        "source": None,
        "url": None,
        "hf_hub_id": None,
        "hf_hub_filename": None,
        "state_dict": None,
    }
    return {} if weights is None else {**places, "custom_load": False, "file": str(weights)}
