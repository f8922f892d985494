"""What open_clip's models are made of (names, settings, weights, tokenizers), judged before open_clip reads it."""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vlkit.errors import AssetError, UnknownName, VlkitError
from vlkit.parts import building
from vlkit.parts.assets import hub
from vlkit.parts.configs import check_settings, read_settings
from vlkit.parts.hf_common import never_asking, read_config
from vlkit.parts.tokenizers import check_rules
from vlkit.parts.weight_files import read_header, read_headers, within
from vlkit.paths import local_path

CONFIG = "open_clip_config.json"
HF_TEXT = "hf_text"
"""The folder of the configuration of a transformers text tower, so that a saved model needs no hub."""


@dataclass(frozen=True)
class OpenClipName:
    """A parsed name: ``model`` as open_clip's functions take it, ``weights`` a tag or file, or None."""

    model: str
    weights: str | None

    @classmethod
    def parse(cls, name: str) -> OpenClipName:
        """Reads ``MODEL``, ``MODEL/TAG``, ``MODEL/FILE``, ``hf-hub:ORG/NAME`` or a folder in hub layout.

        Raises:
            UnknownName: There is no such model, or no such weights of it.
            AssetError: The folder holds no open_clip model.
        """
        import open_clip

        if name.startswith("hf-hub:"):
            return cls(name, None)
        folder = local_path(name)
        if folder.is_dir():
            if not (folder / CONFIG).is_file():
                raise AssetError(f"{name} is no open_clip folder in hub layout: it has no {CONFIG}")
            return cls(f"local-dir:{folder}", None)
        model, _, weights = name.partition("/")
        if model not in open_clip.list_models():
            raise UnknownName(
                "open_clip model", model, allowed=open_clip.list_models(), hint="See open_clip.list_models()."
            )
        if weights and (file := local_path(weights)).is_file():
            return cls(model, str(file))
        if weights:
            tags = open_clip.list_pretrained_tags_by_model(model)
            if weights not in tags:
                kind = f"open_clip weights of {model}"
                raise UnknownName(
                    kind, weights, allowed=tags, hint="Name one of its tags or a weights file that exists."
                )
        return cls(model, weights or None)

    @property
    def folder(self) -> Path | None:
        """The folder in hub layout; None for names."""
        return Path(self.model.removeprefix("local-dir:")) if self.model.startswith("local-dir:") else None

    @property
    def repo(self) -> str | None:
        """The name on the hub; None for folders and for names of open_clip's own."""
        return self.model.removeprefix("hf-hub:") if self.model.startswith("hf-hub:") else None

    @property
    def file(self) -> Path | None:
        """The weights file that the name ends in."""
        return Path(self.weights) if self.weights and Path(self.weights).is_file() else None


