"""Loads models of transformers safely and quietly, and splits two-tower models into their sides."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vlkit.errors import AssetError, VlkitError
from vlkit.parts.assets import hub
from vlkit.parts.building import foreign_errors, hold, weightless
from vlkit.parts.configs import check_settings, read_settings
from vlkit.parts.weight_files import check_layers_used, read_headers, within
from vlkit.spec.parts import LibrarySpec

_ADAPTER = "adapter_config.json"
_UNLISTED = {"blip_2_vision_model": "Blip2VisionModel"}  # AutoModel does not know these
_SIDES = {"image": ("vision", "visual"), "text": ("text",)}


def read_config(folder: Path) -> Any:
    """The transformers config of a folder in hub layout; no code from the folder is run.

    Raises:
        AssetError: There is none, it is of a kind transformers does not know, or it says what none may.
    """
    from transformers import AutoConfig

    check_settings(folder)
    with foreign_errors(f"{folder} is no transformers model that can be read"), quiet():
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=False)


def unusable(config: Any, *, where: str) -> str:
    """The beginning of an error about a model that is neither known to work nor of a form that is."""
    return f"{where}: models of model_type = {config.model_type!r} are of a form that vlkit cannot use"


def token_table(model: Any, *, where: str) -> nn.Embedding:
    """The embedding of a text model's tokens.

    Raises:
        VlkitError: It has none that is known.
    """
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # CLIP-like text models keep it one level further down
        tables = [part for name, part in model.named_modules() if re.search(r"(token|word)_embeddings?$", name)]
        table = tables[0] if tables else None
    if not isinstance(table, nn.Embedding):
        raise VlkitError(f"{where}: {type(model).__name__} has no token embedding that is known; is it a text model?")
    return table


def is_two_tower(config: Any) -> bool:
    """Whether the config is that of a CLIP-like model with both an image and a text side."""
    model_class = _model_class(config)
    return all(hasattr(model_class, name) for name in ("get_image_features", "get_text_features")) and all(
        hasattr(config, name) for name in ("vision_config", "text_config")
    )


def load_model(
    folder: Path,
    config: Any,
    *,
    spec: LibrarySpec,
    auto: Any = None,
    pooler: bool = True,
    saved: Path | None = None,
    empty: bool = False,
    **loading: Any,
) -> tuple[nn.Module, bool]:
    """Builds a model in the precision of its spec, with the folder's weights or without.

    ``auto`` is the class of transformers that builds it, ``AutoModel`` where it is None; ``loading`` are further
    arguments of its ``from_pretrained``. ``pooler`` keeps a pooling layer on top, where the architecture has one and
    the weights hold it; ``saved`` and ``empty`` leave the weights unset, or on the meta device (see ``weightless``).

    Returns:
        The model, and whether a pooling layer was left out because the weights lack it.

    Raises:
        AssetError: Files are missing or damaged.
        VlkitError: The weights lack tensors of the model, which would stay random.
    """
    auto = auto or _auto_class(config)
    options: dict[str, Any] = {} if pooler or not _has_pooler(config) else {"add_pooling_layer": False}
    shapes = read_headers(file for file in hub.weight_files(folder) if file.is_file())
    borne_out = within(shapes, where=folder, settings=read_settings(folder / "config.json"))
    if not spec.pretrained or saved or empty:
        cannot = foreign_errors(f"cannot build the model of {folder / 'config.json'}")
        with cannot, weightless(saved=saved is not None, empty=empty), borne_out, quiet():
            model = auto.from_config(config, trust_remote_code=False, **options).float()
        hold(model, spec)
        return model, False
    if low := spec.dtype != "float32":  # never all of them in float32; transformers knows what must stay so
        options["dtype"] = getattr(torch, spec.dtype)
    _check_no_adapter(folder)
    with foreign_errors(f"cannot load the weights in {folder}"), quiet(), borne_out:
        model, report = auto.from_pretrained(
            str(folder),
            config=config,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # told below, by name
            **options,
            **loading,
        )
    _check_shapes(report["mismatched_keys"], folder)
    check_layers_used(shapes, report["unexpected_keys"], where=folder)
    missing = sorted(report["missing_keys"])
    if missing and pooler and _has_pooler(config) and all("pooler." in key for key in missing):
        return load_model(folder, config, spec=spec, auto=auto, pooler=False, **loading)[0], True
    if missing:
        raise VlkitError(
            f"the weights in {folder} lack {len(missing)} of the tensors of {type(model).__name__} "
            f"(the first: {missing[0]}), which would stay random; is it the right model?"
        )
    return model if low or loading else model.float(), False  # what is quantised is cast by nobody


def _check_no_adapter(folder: Path) -> None:
    if (folder / _ADAPTER).is_file():
        raise AssetError(
            f"{folder} holds {_ADAPTER}: transformers would load the model named there instead; merge the adapter into "
            f"its model first (peft's merge_and_unload), and save that"
        )


def _check_shapes(mismatched: Iterable[tuple[str, Any, Any]], folder: Path) -> None:
    if found := sorted(mismatched):
        name, stored, wanted = found[0]
        raise VlkitError(
            f"{folder}: its configuration and its weights do not belong together: {len(found)} tensors differ in shape "
            f"(the first: {name}, {list(stored)} in the weights and {list(wanted)} by {folder / 'config.json'}); "
            f"get the folder again, all of it"
        )


def keep_side(model: nn.Module, side: Literal["image", "text"]) -> nn.Module:
    """A two-tower model that holds one side's modules only; the library's own ``get_..._features`` still works."""
    shell = copy.copy(model)
    # copy.copy shares the tables of the original; give the shell its own
    shell._parameters = {}  # the similarity scale and bias belong to no side
    shell._modules = {name: part for name, part in model._modules.items() if name.startswith(_SIDES[side])}
    return shell


def last_states(output: Any, *, where: str) -> Tensor:
    """The last block's states of what a model gave.

    Raises:
        VlkitError: It gives its pooled features alone.
    """
    states: Tensor | None = getattr(output, "last_hidden_state", None)
    if states is None:
        raise VlkitError(f"{where}: this transformers gives no states beside the features; take 5.0 or newer")
    return states


def side_width(model: nn.Module, config: Any, *, side: Literal["image", "text"]) -> int | None:
    """Width of what ``get_image_features`` or ``get_text_features`` of a two-tower model returns; None: not known."""
    projection = getattr(model, "visual_projection" if side == "image" else "text_projection", None)
    if linear := [part for part in projection.modules() if isinstance(part, nn.Linear)] if projection else []:
        return int(linear[-1].out_features)
    part = config.vision_config if side == "image" else config.text_config
    return next(
        (int(width) for name in ("projection_size", "hidden_size") if (width := getattr(part, name, None))), None
    )


class _OneClass:
    """A class of transformers that builds itself, as its ``Auto`` classes build others."""

    def __init__(self, model_class: Any) -> None:
        self.from_pretrained, self._build = model_class.from_pretrained, model_class._from_config

    def from_config(self, config: Any, *, trust_remote_code: bool, **options: Any) -> Any:
        """A model of this configuration; there is no code to trust."""
        return self._build(config, **options)


def _auto_class(config: Any) -> Any:
    from transformers import AutoModel

    return _OneClass(_model_class(config)) if config.model_type in _UNLISTED else AutoModel


def _model_class(config: Any) -> Any:
    import transformers
    from transformers import MODEL_MAPPING

    if config.model_type in _UNLISTED:
        return getattr(transformers, _UNLISTED[config.model_type])
    try:
        found = MODEL_MAPPING[type(config)]
    except KeyError:
        raise VlkitError(f"transformers has no plain model for model_type = {config.model_type!r}") from None
    return found[0] if isinstance(found, (tuple, list)) else found


def _has_pooler(config: Any) -> bool:
    return "add_pooling_layer" in inspect.signature(_model_class(config).__init__).parameters


@contextmanager
def never_asking() -> Iterator[None]:
    """Where others call transformers meanwhile, it refuses to run code that comes with a model, and asks nobody."""
    from transformers import dynamic_module_utils

    seconds = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # how long it waits for an answer
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = seconds


@contextmanager
def quiet() -> Iterator[None]:
    """No load reports and no bars of transformers meanwhile: what matters of them becomes our errors."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
