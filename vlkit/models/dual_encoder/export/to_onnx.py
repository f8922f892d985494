"""A dual encoder as two ONNX graphs, one a side, with all that is needed to use them without torch.

Shapes: B batch, C channels, H height, W width, L text length, E embedding width.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from vlkit.errors import MissingPackage, VlkitError
from vlkit.models.dual_encoder.export.check import LANGUAGE, TEXTS, Probe
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.parts.building import ImageTransform, said
from vlkit.parts.hf_text import HfTextEncoder
from vlkit.parts.language_marks import marks_language, set_language
from vlkit.parts.tokenizers import load_tokenizer, save_tokenizer
from vlkit.types import TextBatch
from vlkit.version import __version__

IMAGE, TEXT, CONFIG = "image.onnx", "text.onnx", "onnx_config.json"
OPSET = 18
_IN_ONE_FILE = 1.9e9  # bytes: a protobuf file holds less than 2 GB, larger weights lie beside it
_DOCS = {
    "pixels": "float32, images as the preprocessing of onnx_config.json makes them",
    "ids": "int64, token ids, padded on the right",
    "mask": "int64, 1 for tokens and 0 for padding",
    "image_embedding": "float32, L2-normalised",
    "text_embedding": "float32, L2-normalised",
}


class OnnxDifferences(NamedTuple):
    """Largest absolute differences over the values of L2-normalised embeddings, of batches of one and of several.

    ``pixels``: of equal pixels; ``ids``: of equal token ids.
    """

    pixels: float
    ids: float


class _ImageSide(nn.Module):
    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)


class _TextSide(nn.Module):
    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model.encode_text(TextBatch(ids, mask))


def write_onnx(model: DualEncoder, folder: Path) -> list[str]:
    """Writes a graph of each side, ``onnx_config.json`` and, where they agree with the model, tokenizer files.

    The model is in eval mode on the CPU; the folder exists and is empty.

    Returns:
        What the folder cannot say, one sentence each.

    Raises:
        MissingPackage: The extra ``onnx`` is not installed.
        VlkitError: torch cannot write a side as a graph.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackage(package, purpose="export to ONNX", extra="onnx")
    pixels_BCHW = torch.stack([model.transform(Image.new("RGB", (64, 48), color)) for color in ("red", "blue")])
    short, long = (model.tokenize([text, text], language=LANGUAGE) for text in (TEXTS[0], TEXTS[-1]))
    longest, fixed = long.ids_BL.shape[1], short.ids_BL.shape == long.ids_BL.shape
    rows = {0: "batch"} if fixed else {0: "batch", 1: "length"}
    _write(_ImageSide(model), folder / IMAGE, pixels=(pixels_BCHW, {0: "batch"}), gives="image_embedding")
    _write(
        _TextSide(model), folder / TEXT, ids=(short.ids_BL, rows), mask=(short.mask_BL, rows), gives="text_embedding"
    )
    tokenizer, notes = _write_tokenizer(model, folder, fixed=fixed)
    length = longest if fixed else "length"
    content = {
        "format": 1,
        "vlkit": __version__,
        "opset": OPSET,
        "scale": float(model.scale),
        "bias": None if model.bias is None else float(model.bias),
        "image": {
            "file": IMAGE,
            "inputs": {"pixels": ["batch", *pixels_BCHW.shape[1:]]},
            "outputs": {"image_embedding": ["batch", model.embed_dim]},
            "preprocessing": model.transform.settings if isinstance(model.transform, ImageTransform) else {},
        },
        "text": {
            "file": TEXT,
            "inputs": {"ids": ["batch", length], "mask": ["batch", length]},
            "outputs": {"text_embedding": ["batch", model.embed_dim]},
            "max_length": longest,
            "tokenizer": tokenizer,
        },
    }
    (folder / CONFIG).write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str), encoding="utf-8")
    return notes


