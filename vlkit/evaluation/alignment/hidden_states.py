"""Texts to the states of every layer: language models and encoders of transformers, and the text sides of whole models.

B batch, L tokens with padding, D width of a layer, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.parts.building import compact
from vlkit.paths import local_path
from vlkit.types import GivesStates, ImageTextModel, Model, TextBatch, TextEncoder, as_module

PROJECTED = "projected"
LAST = "last block"
_MAX_LENGTH = 512


class States(NamedTuple):
    """What one forward pass gave: states_BLD of each layer with the mask they go by, and the model's own embedding."""

    layers: tuple[Tensor, ...]
    mask_BL: Tensor
    projected_BE: Tensor | None


@dataclass(frozen=True)
class LayeredText:
    """Texts to the states of layers: what ``module`` gives, maybe as a part of an image-text ``model``.

    Attributes:
        tokenize: ``tokenize(texts, language=tag)`` -> ``TextBatch``.
        states: Tokens to states, on the module's device.
        layers: Names of the layers: ``"0"`` is the token embedding, ``"1"`` the first transformer layer, and so on.
        projects: Whether there is an embedding of the model's own besides, L2-normalised.
        depth: Transformer layers, where all of them are given; else 0.
        pieces: Texts to token ids without special tokens; None where only whole inputs can be counted.
        unknown_id: The token that stands for what the tokenizer does not know.
        prefix: What the tokenizer puts before every text.
        note: What this tower cannot give.
    """

    module: nn.Module
    tokenize: Callable[..., TextBatch]
    states: Callable[[TextBatch], States]
    layers: tuple[str, ...]
    projects: bool
    depth: int = 0
    pieces: Callable[[Sequence[str]], list[list[int]]] | None = None
    unknown_id: int | None = None
    prefix: str = ""
    note: str = ""
    model: ImageTextModel | None = None


def open_text(name: str, *, device: str = "cpu") -> LayeredText:
    """Loads a language model or encoder of transformers (``hf:ID`` or a folder), or what ``vlkit.load`` takes.

    Raises:
        UnknownName: Nothing of this name.
        VlkitError: The files cannot be had or read.
    """
    from vlkit.models.folder import load
    from vlkit.models.locate import kind_of
    from vlkit.parts import assets
    from vlkit.parts.encoders import build_text_encoder
    from vlkit.parts.hf_common import is_two_tower, read_config
    from vlkit.spec.parts import HfText

    rest = name.removeprefix("hf:")
    folder = local_path(rest)
    found: Path | None = None
    if folder.is_dir():
        found = folder if kind_of(folder) == "hf" else None
    elif rest != name and rest:
        found = assets.resolve(rest, library="hf")
    if found is None or is_two_tower(read_config(found)):
        return from_model(load(name, device=device, expect=ImageTextModel))  # type: ignore[type-abstract]
    encoder = build_text_encoder(HfText(name=rest, max_length=_MAX_LENGTH))
    return from_encoder(cast("nn.Module", encoder).to(device))


def from_encoder(encoder: nn.Module) -> LayeredText:
    """A text encoder alone (``vlkit.text_encoder``), without an embedding of its own."""
    return _layered(encoder, encoder, run=encoder, model=None)


def from_model(model: ImageTextModel) -> LayeredText:
    """The text side of an image-text model: its embedding, and the layers below as far as its encoder shows them."""
    parts = model.parts().values() if isinstance(model, Model) else ()
    encoder = next((part for part in parts if isinstance(part, TextEncoder)), None)
    return _layered(as_module(model), encoder, run=model.encode_text, model=model)


def _layered(
    module: nn.Module, encoder: Any, *, run: Callable[[TextBatch], Tensor], model: ImageTextModel | None
) -> LayeredText:
    from vlkit.parts.hf_common import is_two_tower
    from vlkit.parts.hf_text import HfTextEncoder
    from vlkit.parts.open_clip_parts import OpenClipTextEncoder

    tokenize = (encoder if model is None else model).tokenize
    common: dict[str, Any] = {"module": module, "tokenize": tokenize, "projects": model is not None, "model": model}
    if isinstance(encoder, HfTextEncoder):
        common |= {"prefix": encoder.spec.prefix or "", **_hf_pieces(encoder.tokenizer.tokenizer)}
        whole: Any = encoder.model
        inner = whole.text_model if encoder.projects and is_two_tower(encoder.config) else whole
        return LayeredText(**common | _hf_states(inner, encoder.fixed_length, run, model))
    if isinstance(encoder, OpenClipTextEncoder):
        own: Any = encoder.tokenizer
        known = encoder.hf_tokenizer
        common |= {"pieces": lambda texts: [own.encode(text) for text in texts]} if known is None else _hf_pieces(known)
        tower: Any = encoder.tower
        if hasattr(tower, "forward_intermediates"):
            return LayeredText(**common | _open_clip_states(encoder, run, model))
        return LayeredText(**common | _hf_states(tower.transformer, False, run, model))
    return LayeredText(**common | _other_states(encoder, run, model))


