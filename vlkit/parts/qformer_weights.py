"""Weights of Q-Formers, by whatever name they were stored: LAVIS files, transformers' BLIP-2, and vlkit's own models.

There is one table of names (``_BLIP2``), ours against those of transformers; names of LAVIS are turned into these first
(as transformers' own conversion does).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vlkit.errors import AssetError, VlkitError, some
from vlkit.nn.qformer import QueryTransformer
from vlkit.parts.assets import hub
from vlkit.parts.configs import read_settings
from vlkit.parts.weight_files import read_header, read_tensors
from vlkit.spec.load import read_document

_BERT_HEADS = 12  # transformers may leave defaults out of its files
log = logging.getLogger(__name__)

_BLIP2 = {
    "queries_MW": "query_tokens",
    "norm.": "qformer.layernorm.",
    "image_norm.": "vision_model.post_layernorm.",
    "projection.": "language_projection.",
}
_LAYER = re.compile(r"(layers\.|qformer\.encoder\.layer\.)(\d+\.)(.+)")
_BLIP2_LAYER = {
    "attention.query.": "attention.attention.query.",
    "attention.key.": "attention.attention.key.",
    "attention.value.": "attention.attention.value.",
    "attention.out.": "attention.output.dense.",
    "attention.norm.": "attention.output.LayerNorm.",
    "cross.query.": "crossattention.attention.query.",
    "cross.key.": "crossattention.attention.key.",
    "cross.value.": "crossattention.attention.value.",
    "cross.out.": "crossattention.output.dense.",
    "cross.norm.": "crossattention.output.LayerNorm.",
    "ffn.up.": "intermediate_query.dense.",
    "ffn.down.": "output_query.dense.",
    "ffn.norm.": "output_query.LayerNorm.",
}
_LAVIS = (
    (re.compile(r"^(model\.)+"), ""),
    (re.compile(r"^Qformer\.bert\.embeddings\.LayerNorm\."), "qformer.layernorm."),
    (re.compile(r"^Qformer\.bert\.encoder\."), "qformer.encoder."),
    (re.compile(r"attention\.self\."), "attention.attention."),
    (re.compile(r"^(t5|opt|llm)_proj\."), "language_projection."),
    (re.compile(r"^ln_vision\."), "vision_model.post_layernorm."),
)
_TEXT = re.compile(r"qformer\.encoder\.layer\.\d+\.(intermediate|output)\.")  # the feed-forward layers of texts
_MAY_BE_NEW = re.compile(r"projection\.|image_norm\.|layers\.\d+\.cross\.(key|value)\.")


class TakenWeights(NamedTuple):
    """What became of a Q-Former's weights, by our names: ``new`` are drawn anew, ``unused`` were in the files alone.

    Of a file of a whole model only what belongs to its Q-Former counts as unused.
    """

    new: tuple[str, ...]
    unused: tuple[str, ...]


def load_qformer(bridge: QueryTransformer, path: Path) -> TakenWeights:
    """Puts stored weights into a Q-Former, in place.

    New are at most those that depend on what it stands between, where the stored ones are not there or of other widths:
    the projection to the language model, the norm of the image tokens, and the keys and values of the image.

    Args:
        bridge: What takes them.
        path: A file (safetensors or a pickle of tensors) or a folder with safetensors: of LAVIS, of transformers'
            ``Blip2*`` classes, or a model folder of vlkit.

    Raises:
        AssetError: They are not there or cannot be read.
        VlkitError: They are of no Q-Former, or of one with other sizes; the message names tensors and the key to set.
    """
    headers = {file: read_header(file) for file in _files(path)}
    where = {name: file for file, inside in headers.items() for name in inside}
    shapes = {name: shape for inside in headers.values() for name, shape in inside.items()}
    stored = _stored_names(shapes, path)
    wanted = bridge.state_dict()
    _check_heads(bridge, path)
    _check_layers(stored, wanted, path)
    new = {name for name in wanted if _MAY_BE_NEW.match(name) and not _fits(name, stored, shapes, wanted)}
    new |= {name.replace("weight", "bias") for name in new if name.endswith("weight")}  # a pair belongs together
    new &= wanted.keys()
    _check(stored, shapes, wanted={name: one for name, one in wanted.items() if name not in new}, where=path)
    taken = {name: stored[name] for name in wanted if name not in new}
    with torch.no_grad():
        for name, tensor in _read(taken, where):
            wanted[name].copy_(tensor.reshape(wanted[name].shape))
    report = TakenWeights(tuple(sorted(new)), tuple(sorted(stored.keys() - taken.keys())))
    if report.new:
        log.warning(
            "the Q-Former takes its weights from %s, but for %d that depend on what it stands between and are drawn "
            "anew: %s", path, len(report.new), some(report.new, most=4),
        )  # fmt: skip
    if report.unused:
        log.info("not used of %s: %s", path, some(report.unused, most=4))
    return report


def blip2_name(name: str) -> str:
    """What transformers' ``Blip2ForConditionalGeneration`` calls a tensor of a Q-Former: ``norm.bias`` is
    ``qformer.layernorm.bias``.

    Raises:
        KeyError: A Q-Former has no such tensor.
    """
    if found := _LAYER.fullmatch(name):
        return f"qformer.encoder.layer.{found[2]}{_swapped(found[3], _BLIP2_LAYER)}"
    return _swapped(name, _BLIP2)


def _swapped(name: str, table: Mapping[str, str]) -> str:
    start = next((start for start in table if name.startswith(start)), None)
    if start is None:
        raise KeyError(name)
    return table[start] + name.removeprefix(start)


def _own_name(name: str) -> str | None:
    """Our name of a tensor of LAVIS or transformers; None where a Q-Former without text has none such."""
    for pattern, put in _LAVIS:
        name = pattern.sub(put, name)
    if _TEXT.match(name):
        return None
    try:
        if found := _LAYER.fullmatch(name):
            return f"layers.{found[2]}{_swapped(found[3], {theirs: own for own, theirs in _BLIP2_LAYER.items()})}"
        return _swapped(name, {theirs: own for own, theirs in _BLIP2.items()})
    except KeyError:
        return None


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        if problem := hub.weights_problem(path):
            raise AssetError(f"model.bridge.weights: {problem}; or name a file")
        return hub.weight_files(path)
    if not path.is_file():
        raise AssetError(f"model.bridge.weights: there is no {path}; name a file or folder with a Q-Former's weights")
    return [path]


def _stored_names(shapes: Iterable[str], path: Path) -> dict[str, str]:
    """Our names of the Q-Former's tensors in a file, each with the name that it has there."""
    names = list(shapes)
    for start in (name.removesuffix("queries_MW") for name in names if name.split(".")[-1] == "queries_MW"):
        own = {name.removeprefix(start): name for name in names if name.startswith(start)}
        if any(
            name.startswith("text.") for name in names
        ):  # it was trained with texts: its projection is to their space
            own = {name: stored for name, stored in own.items() if not name.startswith("projection.")}
        return own
    theirs = {ours: name for name in names if (ours := _own_name(name)) is not None}
    if "queries_MW" not in theirs:
        raise VlkitError(
            f"model.bridge.weights: {path} holds no Q-Former: none of its {len(names)} tensors are learned queries "
            f"(query_tokens); name weights of BLIP-2, or of a vlkit model with a bridge of kind qformer"
        )
    return theirs


