"""Whole models of transformers that read images and texts and write texts, with their own processor.

LLaVA-NeXT, Qwen2-VL, Idefics3 and SmolVLM, PaliGemma, InternVL, ...: whatever ``AutoModelForImageTextToText`` builds.
Layout of texts, places of images and sizes are the processor's. B rows, L length, V vocabulary, A tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.parts import assets
from vlkit.parts.building import foreign_errors
from vlkit.parts.hf_common import load_model, quiet, read_config
from vlkit.parts.hf_generation import Draws, Repeats
from vlkit.parts.tokenizers import check_rules
from vlkit.spec.language import GenerationSpec
from vlkit.spec.model import WholeSpec
from vlkit.types import IMAGE_MARK

_TAIL = 24  # characters before an answer that decide how it becomes tokens


class AskedText(NamedTuple):
    """A question as the processor takes it: a text with its places of images, the images, and how the answer begins."""

    text: str
    images: tuple[Image, ...]
    prefix: str = ""


def answers_about_images(settings: dict[str, Any]) -> bool:
    """Whether a configuration names a class of transformers that is one of these."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CLASSES

    known = CLASSES.get(str(settings.get("model_type")))
    return known is not None and known in (settings.get("architectures") or ())


class HfImageText(nn.Module):
    """A whole model with its processor; ``where`` is its name for messages."""

    def __init__(self, model: nn.Module, processor: Any, *, spec: WholeSpec, where: str) -> None:
        super().__init__()
        self.model, self.processor, self.spec, self.where = model, processor, spec, where
        self.tokenizer = processor.tokenizer
        self.tokenizer.padding_side = "left"  # texts are written at the right end
        self.end_ids = self._ends()
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(self.end_ids[0])

    @classmethod
    def build(cls, spec: WholeSpec, *, saved: Path | None = None, empty: bool = False) -> HfImageText:
        """From a folder in hub layout, or a hub id; no code of it is run but its chat template, which is sandboxed.

        Raises:
            AssetError: Files are missing or damaged, or say what none may.
            VlkitError: Weights and configuration do not belong together, or there is no processor with a tokenizer.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

        folder = saved or assets.resolve(spec.name, library="hf")
        config = read_config(folder)
        model, _ = load_model(folder, config, spec=spec, auto=AutoModelForImageTextToText, saved=saved, empty=empty)
        whole: Any = model
        with foreign_errors(f"cannot read the processor in {folder}"), quiet():
            if saved is not None and (folder / "generation_config.json").is_file():  # read with weights alone
                whole.generation_config = GenerationConfig.from_pretrained(str(folder))
            processor = AutoProcessor.from_pretrained(str(folder), trust_remote_code=False)
        if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
            raise VlkitError(
                f"{spec.name}: its processor is a {type(processor).__name__}, and one of images and texts is needed; "
                f"copy the model's own processor files there (preprocessor_config.json, tokenizer.json, ...)"
            )
        check_rules(processor.tokenizer, where=str(folder))
        return cls(model, processor, spec=spec, where=spec.name)

    def save_config(self, folder: Path) -> None:
        """Writes configuration, generation settings and the processor's files."""
        whole: Any = self.model
        with quiet():
            whole.config.save_pretrained(folder)
            whole.generation_config.save_pretrained(folder)
            self.processor.save_pretrained(folder)

    def lay(self, text: str, images: Sequence[Image], *, prefix: str, where: str) -> AskedText:
        """A question in the form of the model's chat template, where it has one; else images and then the text.

        Images stand where the text has ``<image>``, or before it.

        Raises:
            VlkitError: The text has other than as many places as there are images.
        """
        pieces = text.split(IMAGE_MARK)
        if len(pieces) == 1:
            pieces = [""] * len(images) + [text]
        if len(pieces) != len(images) + 1:
            raise VlkitError(
                f"{where} has {len(pieces) - 1} places for images ({IMAGE_MARK}) and {len(images)} images; give as many"
            )
        if self.processor.chat_template is None:
            mark = str(getattr(self.processor, "image_token", None) or "") if self._marks else ""
            return AskedText(mark.join(pieces) + prefix, tuple(images), prefix)
        content: list[dict[str, str]] = []
        for number, piece in enumerate(pieces):
            content += [{"type": "image"}] if number else []
            content += [{"type": "text", "text": piece}] if piece else []
        with foreign_errors(f"{self.where}: its chat template cannot lay out a question", error=VlkitError):
            turns = [{"role": "user", "content": content}]
            laid: str = self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return AskedText(laid + prefix, tuple(images), prefix)

    def write(self, rows: Sequence[AskedText], generation: GenerationSpec) -> list[str]:
        """One text a row, each with its prefix; rows have equal numbers of images.

        Raises:
            VlkitError: The model cannot write so.
        """
        inputs = self._inputs(rows)
        ids_BL = self._generated(inputs, generation, changes=[*self._changes(generation, self._skip(inputs))])
        found = []
        for ids, row in zip(ids_BL[:, self._begins(inputs, ids_BL) :].tolist(), rows, strict=True):
            ends = [place for place, token in enumerate(ids) if token in self.end_ids]
            text = self._decoded(ids[: min(ends, default=len(ids))], row.prefix)
            after = min(len(row.prefix), len(text))
            stops = [place for stop in generation.stop if (place := text.find(stop, after)) >= 0]
            found.append(text[: min(stops, default=len(text))])
        return found

    def weigh(self, rows: Sequence[AskedText], answers: Sequence[str]) -> Tensor:
        """[B, 2] float32: the log probability of each answer with its end, and how many tokens it has.

        The model is made to write them, so that what is read and remembered is as when it writes freely.
        """
        wanted = [[*self._answer_ids(row, text), self.end_ids[0]] for row, text in zip(rows, answers, strict=True)]
        inputs, forced = self._inputs(rows), _Forced(wanted, pad=int(self.tokenizer.pad_token_id))
        most = max(map(len, wanted))
        self._generated(inputs, GenerationSpec(max_tokens=most, min_tokens=0), changes=[forced])
        return torch.stack([forced.sums_B, torch.tensor(list(map(len, wanted)), dtype=torch.float32)], dim=1)

    @property
    def _marks(self) -> bool:
        """Whether the processor wants marks of images in a text; BLIP-2's puts its own."""
        return type(self.processor).__name__ not in ("Blip2Processor", "InstructBlipProcessor", "BlipProcessor")

    @property
    def encodes(self) -> bool:
        """Whether an encoder reads and a decoder writes."""
        config: Any = self.model.config
        return bool(config.is_encoder_decoder or getattr(config.get_text_config(), "is_encoder_decoder", False))

    def _ends(self) -> tuple[int, ...]:
        own = getattr(self.model, "generation_config", None)
        given = getattr(own, "eos_token_id", None)
        ids = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
        if (token := self.tokenizer.eos_token_id) is not None:
            ids = [token, *(one for one in ids if one != token)]  # what the tokenizer ends with is written first
        if not ids:
            raise VlkitError(
                f"{self.where}: neither its tokenizer nor its generation settings have an end token, so no text would "
                f"end; add eos_token to tokenizer_config.json"
            )
        return tuple(map(int, ids))

    def _inputs(self, rows: Sequence[AskedText]) -> dict[str, Any]:
        bos, options = self.tokenizer.bos_token, dict[str, Any]()
        if bos and all(row.text.startswith(bos) for row in rows):
            options["add_special_tokens"] = False  # the template has put it there
        images, texts = [list(row.images) for row in rows], [row.text for row in rows]
        options |= {"padding": True, "return_tensors": "pt"}
        with quiet(), foreign_errors(f"{self.where}: its processor cannot take these images", error=VlkitError):
            if rows[0].images:
                made = self.processor(text=texts, images=images, **options)
            else:
                made = self._texts_alone(texts, options)
        place = next(self.model.parameters())
        return {
            name: value.to(place.device, place.dtype if value.is_floating_point() else None)
            for name, value in made.items()
            if isinstance(value, Tensor)
        }

    def _texts_alone(self, texts: list[str], options: dict[str, Any]) -> Any:
        try:
            return self.processor(text=texts, **options)
        except ValueError:  # some processors (PaliGemma's) insist on images; their models do without
            return self.tokenizer(texts, **options)

    def _generated(self, inputs: dict[str, Any], generation: GenerationSpec, *, changes: Sequence[Any]) -> Tensor:
        from transformers import GenerationConfig

        whole: Any = self.model
        own, most = whole.generation_config, generation.max_tokens
        settings = GenerationConfig(
            max_new_tokens=most,
            min_new_tokens=min(generation.min_tokens, most) or None,
            num_beams=generation.beams,
            do_sample=False,
            length_penalty=generation.length_penalty,
            early_stopping=False,
            use_cache=True,
            eos_token_id=list(self.end_ids),
            pad_token_id=self.tokenizer.pad_token_id,
            bos_token_id=own.bos_token_id,
            decoder_start_token_id=own.decoder_start_token_id,
        )
        with quiet(), foreign_errors(f"{self.where} cannot write", error=VlkitError):
            ids_BL: Tensor = whole.generate(**inputs, generation_config=settings, logits_processor=list(changes))
        return ids_BL

    def _skip(self, inputs: dict[str, Any]) -> int:
        """Tokens before those that are written, as processors of scores see them."""
        return 1 if self.encodes else int(inputs["input_ids"].shape[1])

    def _begins(self, inputs: dict[str, Any], ids_BL: Tensor) -> int:
        """Where what was written begins: most models give what they read before it."""
        read_BL = inputs["input_ids"]
        length = read_BL.shape[1]
        if self.encodes or ids_BL.shape[1] < length or not torch.equal(ids_BL[:, :length], read_BL):
            return 0
        return int(length)

    def _changes(self, generation: GenerationSpec, skip: int) -> Iterator[Any]:
        if generation.repetition_penalty != 1:
            yield Repeats(generation.repetition_penalty, skip)
        if generation.temperature > 0:
            yield Draws(generation)

    def _decoded(self, ids: Sequence[int], prefix: str) -> str:
        begun = self.tokenizer(prefix, add_special_tokens=False)["input_ids"] if prefix else []
        text: str = self.tokenizer.decode([*begun, *ids], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _answer_ids(self, row: AskedText, answer: str) -> list[int]:
        """The tokens of an answer where it stands, behind a blank where the question ends in a word or colon."""
        tail = row.text[-_TAIL:]
        between = " " if tail[-1:].isalnum() or tail.endswith(":") else ""
        before, both = (
            self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (tail, tail + between + answer)
        )
        if both[: len(before)] == before:
            return list(both[len(before) :])
        return list(self.tokenizer(answer, add_special_tokens=False)["input_ids"])


class _Forced:
    """Lets a model write given tokens, and adds up their log probabilities."""

    def __init__(self, wanted: Sequence[Sequence[int]], *, pad: int) -> None:
        self.wanted, self.pad, self.step = wanted, pad, 0
        self.sums_B = torch.zeros(len(wanted), dtype=torch.float32)

    def __call__(self, input_ids: Tensor, scores_BV: Tensor) -> Tensor:
        """Scores of which the wanted token's is the highest."""
        step, self.step = self.step, self.step + 1
        next_B = torch.tensor([ids[step] if step < len(ids) else self.pad for ids in self.wanted])
        told_B = scores_BV.float().log_softmax(dim=-1).cpu().gather(1, next_B[:, None])[:, 0]
        self.sums_B += torch.where(torch.tensor([step < len(ids) for ids in self.wanted]), told_B, 0.0)
        forced_BV = torch.full_like(scores_BV, -torch.inf)
        return forced_BV.scatter(1, next_B[:, None].to(scores_BV.device), 0.0)