def _write(side: nn.Module, path: Path, *, gives: str, **inputs: tuple[Tensor, dict[int, str]]) -> None:
    """One graph; each of ``inputs`` is an example and the names of its axes that may have another length."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # for the developers of exporters
            program: Any = torch.onnx.export(
                side.eval(),
                tuple(example for example, _ in inputs.values()),
                input_names=list(inputs),
                output_names=[gives],
                dynamic_shapes={name: axes for name, (_, axes) in inputs.items()},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        for value in (*program.model.graph.inputs, *program.model.graph.outputs):
            value.doc_string = _DOCS[value.name]
        program.model.metadata_props.update(vlkit=__version__, card="README.md", settings=CONFIG)
        size = sum(weight.numel() * weight.element_size() for weight in side.parameters())
        program.save(str(path), external_data=size > _IN_ONE_FILE)
    except Exception as error:  # whatever exporters raise
        raise VlkitError(
            f"torch cannot write {path.name} as an ONNX graph, so nothing was kept: {said(error)}; keep vlkit's own "
            f"format, or try another version of torch"
        ) from error


def _write_tokenizer(model: DualEncoder, folder: Path, *, fixed: bool) -> tuple[dict[str, Any] | None, list[str]]:
    """Writes the files of a transformers tokenizer, if they make the model's own ids; what to call them with."""
    encoder = model.text
    if not isinstance(encoder, HfTextEncoder):
        kind = type(encoder).__name__
        return None, [f"the tokenizer of a {kind} has no files of its own: make ids and mask with model.tokenize"]
    own, aside = encoder.tokenizer, folder / "tokenizer"
    settings: dict[str, Any] = {
        "padding": "max_length" if fixed else "longest",
        "truncation": True,
        "max_length": own.max_length,
    }
    try:
        save_tokenizer(own.tokenizer, aside, prefix=own.prefix)
        again = load_tokenizer(aside)
        if marks_language(again):
            set_language(again, LANGUAGE, where=str(folder))
        made = again(list(TEXTS), return_tensors="pt", **settings)
        wanted = model.tokenize(TEXTS, language=LANGUAGE)
        equal = torch.equal(made["input_ids"] * wanted.mask_BL, wanted.ids_BL * wanted.mask_BL)
    except (VlkitError, RuntimeError, ValueError):  # a prefix without a place; rows of other lengths
        equal = False
    if not equal:
        shutil.rmtree(aside, ignore_errors=True)
        return None, [
            "files of the tokenizer alone make other ids than this model: make ids and mask with model.tokenize"
        ]
    for path in aside.iterdir():
        path.rename(folder / path.name)
    aside.rmdir()
    return settings, []


@torch.no_grad()
def compare_onnx(model: DualEncoder, folder: Path, *, own: Probe) -> OnnxDifferences:
    """Runs the graphs with onnxruntime on a CPU, and compares with what the model gave (``own``)."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    sessions = {
        name: onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
        for name in (IMAGE, TEXT)
    }

    def run(name: str, wanted_BE: Tensor, **inputs: Tensor) -> float:
        taken = {one.name for one in sessions[name].get_inputs()}
        fed = {key: value.numpy() for key, value in inputs.items() if key in taken}
        return float((torch.from_numpy(sessions[name].run(None, fed)[0]) - wanted_BE).abs().max())

    pixels, ids = [], []
    for rows in (slice(None), slice(0, 1)):
        tokens = model.tokenize(TEXTS[rows], language=LANGUAGE)
        pixels.append(run(IMAGE, own.image_BE[rows], pixels=own.pixels_BCHW[rows]))
        ids.append(run(TEXT, own.text_BE[rows], ids=tokens.ids_BL, mask=tokens.mask_BL))
    return OnnxDifferences(max(pixels), max(ids))


USAGE = """import json

import numpy as np
import onnxruntime
from transformers import AutoTokenizer

settings = json.load(open("onnx_config.json", encoding="utf-8"))
image, text = onnxruntime.InferenceSession("image.onnx"), onnxruntime.InferenceSession("text.onnx")
tokens = AutoTokenizer.from_pretrained(".")(["a cat", "ein Hund"], return_tensors="np", **settings["text"]["tokenizer"])
(text_BE,) = text.run(None, {"ids": tokens["input_ids"], "mask": tokens["attention_mask"]})
pixels_BCHW = np.zeros((1, *settings["image"]["inputs"]["pixels"][1:]), np.float32)  # your image, preprocessed
(image_BE,) = image.run(None, {"pixels": pixels_BCHW})
print(settings["scale"] * image_BE @ text_BE.T)"""
"""Lines for the model card."""