def _shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if name == "queries_MW" and len(shape) == 3 and shape[0] == 1 else shape


def _fits(
    name: str, stored: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], wanted: Mapping[str, Tensor]
) -> bool:
    return name in stored and _shape(name, shapes[stored[name]]) == tuple(wanted[name].shape)


def _check_heads(bridge: QueryTransformer, path: Path) -> None:
    """The number of heads changes no shape: a folder's configuration is asked for it."""
    file, heads = path / "config.json", bridge.heads
    if file.is_file():
        made = read_settings(file).get("qformer_config")
        heads = made.get("num_attention_heads", _BERT_HEADS) if isinstance(made, dict) else heads
    elif (file := path / "spec.yaml").is_file():
        made = read_document(file).plain()
        for key in ("model", "bridge"):
            made = made.get(key) if isinstance(made, dict) else None
        heads = made.get("heads", heads) if isinstance(made, dict) else heads
    if heads != bridge.heads:
        raise VlkitError(
            f"model.bridge.weights: {file} says {heads} heads; set model.bridge.heads to {heads} instead of "
            f"{bridge.heads}"
        )


def _check_layers(stored: Iterable[str], wanted: Iterable[str], path: Path) -> None:
    theirs, ours = (
        1 + max((int(found[2][:-1]) for name in names if (found := _LAYER.fullmatch(name))), default=-1)
        for names in (stored, wanted)
    )
    if theirs != ours:
        raise VlkitError(
            f"model.bridge.weights: {path} holds a Q-Former of {theirs} layers; set model.bridge.layers to {theirs} "
            f"instead of {ours}"
        )


def _check(
    stored: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], *, wanted: Mapping[str, Tensor], where: Path
) -> None:
    begin = f"model.bridge.weights: the Q-Former in {where}"
    if missing := sorted(wanted.keys() - stored.keys()):
        raise VlkitError(
            f"{begin} lacks {len(missing)} of the tensors that model.bridge describes: {some(missing, most=4)}; "
            f"cross_every and layers must be those that it was made with"
        )
    crossed = sorted(
        name for name in stored if ".cross." in name and name not in wanted and not _MAY_BE_NEW.match(name)
    )
    if crossed:
        raise VlkitError(
            f"{begin} looks at the image where model.bridge does not: {some(crossed, most=4)}; set "
            f"model.bridge.cross_every to what it was made with"
        )
    differing = [name for name in wanted if not _fits(name, stored, shapes, wanted)]
    if differing:
        told = [
            f"{name} is {list(_shape(name, shapes[stored[name]]))}, not {list(wanted[name].shape)}"
            for name in differing[:3]
        ]
        raise VlkitError(
            f"{begin} is of other sizes: {len(differing)} tensors differ ({'; '.join(told)}); set num_queries, width "
            f"and ffn of model.bridge to its own"
        )


def _read(taken: Mapping[str, str], where: Mapping[str, Path]) -> Iterator[tuple[str, Tensor]]:
    own = {stored: name for name, stored in taken.items()}
    for file in sorted({where[name] for name in own}):
        for stored, tensor in read_tensors(file, own.keys()).items():
            yield own[stored], tensor
