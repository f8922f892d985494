"""Writes text with a language model of transformers: cached, a batch at a time, each row as if it were alone.

Shapes: B batch, L length, E embedding width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vlkit import languages
from vlkit.errors import UnknownName, VlkitError
from vlkit.parts.building import foreign_errors, moved
from vlkit.parts.hf_common import quiet
from vlkit.parts.tokenizers import pad_rows
from vlkit.spec.language import GenerationSpec
from vlkit.types import TextBatch

if TYPE_CHECKING:
    from vlkit.parts.hf_language import HfLanguageModel

_HALF = "\ufffd"  # what bytes of an unfinished character are decoded to


class Writer:
    """One way to write: the model, its generation spec, a language and who listens.

    Raises:
        VlkitError: Tokens are to be drawn and several answers followed, the model has no end token, or none for the
            language.
    """

    def __init__(
        self,
        model: HfLanguageModel,
        generation: GenerationSpec,
        *,
        language: str | None,
        stream: Callable[[str], None] | None,
    ) -> None:
        self.model, self.generation, self.stream = model, generation, stream
        check_drawing(generation)
        if not model.end_ids:
            raise VlkitError(
                f"{model.where}: neither its tokenizer nor its configuration has an end token, so no text would end; "
                f"add eos_token to tokenizer_config.json"
            )
        self.language_ids = [] if generation.language_token is None else [self._language_id(language)]

    def __call__(self, embeddings_BLE: Tensor, mask_BL: Tensor, *, prefix: TextBatch | None) -> list[str]:
        """One text a row, each with its prefix.

        Raises:
            VlkitError: Several rows are streamed, or a row fills the context.
        """
        rows = len(mask_BL)
        if self.stream is not None and rows != 1:
            raise VlkitError(f"only one text can be streamed at a time, not {rows}; leave stream out")
        prefixes = [[] for _ in range(rows)] if prefix is None else _rows(prefix)
        begun = [[*self.language_ids, *ids] for ids in prefixes]
        call = self._seq2seq if self.model.encodes else self._decoder_only
        inputs, skip = call(self.model.taken(embeddings_BLE), mask_BL, begun)
        streamer = None if self.stream is None else _Stream(self, prefixes[0])
        with quiet(), foreign_errors(f"{self.model.where} cannot write", error=VlkitError):
            ids_BL = self.model.whole.generate(
                **inputs,
                generation_config=self._settings(most := self._room(inputs, skip)),
                logits_processor=self._changes(skip, most),
                stopping_criteria=[_Stops(self, skip)] if self.generation.stop else [],
                streamer=None if self.generation.beams > 1 else streamer,
            )
        written = ids_BL[:, skip:].tolist()
        if streamer is not None:
            streamer.finish(written[0])
        return [self.text(ids, begins) for ids, begins in zip(written, prefixes, strict=True)]

    def text(self, ids: Sequence[int], prefix: Sequence[int]) -> str:
        """What written ids say, after their prefix and up to an end."""
        ends = [place for place, token in enumerate(ids) if token in self.model.end_ids]
        whole = self.decode([*prefix, *ids[: min(ends, default=len(ids))]])
        begins = min(len(self.decode(prefix)), len(whole)) if prefix else 0
        stops = [place for stop in self.generation.stop if (place := whole.find(stop, begins)) >= 0]
        return whole[: min(stops, default=len(whole))]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without marks."""
        text: str = self.model.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _decoder_only(self, embeddings_BLE: Tensor, mask_BL: Tensor, begun: list[list[int]]) -> tuple[Any, int]:
        """Prefixes go on from what is read; the library writes at the right end, so padding stands on the left."""
        if any(begun):
            ids_BL, more_BL = _padded(begun, mask_BL)
            more_BLE = self.model.taken(self.model.embed(ids_BL))
            embeddings_BLE, mask_BL = torch.cat([embeddings_BLE, more_BLE], dim=1), torch.cat([mask_BL, more_BL], dim=1)
        order_BL = mask_BL.argsort(dim=1, stable=True)[:, -int(mask_BL.sum(dim=1).max()) :]
        return {"inputs_embeds": moved(embeddings_BLE, order_BL), "attention_mask": mask_BL.gather(1, order_BL)}, 0

    def _seq2seq(self, embeddings_BLE: Tensor, mask_BL: Tensor, begun: list[list[int]]) -> tuple[Any, int]:
        """The encoder runs once; the decoder's text begins with its start token and the prefix, padded on the left."""
        from transformers.modeling_outputs import BaseModelOutput

        order_BL = mask_BL.argsort(dim=1, descending=True, stable=True)[:, : int(mask_BL.sum(dim=1).max())]
        mask_BL = mask_BL.gather(1, order_BL)
        read_BLE = self.model.encoded(moved(embeddings_BLE, order_BL), mask_BL)
        inputs: dict[str, Any] = {"encoder_outputs": BaseModelOutput(last_hidden_state=read_BLE)}
        inputs["attention_mask"] = mask_BL
        ids_BL, begun_BL = _padded([[self.model.start_id, *ids] for ids in begun], mask_BL)
        order_BL = begun_BL.argsort(dim=1, stable=True)
        inputs["decoder_input_ids"] = ids_BL.gather(1, order_BL)
        if len({len(ids) for ids in begun}) > 1:
            inputs["decoder_attention_mask"] = begun_BL.gather(1, order_BL)
        return inputs, ids_BL.shape[1]

    def _room(self, inputs: dict[str, Any], skip: int) -> int:
        """Tokens that may be written before the context is full."""
        read = skip if self.model.encodes else inputs["inputs_embeds"].shape[1]
        room = self.model.context - read
        if room < 1:
            raise VlkitError(
                f"{self.model.where}: {read} tokens are read and its context has {self.model.context}; shorten them"
            )
        return min(room, self.generation.max_tokens)

    def _changes(self, skip: int, most: int) -> list[Any]:
        """What is done to scores."""
        least = min(self.generation.min_tokens, most)
        longer = [NoEnd(self.model.end_ids, skip + least)] if least else []
        repeats = [Repeats(self.generation.repetition_penalty, skip)] if self.generation.repetition_penalty != 1 else []
        return [*longer, *repeats, *([Draws(self.generation)] if self.generation.temperature > 0 else [])]

    def _settings(self, most: int) -> Any:
        """The library's settings, none of them left to what came with the model."""
        from transformers import GenerationConfig

        chosen, own = self.generation, self.model.whole.generation_config
        return GenerationConfig(
            max_new_tokens=most,
            num_beams=chosen.beams,
            do_sample=False,
            length_penalty=chosen.length_penalty,
            early_stopping=False,
            use_cache=True,
            eos_token_id=list(self.model.end_ids),
            pad_token_id=self.model.tokenizer.pad_token_id,
            bos_token_id=own.bos_token_id,
            decoder_start_token_id=own.decoder_start_token_id,
        )

    def _language_id(self, language: str | None) -> int:
        pattern, where = str(self.generation.language_token), self.model.where
        if language is None:
            raise VlkitError(f"generation.language_token = {pattern!r} needs a language; pass language=, such as 'de'")
        tokenizer, tags = self.model.tokenizer, [language]
        try:
            known = languages.get(language)
            tags += [known.tag, known.tag.split("-")[0], *([known.nllb] if known.nllb else [])]
        except UnknownName:  # the model may have a token for it all the same
            pass
        vocabulary = tokenizer.get_vocab()
        for tag in tags:
            if (token := pattern.replace("{language}", tag)) in vocabulary:
                return int(vocabulary[token])
        wanted = pattern.replace("{language}", language)
        raise VlkitError(
            f"{where}: the tokenizer has no token {wanted!r} (generation.language_token = {pattern!r}); set it to the "
            f"pattern of the model's language tokens, or to null"
        )


