"""multilingual-e5-small from its 4-bit file (magic ``E5S1``) to a transformers folder.

The file, little-endian: magic, u32 version, seven i32 (hidden, layers, heads, feed-forward, vocabulary, positions,
token types), f32 layer-norm epsilon, i32 block; the tokenizer (five i32: pieces, bos, eos, pad, unk; u64 blob
length; pieces + 1 u32 offsets; pieces f32 scores; the blob; i32 count and u32 length of a table, and the table),
which tokenizer.json makes redundant; then an i32 count of tensors and for each: u16 name length, name, u8 dtype (1
= 4-bit, 0 = f32), u32 elements, u64 offset, u64 bytes. A 4-bit block is one f16 scale and 16 bytes: weight j is the
low nibble of byte j, weight j + 16 the high one, less 8, times scale.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlkit.errors import AssetError

_MAGIC, _VERSION, _BLOCK = b"E5S1", 1, 32
_BLOCK_DTYPE = np.dtype([("scale", "<f2"), ("nibbles", "u1", (_BLOCK // 2,))])
_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>"}
_SPECIAL |= {"pad_token": "<pad>", "mask_token": "<mask>"}
# the file's sizes, and what it does not say, as keys of config.json
_SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
    "max_position_embeddings", "type_vocab_size",
)  # fmt: skip
_UNSAID: dict[str, Any] = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "model_type": "bert",
}
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def convert(files: Mapping[str, bytes], folder: Path) -> Iterator[int]:
    """Writes the folder and yields the percentage done.

    ``files`` has ``weights`` (the E5S1 file) and ``tokenizer`` (a tokenizer.json).

    Raises:
        AssetError: The weights are not what the format says.
    """
    from safetensors.numpy import save_file

    config, entries = _read_index(files["weights"])
    tensors: dict[str, NDArray[np.float32]] = {}
    shapes = _shapes(config)
    _check_names(entries, shapes)
    for index, (name, shape) in enumerate(shapes.items()):
        tensors[hub_name(name)] = _tensor(files["weights"], name, entries[name]).reshape(shape)
        yield 60 * (index + 1) // len(shapes)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    yield 90
    (folder / "tokenizer.json").write_bytes(files["tokenizer"])
    tokenizer: dict[str, Any] = {**_SPECIAL, "tokenizer_class": "PreTrainedTokenizerFast"}
    tokenizer |= {"model_max_length": config["max_position_embeddings"], "clean_up_tokenization_spaces": False}
    tokenizer |= {"model_input_names": ["input_ids", "attention_mask"]}
    pooling: dict[str, Any] = {"word_embedding_dimension": config["hidden_size"]}
    pooling |= {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling").mkdir()
    for path, content in {
        "config.json": dict(sorted({**_UNSAID, **config}.items())),
        "tokenizer_config.json": tokenizer,
        "special_tokens_map.json": _SPECIAL,
        "1_Pooling/config.json": pooling,
    }.items():
        (folder / path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    yield 100


class _Stored(NamedTuple):
    """Where a tensor lies in the file and how it is written."""

    dtype: int
    elements: int
    offset: int
    size: int


class _Reader:
    """Reads little-endian values one after the other and says what was being read when the file ends."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, layout: str, what: str) -> tuple[Any, ...]:
        layout = "<" + layout
        return struct.unpack_from(layout, self.raw, self.skip(struct.calcsize(layout), what))

    def skip(self, size: int, what: str) -> int:
        start = self.at
        if size < 0 or start + size > len(self.raw):
            raise AssetError(
                f"the E5S1 file ends too early: {what} at byte {start} takes {size} bytes, the file has {len(self.raw)}"
            )
        self.at = start + size
        return start


def _read_index(raw: bytes) -> tuple[dict[str, Any], dict[str, _Stored]]:
    """What the header says, as keys of config.json, and the table of tensors.

    Raises:
        AssetError: The file is of another kind, or cut short.
    """
    reader = _Reader(raw)
    if (magic := reader.take("4s", "the magic")[0]) != _MAGIC:
        raise AssetError(f"not an E5S1 file: it begins with {magic!r}, not {_MAGIC!r}")
    if (version := reader.take("I", "the version")[0]) != _VERSION:
        raise AssetError(f"an E5S1 file of version {version}; only version {_VERSION} can be read")
    sizes = reader.take("7i", "the sizes")
    (eps,) = reader.take("f", "the epsilon")
    if (block := reader.take("i", "the block size")[0]) != _BLOCK:
        raise AssetError(f"an E5S1 file with blocks of {block}; only blocks of {_BLOCK} can be read")
    if min(sizes) < 1 or sizes[0] % sizes[2] or sizes[1] > 999:
        raise AssetError(
            f"an E5S1 file with impossible sizes {sizes} (hidden, layers, heads, feed-forward, vocabulary, positions, "
            f"token types)"
        )
    pieces, bos, eos, pad, _ = reader.take("5i", "the tokenizer's header")
    (blob,) = reader.take("Q", "the tokenizer's length")
    reader.skip(4 * (pieces + 1) + 4 * pieces + blob, "the tokenizer")
    _, table = reader.take("iI", "the normalisation table's header")
    reader.skip(table, "the normalisation table")
    entries: dict[str, _Stored] = {}
    for index in range(reader.take("i", "the number of tensors")[0]):
        (length,) = reader.take("H", f"the name of tensor {index}")
        (name,) = reader.take(f"{length}s", f"the name of tensor {index}")
        entries[name.decode(errors="replace")] = _Stored(*reader.take("BIQQ", f"the entry of tensor {index}"))
    # 1e-12 comes back from 32 bits with a tail of digits; the shortest number with the same bits is meant.
    special = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    return {**dict(zip(_SIZES, sizes, strict=True)), "layer_norm_eps": float(str(np.float32(eps))), **special}, entries


