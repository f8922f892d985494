"""Machine translation by encoder-decoder models of transformers that mark languages: NLLB-200, M2M-100, mBART-50."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from vlkit.errors import VlkitError
from vlkit.files import digest, file_state
from vlkit.parts.assets.hub import weight_files
from vlkit.parts.assets.resolve import resolve
from vlkit.parts.building import foreign_errors
from vlkit.parts.hf_common import load_model, quiet, read_config
from vlkit.parts.language_marks import language_token, marks_language, set_language
from vlkit.parts.tokenizers import check_vocabulary, load_tokenizer, longest_input, vocabulary_size
from vlkit.spec.parts import Dtype, LibrarySpec

Translate = Callable[[Sequence[str], str, str], Sequence[str | None]]
"""``translate(texts, source, target)``: the texts in the target language, None for one that cannot be translated.

Languages are BCP 47 tags. Any function of this form can take the place of ``HfTranslator``.
"""


class HfTranslator:
    """Translates by a model in hub layout, whose tokenizer has a token for each language.

    Args:
        name: A hub id (``facebook/nllb-200-distilled-600M``) or a folder.
        device: Where it computes.
        dtype: Precision of its weights.
        beams: Translations that are followed at a time; 1 takes the likeliest token each time.

    Raises:
        AssetError: It cannot be had.
        VlkitError: It is no such model.
    """

    def __init__(
        self, name: str, *, device: str | torch.device = "cpu", dtype: Dtype = "float32", beams: int = 1
    ) -> None:
        from transformers import AutoModelForSeq2SeqLM

        folder = resolve(name, library="hf")
        self.where, self.beams, self.device = f"hf:{name}", beams, torch.device(device)
        config = read_config(folder)
        self._tokenizer: Any = load_tokenizer(folder)
        if not config.is_encoder_decoder or not marks_language(self._tokenizer):
            raise VlkitError(
                f"{self.where}: model_type = {config.model_type!r} does not translate between languages that are "
                "named; take NLLB-200, M2M-100 or mBART-50, or a function of your own (module:function)"
            )
        model: Any = load_model(
            folder, config, spec=LibrarySpec(kind="hf", name=name, dtype=dtype), auto=AutoModelForSeq2SeqLM
        )[0]
        self._model = model.to(self.device).eval()
        rows = self._model.get_input_embeddings().weight.shape[0]
        check_vocabulary(vocabulary_size(self._tokenizer), rows=rows, where=self.where)
        self._longest = longest_input(self._tokenizer, self._model, config=config)
        self.identity = digest([name, beams, dtype, [f"{one.name} {file_state(one)}" for one in weight_files(folder)]])

    def check(self, languages: Iterable[str]) -> None:
        """Checks that the model knows languages.

        Raises:
            VlkitError: It does not.
        """
        for language in languages:
            language_token(self._tokenizer, language, where=self.where)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], source: str, target: str) -> list[str | None]:
        """The texts in the target language; None for one longer than the model reads."""
        set_language(self._tokenizer, source, where=self.where)
        token, _ = language_token(self._tokenizer, target, where=self.where)
        lengths = [len(ids) for ids in self._tokenizer(list(texts))["input_ids"]]
        fitting = [number for number, length in enumerate(lengths) if length <= self._longest]
        found: list[str | None] = [None] * len(texts)
        if not fitting:
            return found
        read = self._tokenizer([texts[number] for number in fitting], padding=True, return_tensors="pt")
        most = min(self._longest - 2, 2 * max(lengths[number] for number in fitting) + 32)
        with quiet(), foreign_errors(f"{self.where} cannot translate", error=VlkitError):
            ids_BL = self._model.generate(
                input_ids=read["input_ids"].to(self.device),
                attention_mask=read["attention_mask"].to(self.device),
                forced_bos_token_id=self._tokenizer.convert_tokens_to_ids(token),
                num_beams=self.beams,
                do_sample=False,
                max_new_tokens=most,
            )
        written = self._tokenizer.batch_decode(ids_BL, skip_special_tokens=True)
        for number, text in zip(fitting, written, strict=True):
            found[number] = text.strip() or None
        return found
