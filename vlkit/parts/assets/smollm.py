"""SmolLM2 from its GGUF file to a transformers folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from vlkit.parts.hf_common import quiet


def convert(files: Mapping[str, bytes], folder: Path) -> Iterator[int]:
    """Writes the folder (float32) and yields the percentage done.

    ``files`` has ``weights``, a GGUF file.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    # The scratch folder lies inside: a kill leaves nothing elsewhere.
    with quiet(), tempfile.TemporaryDirectory(prefix="gguf-", dir=folder) as scratch:
        (Path(scratch) / "model.gguf").write_bytes(files["weights"])
        yield 10
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file="model.gguf")
        yield 30
        # What a GGUF file is loaded into counts as quantised and will not be saved: the values go into a plain model.
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(scratch, gguf_file="model.gguf"), dtype=torch.float32
        )
        loaded = AutoModelForCausalLM.from_pretrained(scratch, gguf_file="model.gguf", dtype=torch.float32)
        model.load_state_dict(loaded.state_dict())
        yield 70
    tokenizer.save_pretrained(folder)
    # the tokenizer's class is named so that every version of transformers knows it, not only the one that wrote it
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    plain = {key: value for key, value in config.items() if key not in {"backend", "is_local", "local_files_only"}}
    path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    with quiet():
        model.save_pretrained(folder)
    yield 100