def hub_name(name: str) -> str:
    """The name a tensor has in ``BertModel``, from its short name in the file (``l3.ao.w``)."""
    path, _, kind = name.rpartition(".")
    suffix = "weight" if kind == "w" else "bias"
    if path == "emb.ln":
        return f"embeddings.LayerNorm.{suffix}"
    if path == "emb":
        table = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings"}[kind]
        return f"embeddings.{table}.weight"
    layer, _, part = path.partition(".")
    return f"encoder.layer.{int(layer[1:])}.{_LAYER[part]}.{suffix}"


def dequantise(raw: bytes | memoryview) -> NDArray[np.float32]:
    """4-bit blocks to float32, all at once."""
    blocks = np.frombuffer(raw, _BLOCK_DTYPE)
    values = np.empty((len(blocks), _BLOCK), np.float32)
    half = _BLOCK // 2
    np.bitwise_and(blocks["nibbles"], 15, out=values[:, :half], casting="unsafe")
    np.right_shift(blocks["nibbles"], 4, out=values[:, half:], casting="unsafe")
    values -= 8
    values *= blocks["scale"].astype(np.float32)[:, None]
    return values.reshape(-1)


def _shapes(config: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    width, layers, _, inner, vocabulary, positions, token_types = (config[name] for name in _SIZES)
    shapes: dict[str, tuple[int, ...]] = {
        "emb.word": (vocabulary, width),
        "emb.pos": (positions, width),
        "emb.type": (token_types, width),
        "emb.ln.w": (width,),
        "emb.ln.b": (width,),
    }
    matrices = {"q": (width, width), "k": (width, width), "v": (width, width), "ao": (width, width)}
    matrices |= {"fi": (inner, width), "fo": (width, inner)}
    for layer in range(layers):
        for part in _LAYER:
            matrix = matrices.get(part)
            shapes[f"l{layer}.{part}.w"] = matrix or (width,)
            shapes[f"l{layer}.{part}.b"] = (matrix[0] if matrix else width,)
    return shapes


def _check_names(entries: Mapping[str, _Stored], shapes: Mapping[str, tuple[int, ...]]) -> None:
    missing, extra = sorted(set(shapes) - set(entries)), sorted(set(entries) - set(shapes))
    if missing or extra:
        raise AssetError(
            f"the E5S1 file does not hold the tensors of its sizes: missing {missing[:5]}, not expected {extra[:5]}"
        )
    for name, shape in shapes.items():
        if (found := entries[name].elements) != (expected := int(np.prod(shape))):
            raise AssetError(f"tensor {name!r} of the E5S1 file has {found} elements, shape {shape} takes {expected}")


def _tensor(raw: bytes, name: str, entry: _Stored) -> NDArray[np.float32]:
    size = {0: 4 * entry.elements, 1: entry.elements // _BLOCK * _BLOCK_DTYPE.itemsize}.get(entry.dtype)
    if size is None:
        raise AssetError(
            f"tensor {name!r} of the E5S1 file has dtype {entry.dtype}; there are 0 (float32) and 1 (4-bit)"
        )
    if size != entry.size or (entry.dtype == 1 and entry.elements % _BLOCK):
        raise AssetError(
            f"tensor {name!r} of the E5S1 file has {entry.size} bytes; {entry.elements} elements take {size}"
        )
    if entry.offset + size > len(raw):
        raise AssetError(
            f"the E5S1 file ends too early: tensor {name!r} at byte {entry.offset} takes {size} bytes, "
            f"the file has {len(raw)}"
        )
    content = memoryview(raw)[entry.offset : entry.offset + size]
    values = np.frombuffer(content, "<f4").astype(np.float32) if entry.dtype == 0 else dequantise(content)
    if not np.isfinite(values).all():
        raise AssetError(f"tensor {name!r} of the E5S1 file holds values that are not finite; the file is damaged")
    return values