def check_drawing(generation: GenerationSpec) -> None:
    """Refuses settings that contradict each other.

    Raises:
        VlkitError: Tokens are to be drawn and several answers followed.
    """
    if generation.beams > 1 and generation.temperature > 0:
        raise VlkitError(
            f"generation.beams = {generation.beams} follows the likeliest answers and generation.temperature = "
            f"{generation.temperature:g} draws one; set beams to 1 or temperature to 0"
        )


class NoEnd:
    """Lets no row end before it has so many tokens, those that it begins with included.

    The library's own looks through the whole vocabulary with every token, long after that.
    """

    def __init__(self, end_ids: Sequence[int], length: int) -> None:
        self.end_ids, self.length = list(end_ids), length

    def __call__(self, input_ids: Tensor, scores_BV: Tensor) -> Tensor:
        """The scores, without those of ends."""
        if input_ids.shape[1] >= self.length:
            return scores_BV
        return scores_BV.index_fill(1, torch.tensor(self.end_ids, device=scores_BV.device), -torch.inf)


class Repeats:
    """Makes tokens less likely that a row has written already (CTRL, arXiv 1909.05858, section 4.1).

    The library's own takes the first tokens of a row for padding where others in the batch read more.
    """

    def __init__(self, penalty: float, skip: int) -> None:
        self.penalty, self.skip = penalty, skip

    def __call__(self, input_ids: Tensor, scores_BV: Tensor) -> Tensor:
        """The scores, nearer to or further below 0."""
        written_BL = input_ids[:, self.skip :]
        found_BL = scores_BV.gather(1, written_BL)
        lower_BL = torch.where(found_BL > 0, found_BL / self.penalty, found_BL * self.penalty)
        return scores_BV.scatter(1, written_BL, lower_BL)


