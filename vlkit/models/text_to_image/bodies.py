"""What goes from a block of codes, behind a prompt, to the states that foretell the codes.

All bodies do the same two things: ``read`` keeps what is needed of prompts, once, and ``behind`` runs a block behind
it, as often as wished; ``states`` does both in the way that is best to learn from.

Shapes: B images, T text places, M places of a block, E width of the language model, W width of the body.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vlkit.adapt.inject import adapters_off, is_adapter
from vlkit.errors import VlkitError
from vlkit.models.assembly import trains
from vlkit.nn.code_tower import CodeTower, spread
from vlkit.spec.text_to_image import BaseBodySpec, LanguageModelBodySpec, OwnLayersBodySpec, TowerBodySpec
from vlkit.types import GivesLayerStates, KeepsPrefix, Prefix, lacking


class CodeBody(Protocol):
    """What a model asks of its body; ``width`` is W. It owns no part of the language model, which is handed in.

    ``reads_words`` says that its layers are those of a language model: embeddings of codes begin as large as words'.
    """

    width: int
    reads_words: bool

    @property
    def spec(self) -> BaseBodySpec:
        """What it was built from."""

    def read(self, model: Any, text_BTE: Tensor, mask_BT: Tensor) -> Prefix:
        """Keeps what is needed of prompts."""

    def behind(self, model: Any, block_BMW: Tensor, prefix: Prefix) -> Tensor:
        """states_BMW of a block behind prompts."""

    def states(self, model: Any, text_BTE: Tensor, mask_BT: Tensor, block_BMW: Tensor) -> Tensor:
        """The same states, to learn from."""


class LanguageModelBody:
    """The language model's own layers: adapted as a whole, or for codes alone (``text: frozen``).

    Raises:
        VlkitError: The language model cannot read blocks.
    """

    reads_words = True

    def __init__(self, spec: LanguageModelBodySpec, model: Any) -> None:
        _check(model, KeepsPrefix)
        self.spec, self.width = spec, int(model.width)

    def read(self, model: Any, text_BTE: Tensor, mask_BT: Tensor) -> Prefix:
        """See ``CodeBody``."""
        if self.spec.text == "adapted":
            return model.read_prefix(text_BTE, mask_BT)  # type: ignore[no-any-return]
        with torch.no_grad(), adapters_off(model):
            return model.read_prefix(text_BTE, mask_BT)  # type: ignore[no-any-return]

    def behind(self, model: Any, block_BMW: Tensor, prefix: Prefix) -> Tensor:
        """See ``CodeBody``."""
        states_BMW: Tensor = model.read_behind(block_BMW, prefix)
        return states_BMW

    def states(self, model: Any, text_BTE: Tensor, mask_BT: Tensor, block_BMW: Tensor) -> Tensor:
        """See ``CodeBody``; one pass where text and codes are read alike, which gradient checkpointing needs."""
        if self.spec.text == "frozen":
            if torch.is_grad_enabled():
                _check_frozen(model)
            return self.behind(model, block_BMW, self.read(model, text_BTE, mask_BT))
        states_BMW: Tensor = model.read_whole(text_BTE, mask_BT, block_BMW)
        return states_BMW


class OwnLayersBody(nn.Module):
    """A copy of the language model's layers, for codes alone; prompts are read by the model itself."""

    reads_words = True

    def __init__(self, spec: OwnLayersBodySpec, model: Any) -> None:
        super().__init__()
        _check(model, KeepsPrefix)
        self.spec, self.width = spec, int(model.width)
        self.layers = model.own_layers()

    def read(self, model: Any, text_BTE: Tensor, mask_BT: Tensor) -> Prefix:
        """See ``CodeBody``."""
        with _unless_trained(model):
            return model.read_prefix(text_BTE, mask_BT)  # type: ignore[no-any-return]

    def behind(self, model: Any, block_BMW: Tensor, prefix: Prefix) -> Tensor:
        """See ``CodeBody``."""
        states_BMW: Tensor = self.layers(block_BMW, prefix)
        return states_BMW

    def states(self, model: Any, text_BTE: Tensor, mask_BT: Tensor, block_BMW: Tensor) -> Tensor:
        """See ``CodeBody``."""
        return self.behind(model, block_BMW, self.read(model, text_BTE, mask_BT))


class TowerBody(nn.Module):
    """A tower of its own; a language model that tells no states of its layers is looked at where it ends.

    Raises:
        VlkitError: The spec names a layer that is not there.
    """

    reads_words = False

    def __init__(self, spec: TowerBodySpec, model: Any) -> None:
        super().__init__()
        self.spec, self.width = spec, spec.width
        depth = int(model.depth) if isinstance(model, GivesLayerStates) else 1
        self.reads = spec.reads or spread(spec.layers, depth)
        if len(self.reads) != spec.layers or max(self.reads) > depth:
            raise VlkitError(
                f"model.body.reads: {list(self.reads)} for {spec.layers} layers of the tower and {depth} of the "
                f"language model; give {spec.layers} numbers in 1..{depth}, or null"
            )
        self.tower = CodeTower(
            spec.width,
            layers=spec.layers,
            heads=spec.heads,
            ffn=spec.ffn,
            text_width=int(model.width),
            dropout=spec.dropout,
        )

    def read(self, model: Any, text_BTE: Tensor, mask_BT: Tensor) -> Prefix:
        """See ``CodeBody``."""
        with _unless_trained(model):
            if isinstance(model, GivesLayerStates):
                states = model.layer_states(text_BTE, mask_BT)
            else:
                states = (model(text_BTE, mask_BT),)
        return Prefix(mask_BT, self.tower.keep([states[number - 1] for number in self.reads]))

    def behind(self, model: Any, block_BMW: Tensor, prefix: Prefix) -> Tensor:
        """See ``CodeBody``."""
        states_BMW: Tensor = self.tower(block_BMW, prefix.layers, prefix.mask_BT)
        return states_BMW

    def states(self, model: Any, text_BTE: Tensor, mask_BT: Tensor, block_BMW: Tensor) -> Tensor:
        """See ``CodeBody``."""
        return self.behind(model, block_BMW, self.read(model, text_BTE, mask_BT))


_BODIES: dict[type[BaseBodySpec], Any] = {
    LanguageModelBodySpec: LanguageModelBody,
    OwnLayersBodySpec: OwnLayersBody,
    TowerBodySpec: TowerBody,
}


def build_body(spec: BaseBodySpec, model: Any) -> Any:
    """The body of a spec for a language model; weights are drawn anew, or copied from it.

    Raises:
        VlkitError: The two do not fit.
    """
    return _BODIES[type(spec)](spec, model)


def _check(model: Any, protocol: type) -> None:
    if model.encodes or not isinstance(model, protocol):
        missing = "it is an encoder-decoder" if model.encodes else f"it lacks {', '.join(lacking(model, protocol))}"
        raise VlkitError(
            f"codes cannot go through the layers of {type(model).__name__}: {missing}; take a decoder-only model, or "
            f"model.body: {{kind: tower}}"
        )


def _check_frozen(model: Any) -> None:
    own = (name for name, one in model.named_parameters() if one.requires_grad and not is_adapter(name))
    if (name := next(own, None)) is not None:
        raise VlkitError(
            f"model.body.text: frozen reads prompts with the language model as it was, and its own weights train "
            f"({name}, say); train language_model_adapter instead, or set body.text: adapted"
        )


def _unless_trained(model: Any) -> AbstractContextManager[Any]:
    return nullcontext() if trains(model) else torch.no_grad()
