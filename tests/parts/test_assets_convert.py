"""Converters: what is in the original file is in the folder, and damaged files are named as such."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vlkit.errors import AssetError
from vlkit.parts.assets import e5, efficientnet

SIZES = (64, 2, 2, 96, 40, 16, 2)  # hidden, layers, heads, feed-forward, vocabulary, positions, token types
Tensors = dict[str, NDArray[np.float32]]


def quantise(values: NDArray[np.float32]) -> tuple[bytes, NDArray[np.float32]]:
    """4-bit blocks as the format says, one value at a time, and the values that they stand for."""
    raw, meant = b"", []
    for block in values.reshape(-1, 32):
        scale = np.float16(max(abs(float(value)) for value in block) / 7)
        nibbles = [min(15, max(0, round(float(value) / float(scale)) + 8)) for value in block]
        raw += struct.pack("<e", scale) + bytes(nibbles[j] | nibbles[j + 16] << 4 for j in range(16))
        meant += [(nibble - 8) * float(scale) for nibble in nibbles]
    return raw, np.array(meant, np.float32).reshape(values.shape)


def shapes() -> dict[str, tuple[int, ...]]:
    hidden, layers, _, inner, vocabulary, positions, types = SIZES
    named: dict[str, tuple[int, ...]] = {"emb.word": (vocabulary, hidden), "emb.pos": (positions, hidden)}
    named |= {"emb.type": (types, hidden), "emb.ln.w": (hidden,), "emb.ln.b": (hidden,)}
    for layer in range(layers):
        matrices = {"q": (hidden, hidden), "k": (hidden, hidden), "v": (hidden, hidden), "ao": (hidden, hidden)}
        for part, shape in {**matrices, "fi": (inner, hidden), "fo": (hidden, inner)}.items():
            named |= {f"l{layer}.{part}.w": shape, f"l{layer}.{part}.b": shape[:1]}
        for part in ("aln", "oln"):
            named |= {f"l{layer}.{part}.w": (hidden,), f"l{layer}.{part}.b": (hidden,)}
    return named


def write_e5(change: Callable[[Tensors], object] | None = None) -> tuple[bytes, Tensors]:
    """A small E5S1 file and the tensors that it stands for; matrices are 4-bit, the rest float32."""
    random = np.random.default_rng(0)
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes().items()}
    if change:
        change(tensors)
    head = b"E5S1" + struct.pack("<I7ifi", 1, *SIZES, 1e-12, 32)
    head += struct.pack("<5iQ", 3, 0, 2, 1, 3, 6) + struct.pack("<4I3f", 0, 2, 4, 6, 0, 0, 0) + b"abcdef"
    head += struct.pack("<iI", 1, 5) + b"table" + struct.pack("<i", len(tensors))
    index_size = sum(2 + len(name) + 21 for name in tensors)
    index, body, meant = b"", b"", {}
    for name, values in tensors.items():
        raw, meant[name] = quantise(values) if values.ndim == 2 else (values.tobytes(), values)
        offset = len(head) + index_size + len(body)
        index += struct.pack("<H", len(name)) + name.encode()
        index += struct.pack("<BIQQ", int(values.ndim == 2), values.size, offset, len(raw))
        body += raw
    return head + index + body, meant


@pytest.fixture(scope="module")
def small() -> tuple[bytes, Tensors]:
    return write_e5()


def run(raw: bytes, folder: Path) -> list[int]:
    return list(e5.convert({"weights": raw, "tokenizer": b"{}"}, folder))


def test_e5_round_trip_through_transformers(small: tuple[bytes, Tensors], tmp_path: Path) -> None:
    from transformers import BertModel

    raw, meant = small
    percents = run(raw, tmp_path)
    assert percents == sorted(percents) and percents[-1] == 100
    model, report = BertModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    state = model.state_dict()
    for name, values in meant.items():
        assert torch.equal(state[e5.hub_name(name)], torch.from_numpy(values)), name
    config = model.config
    sizes = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.intermediate_size)
    assert (*sizes, config.vocab_size, config.max_position_embeddings, config.type_vocab_size) == SIZES
    assert (config.layer_norm_eps, config.pad_token_id) == (1e-12, 1)
    assert (tmp_path / "tokenizer.json").read_bytes() == b"{}"


def test_e5_cut_anywhere_is_named(small: tuple[bytes, Tensors], tmp_path: Path) -> None:
    raw, _ = small
    index_end = raw.index(b"l1.oln.b") + len("l1.oln.b") + 21
    for length in (*range(0, index_end, 7), index_end, (index_end + len(raw)) // 2, len(raw) - 1):
        with pytest.raises(
            AssetError, match=r"^the E5S1 file ends too early: .* at byte \d+ takes \d+ bytes, the file has \d+$"
        ):
            run(raw[:length], tmp_path)
    assert list(tmp_path.iterdir()) == []


def put(raw: bytes, at: int, layout: str, value: float) -> bytes:
    changed = bytearray(raw)
    struct.pack_into(layout, changed, at, value)
    return bytes(changed)


def entry_of(raw: bytes, name: str) -> int:
    """Where the entry of a tensor begins, after its name."""
    key = struct.pack("<H", len(name)) + name.encode()
    return raw.index(key) + len(key)


def error(raw: bytes, folder: Path) -> str:
    with pytest.raises(AssetError) as caught:
        run(raw, folder)
    return str(caught.value)


def test_e5_damage_is_named(small: tuple[bytes, Tensors], tmp_path: Path) -> None:
    raw, _ = small
    bias, matrix = entry_of(raw, "l0.q.b"), entry_of(raw, "l0.q.w")
    (offset,) = struct.unpack_from("<Q", raw, bias + 5)
    said = [
        error(b"GGUF" + raw[4:], tmp_path),
        error(put(raw, 4, "<I", 2), tmp_path),
        error(put(raw, 40, "<i", 64), tmp_path),
        error(put(raw, 16, "<i", 0), tmp_path),
        error(put(raw, 12, "<i", 3), tmp_path),
        error(put(raw, 12, "<i", 2**30), tmp_path).partition("(")[0],
        error(put(raw, bias, "<B", 7), tmp_path),
        error(put(raw, matrix + 1, "<I", 4064), tmp_path),
        error(put(raw, matrix + 13, "<Q", 100), tmp_path),
        error(put(raw, offset, "<f", float("nan")), tmp_path),
        error(put(raw, 44, "<i", -9), tmp_path),
    ]
    assert said == [
        "not an E5S1 file: it begins with b'GGUF', not b'E5S1'",
        "an E5S1 file of version 2; only version 1 can be read",
        "an E5S1 file with blocks of 64; only blocks of 32 can be read",
        "an E5S1 file with impossible sizes (64, 2, 0, 96, 40, 16, 2) (hidden, layers, heads, feed-forward, "
        "vocabulary, positions, token types)",
        "the E5S1 file does not hold the tensors of its sizes: missing "
        "['l2.aln.b', 'l2.aln.w', 'l2.ao.b', 'l2.ao.w', 'l2.fi.b'], not expected []",
        "an E5S1 file with impossible sizes ",
        "tensor 'l0.q.b' of the E5S1 file has dtype 7; there are 0 (float32) and 1 (4-bit)",
        "tensor 'l0.q.w' of the E5S1 file has 4064 elements, shape (64, 64) takes 4096",
        "tensor 'l0.q.w' of the E5S1 file has 100 bytes; 4096 elements take 2304",
        "tensor 'l0.q.b' of the E5S1 file holds values that are not finite; the file is damaged",
        said[-1],
    ]
    assert said[-1].startswith("the E5S1 file ends too early: the tokenizer at byte ")


def test_e5_with_a_tensor_too_many(tmp_path: Path) -> None:
    raw, _ = write_e5(lambda tensors: tensors.update(extra=np.zeros(4, np.float32)))
    assert (
        error(raw, tmp_path)
        == "the E5S1 file does not hold the tensors of its sizes: missing [], not expected ['extra']"
    )


def test_dequantising_gives_every_nibble_its_place() -> None:
    nibbles = bytes(low | high << 4 for low, high in zip(range(16), reversed(range(16)), strict=True))
    values = e5.dequantise(struct.pack("<e", 0.5) + nibbles + struct.pack("<e", -2.0) + bytes(16))
    assert (
        values.tolist()
        == [(n - 8) * 0.5 for n in range(16)] + [(n - 8) * 0.5 for n in reversed(range(16))] + [16.0] * 32
    )


def test_renaming_pairs_tensors_in_order() -> None:
    theirs = {"a": torch.ones(2, 3), "b": torch.tensor(5, dtype=torch.int32)}
    ours = {"x.weight": torch.zeros(2, 3), "x.count": torch.tensor(0)}
    named = efficientnet.rename(theirs, ours)
    assert list(named) == ["x.weight", "x.count"] and torch.equal(named["x.weight"], theirs["a"])
    assert named["x.count"].item() == 5 and named["x.count"].dtype == torch.int64
    with pytest.raises(
        AssetError, match=r"^the checkpoint has 1 tensors, tf_efficientnet_lite0 of the installed timm has 2$"
    ):
        efficientnet.rename({"a": theirs["a"]}, ours)
    with pytest.raises(AssetError, match=r"^tensor 'a' has shape \(2, 3\), 'x' of timm has \(3, 2\)$"):
        efficientnet.rename({"a": theirs["a"]}, {"x": torch.zeros(3, 2)})


def test_efficientnet_refuses_pickled_code(tmp_path: Path) -> None:
    import io
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    stream = io.BytesIO()
    torch.save({"a": Evil()}, stream)
    with pytest.raises(pickle.UnpicklingError):
        list(efficientnet.convert({"weights": stream.getvalue()}, tmp_path))
    assert not (tmp_path / "ran").exists()