def _hf_pieces(tokenizer: Any) -> dict[str, Any]:
    bare = partial(tokenizer, add_special_tokens=False, truncation=False)
    return {"pieces": lambda texts: bare(list(texts))["input_ids"], "unknown_id": tokenizer.unk_token_id}


def _hf_states(
    inner: nn.Module, fixed_length: bool, run: Callable[[TextBatch], Tensor], model: ImageTextModel | None
) -> dict[str, Any]:
    """All hidden states of a transformers model, taken while ``run`` does what it always does."""
    config: Any = inner.config
    depth = int(config.num_hidden_layers)

    def states(tokens: TextBatch) -> States:
        with _hidden_states(inner) as caught:
            output = run(tokens)
        if (seen := len(caught[-1]) if caught else 0) != depth + 1:
            raise VlkitError(f"{type(inner).__name__} gave {seen} hidden states; expected {depth + 1}")
        mask_BL = tokens.mask_BL if fixed_length else compact(*tokens)[1]
        return States(caught[-1], mask_BL, _unit(output, model))

    return {"states": states, "layers": tuple(map(str, range(depth + 1))), "depth": depth}


@contextmanager
def _hidden_states(inner: nn.Module) -> Iterator[list[tuple[Tensor, ...]]]:
    caught: list[tuple[Tensor, ...]] = []

    def ask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "output_hidden_states": True}

    def take(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        caught.append(tuple(output.hidden_states))

    hooks = (inner.register_forward_pre_hook(ask, with_kwargs=True), inner.register_forward_hook(take))
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()


def _open_clip_states(encoder: Any, run: Callable[[TextBatch], Tensor], model: ImageTextModel | None) -> dict[str, Any]:
    tower = encoder.tower
    depth = len(tower.transformer.resblocks)

    def states(tokens: TextBatch) -> States:
        found = tower.forward_intermediates(tokens.ids_BL, output_fmt="NLC")
        *layers, last_BLD = found["text_intermediates"]
        projected = getattr(model, "project_text", None)
        output = run(tokens) if projected is None else projected(found["text_features"])
        return States((*layers, tower.ln_final(last_BLD)), tokens.mask_BL, _unit(output, model))

    return {
        "states": states,
        "layers": tuple(map(str, range(1, depth + 1))),
        "depth": depth,
        "note": "open_clip's own text transformer gives no token embedding: layers start at 1",
    }


def _other_states(encoder: Any, run: Callable[[TextBatch], Tensor], model: ImageTextModel | None) -> dict[str, Any]:
    """Encoders that show their last block alone, or nothing at all."""
    kind = type(model if encoder is None else encoder).__name__
    if not isinstance(encoder, GivesStates):
        if model is None:
            raise VlkitError(f"the text encoder {kind} gives no states of its layers; there is nothing to compare")
        return {
            "states": lambda tokens: States((), tokens.mask_BL, _unit(run(tokens), model)),
            "layers": (),
            "note": f"{kind} gives no states of its layers: its final embedding alone is scored",
        }

    def states(tokens: TextBatch) -> States:
        pooled_BD, states_BLD = encoder.pooled_and_states(tokens)
        project = getattr(model, "project_text", None)
        output = None if model is None else run(tokens) if project is None else project(pooled_BD)
        return States((states_BLD,), compact(*tokens)[1], _unit(output, model))

    return {
        "states": states,
        "layers": (LAST,),
        "note": f"{kind} gives the states of its last block alone: no mean over layers, no Language Ranker",
    }


def _unit(output: Tensor | None, model: ImageTextModel | None) -> Tensor | None:
    return None if model is None or output is None else F.normalize(output.float(), dim=-1)
