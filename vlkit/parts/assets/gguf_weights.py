"""Language models in GGUF files as folders of transformers: dequantised once, then read as any other."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vlkit.errors import AssetError, MissingPackage
from vlkit.files import atomic_folder, sha256
from vlkit.parts.assets import cache
from vlkit.parts.building import foreign_errors, weightless
from vlkit.parts.hf_common import quiet
from vlkit.parts.weight_files import within
from vlkit.progress import bar
from vlkit.version import __version__

_FORMAT = 1  # of what is made of a file; raised when it changes, so that older folders are made anew


def convert(files: Mapping[str, bytes], folder: Path) -> Iterator[int]:
    """Writes the folder (float32) and yields the percentage done.

    ``files`` has ``weights``, a GGUF file, or its pieces ``weights 1``, ``weights 2``, ...; others are written beside
    the weights under their names.
    """
    yield from _convert(files, folder, dtype=torch.float32)


def convert_16_bits(files: Mapping[str, bytes], folder: Path) -> Iterator[int]:
    """The same in bfloat16, which is finer than weights of 4 to 6 bits are."""
    yield from _convert(files, folder, dtype=torch.bfloat16)


def made_of(path: Path) -> Path:
    """The folder in the cache that holds a GGUF file of the user's, made unless it is there and whole.

    Raises:
        AssetError: There is no such file, transformers cannot read it, or its configuration and weights do not belong
            together.
        MissingPackage: The package that reads GGUF files is not installed.
    """
    if not path.is_file():
        raise AssetError(f"no file {path}; give a GGUF file, or a folder with config.json and model.safetensors")
    content = sha256(path)
    target = cache.asset_folder(f"{path.stem}-{content[:16]}", library="gguf")
    made_from = f"{content}:{_FORMAT}"
    with cache.lock(target):
        if cache.problem(target, made_from=made_from) is None:
            return target
        if importlib.util.find_spec("gguf") is None:
            raise MissingPackage("gguf", purpose=f"reading {path}", extra="gguf")
        cannot = foreign_errors(f"cannot read {path}")
        with cannot, atomic_folder(target) as folder, bar(f"converting {path.name}", total=100, unit="%") as shown:
            done = 0
            for percent in _written(path, folder, dtype=torch.float32):
                shown.advance(percent - done)
                done = percent
            about = {"name": path.name, "sha256": content, "made_from": made_from, "made_by": f"vlkit {__version__}"}
            cache.write_manifest(folder, about)
    return target


def _convert(files: Mapping[str, bytes], folder: Path, *, dtype: torch.dtype) -> Iterator[int]:
    pieces = sorted(role for role in files if role.startswith("weights"))
    # The scratch folder lies inside: a kill leaves nothing elsewhere.
    with tempfile.TemporaryDirectory(prefix="gguf-", dir=folder) as scratch:
        path = Path(scratch) / "model.gguf"
        with path.open("wb") as file:
            for role in pieces:
                file.write(files[role])
        yield from _written(path, folder, dtype=dtype)
    for role in files.keys() - set(pieces):
        (folder / role).write_bytes(files[role])


def _written(path: Path, folder: Path, *, dtype: torch.dtype) -> Iterator[int]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where, name = str(path.parent), path.name
    with quiet(), _read_once(path) as reader:
        shapes = {tensor.name: tuple(map(int, tensor.shape)) for tensor in reader.tensors}
        yield 20
        tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
        yield 60
        with within(shapes, where=path):
            loaded = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
        yield 80
        # What a GGUF file is loaded into counts as quantised and will not be saved: the values go into a plain model.
        settings = loaded.config.to_dict()
        for key in ("quantization_config", "dtype", "_name_or_path"):
            settings.pop(key, None)
        config = AutoConfig.for_model(**settings)
        with weightless(saved=True, empty=False):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.load_state_dict(loaded.state_dict())
        tokenizer.save_pretrained(folder)
        _name_class(folder / "tokenizer_config.json")
        model.save_pretrained(folder)
    yield 100


@contextmanager
def _read_once(path: Path) -> Iterator[Any]:
    """What reads GGUF files takes 20 seconds for 262,144 pieces of a vocabulary; transformers would call it often.

    It would also show a bar of its own beside ours.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as inside

    kept, bars = gguf.GGUFReader, inside.tqdm
    reader = kept(path)
    gguf.GGUFReader, inside.tqdm = (lambda *path: reader), (lambda items, **options: items)
    try:
        yield reader
    finally:
        gguf.GGUFReader, inside.tqdm = kept, bars


def _name_class(path: Path) -> None:
    """Names the tokenizer's class so that every version of transformers knows it, not only the one that wrote it."""
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    plain = {key: value for key, value in settings.items() if key not in {"backend", "is_local", "local_files_only"}}
    path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
