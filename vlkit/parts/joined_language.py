"""A language model joined of an encoder and a decoder that never met: Florenz's form (arXiv 2503.09443, table 5).

Shapes: B batch, L length, E embedding width of the encoder, C width of its states, R chosen rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.nn.gated_cross import GatedCross
from vlkit.parts import assets
from vlkit.parts.building import compact, foreign_errors, given, hold, moved, weightless
from vlkit.parts.hf_common import last_states, load_model, read_config, token_table, unusable
from vlkit.parts.hf_language import HfLanguageModel, notices_of, resting, write_config
from vlkit.parts.tiny_language import TinyLanguageModel
from vlkit.parts.tokenizers import check_vocabulary, load_tokenizer, longest_input, vocabulary_size
from vlkit.spec.language import GenerationSpec, HfLanguage, JoinedLanguage, TinyLanguage
from vlkit.types import TextBatch


class ReadingSide(nn.Module):
    """The encoder of an encoder-decoder (T5, mT5, BART, Florence-2) with its tokenizer; the decoder is left away.

    ``width`` is E of the embeddings that it reads, ``source_width`` C of its states.
    """

    def __init__(self, whole: Any, config: Any, *, tokenizer: Any, spec: HfLanguage | TinyLanguage, where: str) -> None:
        super().__init__()
        self.model = whole.get_encoder()
        self.config, self.tokenizer, self.spec, self.where = config, tokenizer, spec, where
        self.end_ids: tuple[int, ...] = ()
        self.notices: dict[str, bytes] = {}
        table = token_table(self.model, where=where)
        check_vocabulary(vocabulary_size(tokenizer), rows=table.num_embeddings, where=where)
        text_config = getattr(config, "text_config", config)
        self.width, self.source_width = table.embedding_dim, int(text_config.hidden_size)
        self.max_length = min(spec.max_length, longest_input(tokenizer, self.model, config=text_config))

    @classmethod
    def build(cls, spec: HfLanguage | TinyLanguage, *, saved: Path | None, empty: bool) -> ReadingSide:
        """See ``language_models.build_language_model``."""
        if isinstance(spec, TinyLanguage):
            tiny = TinyLanguageModel.build(spec, saved=saved, empty=empty)
            _check_side(tiny.config, encodes=True, where=tiny.where)
            return cls(tiny.whole, tiny.config, tokenizer=tiny.tokenizer, spec=spec, where=tiny.where)
        if spec.vocabulary is not None or spec.tokens or spec.quantize != "none":
            raise VlkitError(
                f"{spec.name}: language_model.encoder keeps its vocabulary and its precision; leave vocabulary, tokens "
                f"and quantize out"
            )
        folder = saved or assets.resolve(spec.name, library="hf")
        config = read_config(folder)
        _check_side(config, encodes=True, where=spec.name)
        model, _ = load_model(folder, config, spec=spec, saved=saved, empty=empty)
        tokenizer = load_tokenizer(folder)
        with foreign_errors(unusable(config, where=spec.name), error=VlkitError):
            side = cls(model, config, tokenizer=tokenizer, spec=spec, where=spec.name)
        side.notices = notices_of(folder)
        return side

    def embed(self, ids_BL: Tensor) -> Tensor:
        """embeddings_BLE of token ids, with what the model multiplies them by."""
        return given(token_table(self.model, where=self.where)(ids_BL), self.spec)

    def forward(self, embeddings_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        """states_BLC of rows whose real places stand first."""
        weight = token_table(self.model, where=self.where).weight
        output = self.model(inputs_embeds=embeddings_BLE.to(weight.dtype), attention_mask=mask_BL)
        return given(last_states(output, where=self.where), self.spec)


class JoinedLanguageModel(nn.Module):
    """An encoder, and a decoder-only model whose layers look at its states; see ``types.LanguageModel``.

    Until the gates of what was added move, the decoder is as it was, and does not see what is read.
    """

    encodes = True

    def __init__(self, encoder: ReadingSide, decoder: HfLanguageModel, *, spec: JoinedLanguage) -> None:
        super().__init__()
        self.encoder, self.decoder, self.spec = encoder, decoder, spec
        _check_side(decoder.config, encodes=False, where=decoder.where)
        self.width, self.max_length = encoder.width, min(spec.max_length, encoder.max_length)
        layers = _layers(decoder)
        for index in range(0, len(layers), spec.every):
            layers[index] = GatedCross(
                layers[index], decoder.width, source_width=encoder.source_width, heads=spec.heads
            )

    @classmethod
    def build(cls, spec: JoinedLanguage, *, saved: Path | None = None, empty: bool = False) -> JoinedLanguageModel:
        """See ``language_models.build_language_model``.

        Raises:
            VlkitError: A side is of the wrong kind, or the whole is to be held in fewer bits.
        """
        if spec.dtype != "float32":
            raise VlkitError(
                f"language_model.dtype = {spec.dtype!r}: each side of a joined model has its own; set those of encoder "
                f"and decoder"
            )
        encoder = ReadingSide.build(spec.encoder, saved=saved and saved / "encoder", empty=empty)
        model: Any = TinyLanguageModel if isinstance(spec.decoder, TinyLanguage) else HfLanguageModel
        decoder = model.build(spec.decoder, saved=saved and saved / "decoder", empty=empty)
        for side in (encoder, decoder):
            hold(side, side.spec)
        with weightless(saved=saved is not None, empty=empty):
            return cls(encoder, decoder, spec=spec)

    @property
    def vocab_size(self) -> int:
        """V of what is written."""
        return self.decoder.vocab_size

    @property
    def tokenizer(self) -> Any:
        """That of what is written."""
        return self.decoder.tokenizer

    @property
    def reader(self) -> Any:
        """The tokenizer of what is read."""
        return self.encoder.tokenizer

    def embed(self, ids_BL: Tensor) -> Tensor:
        """embeddings_BLE of ids of ``reader``."""
        return self.encoder.embed(ids_BL)

    def forward(
        self,
        embeddings_BLE: Tensor,
        mask_BL: Tensor,
        *,
        targets: TextBatch | None = None,
        positions_BL: Tensor | None = None,
    ) -> Tensor:
        """See ``types.LanguageModel``; ``positions_BL`` is not for encoder-decoders."""
        order_BL = mask_BL.argsort(dim=1, descending=True, stable=True)
        source_BLC = self.encoder(moved(embeddings_BLE, order_BL), keep_BL := mask_BL.gather(1, order_BL))
        if targets is None:
            return moved(source_BLC, order_BL.argsort(dim=1))
        order_BL = targets.mask_BL.argsort(dim=1, descending=True, stable=True)
        ids_BL, written_BL = compact(*targets)
        ids_BL = torch.cat([self._starts(len(ids_BL), ids_BL), ids_BL[:, :-1]], dim=1)
        with self._looking(source_BLC, keep_BL):
            states_BLE = self.decoder(self.decoder.embed(ids_BL), written_BL)
        return moved(states_BLE, order_BL.argsort(dim=1))

    def logits(self, states_RE: Tensor) -> Tensor:
        """logits_RV of the decoder."""
        return self.decoder.logits(states_RE)

    @torch.no_grad()
    def generate(
        self,
        embeddings_BLE: Tensor,
        mask_BL: Tensor,
        *,
        generation: GenerationSpec,
        prefix: TextBatch | None = None,
        language: str | None = None,
        stream: Callable[[str], None] | None = None,
    ) -> list[str]:
        """See ``types.LanguageModel``."""
        order_BL = mask_BL.argsort(dim=1, descending=True, stable=True)
        keep_BL = mask_BL.gather(1, order_BL)
        with resting(self), self._looking(self.encoder(moved(embeddings_BLE, order_BL), keep_BL), keep_BL):
            starts_B1 = self._starts(len(mask_BL), mask_BL)
            return self.decoder.generate(
                self.decoder.embed(starts_B1),
                torch.ones_like(starts_B1),
                generation=generation,
                prefix=prefix,
                language=language,
                stream=stream,
            )

    def save_config(self, folder: Path) -> None:
        """Writes what both sides need."""
        write_config(self.encoder, folder / "encoder")
        self.decoder.save_config(folder / "decoder")

    def _starts(self, rows: int, like: Tensor) -> Tensor:
        tokenizer = self.decoder.tokenizer
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.pad_token_id
        return torch.full((rows, 1), int(start), dtype=torch.long, device=like.device)

    @contextmanager
    def _looking(self, source_BLC: Tensor, keep_BL: Tensor) -> Iterator[None]:
        crosses = [part for part in self.decoder.modules() if isinstance(part, GatedCross)]
        for cross in crosses:
            cross.look_at(source_BLC, keep_BL > 0)
        try:
            yield
        finally:
            for cross in crosses:
                cross.look_at(None, None)


def _layers(decoder: HfLanguageModel) -> nn.ModuleList:
    count = int(decoder.config.num_hidden_layers)
    for part in decoder.whole.base_model.children():
        if isinstance(part, nn.ModuleList) and len(part) == count:
            return part
    raise VlkitError(f"{decoder.where}: {type(decoder.whole).__name__} has no list of layers that is known")


def _check_side(config: Any, *, encodes: bool, where: str) -> None:
    if bool(config.is_encoder_decoder) == encodes:
        return
    if encodes:
        raise VlkitError(
            f"{where}: language_model.encoder is to read, and this is a decoder-only model; take an encoder-decoder "
            f"(T5, mT5, BART, Florence-2), whose encoder is taken"
        )
    raise VlkitError(
        f"{where}: language_model.decoder is to write by itself, and this is an encoder-decoder; take a decoder-only "
        f"model"
    )