class Draws:
    """Draws tokens by adding Gumbel noise to their scores, of which the highest is then taken.

    The noise is the same for all rows and comes from its own generator: a row's text does not depend on the others, nor
    on torch's random state, which stays as it is.
    """

    def __init__(self, generation: GenerationSpec) -> None:
        self.generation, self.generator = generation, torch.Generator().manual_seed(generation.seed)

    def __call__(self, input_ids: Tensor, scores_BV: Tensor) -> Tensor:
        """Scores whose highest is the token drawn."""
        scores_BV = scores_BV.float() / self.generation.temperature
        if self.generation.top_p < 1:
            ordered_BV, order_BV = scores_BV.sort(dim=-1, descending=True)
            share_BV = ordered_BV.softmax(dim=-1)
            beyond_BV = share_BV.cumsum(dim=-1) - share_BV >= self.generation.top_p  # the likeliest always stays
            scores_BV = scores_BV.masked_fill(beyond_BV.gather(1, order_BV.argsort(dim=-1)), -torch.inf)
        noise_V = torch.empty(scores_BV.shape[-1], dtype=torch.float64).exponential_(generator=self.generator)
        return scores_BV - noise_V.log().float().to(scores_BV.device)


class _Stops:
    """Ends a row where a stop text was written."""

    def __init__(self, writer: Writer, skip: int) -> None:
        self.writer, self.skip = writer, skip
        # each token has a byte or more, but for marks
        self.window = max(len(stop.encode()) for stop in writer.generation.stop) + 8

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        """Which rows are done."""
        tails = [self.writer.decode(ids) for ids in input_ids[:, self.skip :][:, -self.window :].tolist()]
        done = [any(stop in tail for stop in self.writer.generation.stop) for tail in tails]
        return torch.tensor(done, device=input_ids.device, dtype=torch.bool)


class _Stream:
    """Passes text on as it is written: whole characters, and nothing that may be the beginning of a stop text."""

    def __init__(self, writer: Writer, prefix: Sequence[int]) -> None:
        self.writer, self.prefix = writer, prefix
        self.ids: list[int] = []
        self.passed = ""
        self.started = False

    def put(self, ids: Tensor) -> None:
        """Takes what the library wrote; the first is what it was given."""
        if self.started:
            self.ids += ids.flatten().tolist()
            text = self.writer.text(self.ids, self.prefix)
            self._pass(text[: len(text) - self._held(text)])
        self.started = True

    def end(self) -> None:
        """Nothing: the end is ``finish``."""

    def finish(self, ids: Sequence[int]) -> None:
        """Passes on the rest."""
        self._pass(self.writer.text(ids, self.prefix))

    def _held(self, text: str) -> int:
        """Characters at the end that are not sure yet."""
        half = len(text) - len(text.rstrip(_HALF))
        begun = (n for stop in self.writer.generation.stop for n in range(1, len(stop)) if text.endswith(stop[:n]))
        return max(half, *begun, 0)

    def _pass(self, text: str) -> None:
        if len(text) > len(self.passed) and self.writer.stream is not None:
            self.writer.stream(text[len(self.passed) :])
            self.passed = text


def _rows(batch: TextBatch) -> list[list[int]]:
    return [ids[mask > 0].tolist() for ids, mask in zip(*batch, strict=True)]


def _padded(rows: list[list[int]], like: Tensor) -> tuple[Tensor, Tensor]:
    ids_BL, mask_BL = pad_rows(rows, pad_id=0)
    return ids_BL.to(like.device), mask_BL.to(like.device, like.dtype)