@dataclass(frozen=True)
class OpenClipConfig:
    """What open_clip keeps in ``open_clip_config.json``."""

    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]

    @classmethod
    def read(cls, name: OpenClipName, *, image_size: int | None = None) -> OpenClipConfig:
        """The config of a model, without its weights.

        Raises:
            AssetError: It cannot be read, or says what none may.
            VlkitError: A kind of model that is not offered.
        """
        import open_clip
        from open_clip.pretrained import download_pretrained_from_hf
        from open_clip.transform import PreprocessCfg, merge_preprocess_dict

        preprocess: dict[str, Any] = {}
        with hub_or_cache(name.repo is not None, f"the open_clip config of {name.model}"):
            if name.folder is not None or name.repo is not None:
                model_cfg, preprocess = _read_config(
                    name.folder / CONFIG
                    if name.folder is not None
                    else Path(download_pretrained_from_hf(name.repo, filename=CONFIG))
                )
            else:
                model_cfg = copy.deepcopy(open_clip.get_model_config(name.model))
                if name.weights and not name.file:
                    preprocess = open_clip.get_pretrained_cfg(name.model, name.weights)
        if image_size is not None:
            building.check_patches(image_size, model_cfg["vision_cfg"].get("patch_size"), where=name.model)
            model_cfg["vision_cfg"]["image_size"] = image_size
        side = model_cfg["vision_cfg"].get("image_size", 224)
        with building.foreign_errors(f"cannot use the sizes and the preprocessing of {name.model}"):
            size = {"size": side if isinstance(side, int) else side[0]}
            return cls(model_cfg, merge_preprocess_dict(merge_preprocess_dict(PreprocessCfg(), preprocess), size))

    def wants_hub(self, name: OpenClipName) -> bool:
        """Whether building this model with its weights asks the hub for anything."""
        text = self.model_cfg["text_cfg"]
        tag = name.weights is not None and name.file is None
        # of a folder, the tokenizer's files lie in it
        keys = ("hf_model_name",) if name.folder is not None else ("hf_model_name", "hf_tokenizer_name")
        towers = [text[key] for key in keys if text.get(key)]
        return tag or name.repo is not None or not all(Path(tower).is_dir() for tower in towers)

    def save(self, folder: Path) -> None:
        """Writes ``open_clip_config.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {"model_cfg": self.model_cfg, "preprocess_cfg": self.preprocess_cfg}
        (folder / CONFIG).write_text(json.dumps(content, indent=2), encoding="utf-8")


def load_whole(name: OpenClipName, *, image_size: int | None = None) -> nn.Module:
    """The open_clip model with its weights and separate towers (``.visual``, ``.text``), in float32.

    Raises:
        AssetError: There are no weights, or they cannot be had or read.
        VlkitError: open_clip cannot build the model.
    """
    import open_clip

    if name.weights is None and name.folder is None and name.repo is None:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name.model)) or "none"
        raise AssetError(
            f"open_clip:{name.model} names no weights; write MODEL/TAG (tags: {tags}) or MODEL/FILE, "
            f"or set pretrained=false"
        )
    what = f"{name.model}/{name.weights}" if name.weights else name.model
    config = OpenClipConfig.read(name)
    with hub_or_cache(config.wants_hub(name), f"the weights of open_clip:{what}"):
        check_text_tower(config)
        shapes = read_header(_weights_file(name))
        with within(shapes, where=f"open_clip:{what}", settings=config.model_cfg):
            model: nn.Module = open_clip.create_model(
                name.model,
                name.weights,
                force_custom_text=True,
                force_image_size=image_size,
                require_pretrained=True,
                pretrained_text=False,
                weights_only=True,
            )
    return model.eval()


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    settings = read_settings(path)
    model_cfg = settings.get("model_cfg") or {}
    if missing := [key for key in ("embed_dim", "vision_cfg", "text_cfg") if not model_cfg.get(key)]:
        raise AssetError(f"{path} lacks model_cfg.{missing[0]}; it is no configuration of an open_clip model")
    return model_cfg, settings.get("preprocess_cfg") or {}


def _weights_file(name: OpenClipName) -> Path:
    """The file that open_clip will read, on this machine."""
    from open_clip import factory, pretrained

    if name.folder is not None:
        if (found := factory._find_checkpoint_in_dir(name.folder)) is None:
            raise AssetError(f"{name.folder} holds no weights (open_clip_model.safetensors)")
        return Path(found)
    if name.repo is not None:
        return Path(pretrained.download_pretrained_from_hf(name.repo))
    if name.file is not None:
        return name.file
    return Path(pretrained.download_pretrained(pretrained.get_pretrained_cfg(name.model, name.weights)))


def borne_out(name: OpenClipName, config: OpenClipConfig) -> AbstractContextManager[None]:
    """Builds nothing larger than the safetensors that lie beside a configuration, where it is built without them."""
    files = () if name.folder is None else sorted(name.folder.glob("*.safetensors"))
    return within(read_headers(files), where=name.folder, settings=config.model_cfg)


def check_text_tower(config: OpenClipConfig) -> None:
    """Judges the configuration of a transformers text tower, which open_clip reads by itself and would ask about.

    Raises:
        AssetError: It cannot be read without code that comes with it, or says what none may.
    """
    from transformers import AutoConfig

    tower = config.model_cfg["text_cfg"].get("hf_model_name")
    if tower and Path(tower).is_dir():
        read_config(Path(tower))
    elif tower:
        AutoConfig.from_pretrained(tower, trust_remote_code=False)


def make_tokenizer(name: OpenClipName, config: OpenClipConfig) -> Any:
    """The tokenizer that open_clip names for a model; no code that comes with it is run.

    Raises:
        AssetError: It cannot be had or read.
    """
    import open_clip

    named = config.model_cfg["text_cfg"].get("hf_tokenizer_name")
    if named and name.repo is not None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", named):
        raise AssetError(f"{name.model}: text_cfg.hf_tokenizer_name = {named!r} is no name on the hub (ORG/NAME)")
    if named and name.folder is not None:
        check_settings(name.folder)
    options = {"trust_remote_code": False} if named else {}
    with hub_or_cache(bool(named) and name.folder is None, f"the tokenizer of open_clip:{name.model}"):
        tokenizer = open_clip.get_tokenizer(name.model, **options)
    if named:
        check_rules(tokenizer.tokenizer, where=name.model)
    return tokenizer


@contextmanager
def hub_or_cache(wants_hub: bool, what: str) -> Iterator[None]:
    """Lets open_clip ask the hub where that answers, else its cache alone, so that a missing hub costs seconds.

    Raises:
        AssetError: What is loaded inside cannot be had or read.
    """
    from huggingface_hub import constants

    why, allowed = None, constants.HF_HUB_OFFLINE
    if wants_hub:
        forbidden = hub.offline()
        unreachable = None if forbidden else hub.unreachable(hub.endpoint())
        why = f"{forbidden} is set" if forbidden else unreachable and f"{hub.endpoint()}: {unreachable}"
    if why:
        constants.HF_HUB_OFFLINE = True
    quiet = logging.root.manager.disable
    logging.disable(logging.ERROR)  # open_clip logs to the root logger what the error below says
    try:
        with never_asking():
            yield
    except VlkitError:
        raise
    except Exception as error:  # whatever open_clip and what it calls raise
        tried = f" (the hub was not asked: {why})" if why else ""
        then = (
            f". Without a hub, write MODEL/FILE with a local weights file, or name a folder with {CONFIG}, "
            f"open_clip_model.safetensors and the tokenizer's files"
        )
        raise AssetError(f"cannot load {what}{tried}: {building.said(error)}{then if wants_hub else ''}") from error
    finally:
        constants.HF_HUB_OFFLINE = allowed
        logging.disable(quiet)
