"""Language models of transformers, decoder-only and encoder-decoder, that read embeddings.

Shapes: B batch, L length, E embedding width, V vocabulary, R chosen rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.parts import assets, quantized
from vlkit.parts.assets.weights_table import NOTICE, TERMS
from vlkit.parts.building import compact, foreign_errors, given, moved
from vlkit.parts.configs import read_settings
from vlkit.parts.hf_common import last_states, load_model, read_config, token_table, unusable
from vlkit.parts.hf_generation import Writer
from vlkit.parts.hf_prefix import OwnLayers, all_states, keep_prefix, run_behind, run_whole, try_blocks
from vlkit.parts.inside_models import part_inside, renamed
from vlkit.parts.tokenizers import check_vocabulary, load_tokenizer, longest_input, vocabulary_size
from vlkit.spec.language import GenerationSpec, HfLanguage, LanguageModelSpec
from vlkit.types import Prefix, TextBatch

_NOTICES = (NOTICE, TERMS, "LICENSE", "LICENSE.md", "LICENSE.txt")
_LONGEST_NOTICE = 1 << 20
_SCALE_THEMSELVES = ("gemma", "gemma2")  # in transformers before their embedding did it


class HfLanguageModel(nn.Module):
    """A language model of transformers with its own tokenizer; see ``types.LanguageModel``.

    ``model`` is the library's whole model with its output map, ``where`` its name for messages, ``folder`` what it was
    read from, where it was. The tokenizer has a padding token afterwards.
    """

    def __init__(
        self,
        model: nn.Module,
        config: Any,
        *,
        tokenizer: Any,
        spec: LanguageModelSpec,
        where: str,
        folder: Path | None = None,
    ) -> None:
        super().__init__()
        self.model, self.config, self.tokenizer, self.spec, self.where = model, config, tokenizer, spec, where
        self.encodes = bool(config.is_encoder_decoder)
        table = token_table(model, where=where)
        _check_form(self.whole, table, config, where=where)
        check_vocabulary(vocabulary_size(tokenizer), rows=table.num_embeddings, where=where)
        self.width, self.context = table.embedding_dim, longest_input(tokenizer, model, config=config)
        self.max_length = min(spec.max_length, self.context)
        self.end_ids = _end_ids(tokenizer, config, folder, rows=table.num_embeddings)
        if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
            tokenizer.pad_token = tokenizer.eos_token  # masks alone tell padding, any token serves
        self.notices = notices_of(folder)
        self._packs: bool | None = None  # not tried yet
        self._reads_blocks = False  # likewise

    @classmethod
    def build(cls, spec: HfLanguage, *, saved: Path | None = None, empty: bool = False) -> HfLanguageModel:
        """See ``language_models.build_language_model``."""
        folder = saved or assets.resolve(spec.name, library="hf")
        config, names = part_inside(read_config(folder), "language model", where=spec.name)
        _check_kind(config, where=spec.name)
        more = {} if empty else quantized.loading(spec, saved=saved is not None)
        model, _ = load_model(
            folder, config, spec=spec, auto=auto_class(config), saved=saved, empty=empty, **more, **renamed(names)
        )
        tokenizer = load_tokenizer(folder)
        with foreign_errors(unusable(config, where=spec.name), error=VlkitError):
            part = cls(model, config, tokenizer=tokenizer, spec=spec, where=spec.name, folder=folder)
        if saved is None:  # what was saved has the vocabulary that it should have
            _change_vocabulary(part, spec)
        return part

    @property
    def whole(self) -> Any:
        """The library's model, of which more is known than of other modules."""
        return self.model

    @property
    def vocab_size(self) -> int:
        """V, the rows of the token embedding."""
        return token_table(self.model, where=self.where).num_embeddings

    @property
    def start_id(self) -> int:
        """What an encoder-decoder's text begins with."""
        return int(self.config.decoder_start_token_id)

    def embed(self, ids_BL: Tensor) -> Tensor:
        """embeddings_BLE of token ids, with what the model multiplies them by."""
        return given(token_table(self.model, where=self.where)(ids_BL), self.spec)

    def forward(
        self,
        embeddings_BLE: Tensor,
        mask_BL: Tensor,
        *,
        targets: TextBatch | None = None,
        positions_BL: Tensor | None = None,
    ) -> Tensor:
        """See ``types.LanguageModel``.

        Raises:
            VlkitError: Samples lie end to end, and the model cannot keep them apart.
        """
        embeddings_BLE = self.taken(embeddings_BLE)
        if positions_BL is not None:
            self._check_packing()
            return given(self._decoded(embeddings_BLE, positions_BL), self.spec)
        # With real places first, those of a decoder never see padding, and every position is counted as in one row.
        order_BL = mask_BL.argsort(dim=1, descending=True, stable=True)
        front_BLE = moved(embeddings_BLE, order_BL)
        if not self.encodes:
            return given(moved(self._decoded(front_BLE), order_BL.argsort(dim=1)), self.spec)
        mask_BL = mask_BL.gather(1, order_BL)
        read_BLE = self.encoded(front_BLE, mask_BL)
        if targets is None:
            return given(moved(read_BLE, order_BL.argsort(dim=1)), self.spec)
        return given(self._written(read_BLE, mask_BL, targets), self.spec)

    def logits(self, states_RE: Tensor) -> Tensor:
        """logits_RV by the library's own code: its forward pass runs on a model whose layers give these states."""
        head = self.whole.get_output_embeddings()
        states_1RE = states_RE.to(head.weight.dtype).unsqueeze(0)
        shell: Any = copy.copy(self.model)
        prefix = self.whole.base_model_prefix
        stub = prefix if prefix in shell._modules else "decoder"
        shell._modules = {**shell._modules, stub: _Given(states_1RE)}
        options: dict[str, Any] = {"inputs_embeds": states_1RE}
        if self.encodes:
            options = {"encoder_outputs": _Found(states_1RE), "decoder_inputs_embeds": states_1RE}
        logits_RV: Tensor = type(self.whole).forward(shell, **options, use_cache=False).logits[0]
        return given(logits_RV, self.spec)

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
        """See ``types.LanguageModel``.

        Raises:
            VlkitError: See ``hf_generation.Writer``.
        """
        writer = Writer(self, generation, language=language, stream=stream)
        with torch.no_grad(), resting(self):
            return writer(embeddings_BLE, mask_BL, prefix=prefix)

    @property
    def depth(self) -> int:
        """See ``types.GivesLayerStates``."""
        return int(self.config.num_hidden_layers)

    def layer_states(self, embeddings_BTE: Tensor, mask_BT: Tensor) -> tuple[Tensor, ...]:
        """See ``types.GivesLayerStates``."""
        self._check_decoder()
        front_BTE, _, order_BT = self._in_front(embeddings_BTE, mask_BT)
        states = all_states(self.whole.base_model, front_BTE, where=self.where)
        back_BT = order_BT.argsort(dim=1)
        return tuple(given(moved(one_BTE, back_BT), self.spec) for one_BTE in states)

    def read_prefix(self, embeddings_BTE: Tensor, mask_BT: Tensor) -> Prefix:
        """See ``types.KeepsPrefix``."""
        self.check_blocks()
        front_BTE, mask_BT, _ = self._in_front(embeddings_BTE, mask_BT)
        return keep_prefix(self.whole.base_model, front_BTE, mask_BT, where=self.where)

    def read_behind(self, block_BME: Tensor, prefix: Prefix) -> Tensor:
        """See ``types.KeepsPrefix``."""
        return given(run_behind(self.whole.base_model, self.taken(block_BME), prefix, where=self.where), self.spec)

    def read_whole(self, embeddings_BTE: Tensor, mask_BT: Tensor, block_BME: Tensor) -> Tensor:
        """See ``types.KeepsPrefix``."""
        self.check_blocks()
        front_BTE, mask_BT, _ = self._in_front(embeddings_BTE, mask_BT)
        return given(run_whole(self.whole.base_model, front_BTE, mask_BT, block_BME, where=self.where), self.spec)

    def own_layers(self) -> OwnLayers:
        """See ``types.KeepsPrefix``."""
        self._check_decoder()
        return OwnLayers(self.whole.base_model, where=self.where)

    def check_blocks(self) -> None:
        """Tries once whether the model can read blocks that see all of themselves.

        Raises:
            VlkitError: It cannot.
        """
        self._check_decoder()
        if not self._reads_blocks and not token_table(self.model, where=self.where).weight.is_meta:
            with resting(self):
                try_blocks(self.whole.base_model, self.width, where=self.where)
            self._reads_blocks = True

    def _check_decoder(self) -> None:
        if self.encodes:
            raise VlkitError(f"{self.where}: an encoder-decoder cannot go on behind a text; take a decoder-only model")

    def _in_front(self, embeddings_BTE: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows with their real places first, their mask, and the order that made them so."""
        order_BT = mask_BT.argsort(dim=1, descending=True, stable=True)
        return moved(self.taken(embeddings_BTE), order_BT), mask_BT.gather(1, order_BT), order_BT

    def save_config(self, folder: Path) -> None:
        """Writes the model's config, what ends its texts, its tokenizer, and the terms that it comes under."""
        write_config(self, folder)

    def taken(self, embeddings_BLE: Tensor) -> Tensor:
        """Embeddings in the precision of the model's own."""
        return embeddings_BLE.to(token_table(self.model, where=self.where).weight.dtype)

    def encoded(self, front_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        """The encoder's states of rows whose real places stand first."""
        encoder = self.whole.get_encoder()
        return last_states(encoder(inputs_embeds=front_BLE, attention_mask=mask_BL), where=self.where)

    def _decoded(self, embeddings_BLE: Tensor, positions_BL: Tensor | None = None) -> Tensor:
        places = {} if positions_BL is None else {"position_ids": positions_BL}
        return last_states(
            self.whole.base_model(inputs_embeds=embeddings_BLE, use_cache=False, **places), where=self.where
        )

    def _written(self, read_BLE: Tensor, mask_BL: Tensor, targets: TextBatch) -> Tensor:
        order_BL = targets.mask_BL.argsort(dim=1, descending=True, stable=True)
        ids_BL, _ = compact(*targets)
        starts_B1 = torch.full_like(ids_BL[:, :1], self.start_id)
        output = self.whole.get_decoder()(
            input_ids=torch.cat([starts_B1, ids_BL[:, :-1]], dim=1),
            encoder_hidden_states=read_BLE,
            encoder_attention_mask=mask_BL,
            use_cache=False,
        )
        return moved(last_states(output, where=self.where), order_BL.argsort(dim=1))

    @torch.no_grad()
    def _check_packing(self) -> None:
        """Tries once whether a sample sees the one before it; architectures do not say."""
        if self._packs is None and not self.encodes:
            weight = token_table(self.model, where=self.where).weight
            generator = torch.Generator().manual_seed(0)
            rows_BLE = torch.randn((2, 4, self.width), generator=generator).to(weight.device, weight.dtype)
            rows_BLE[1, 2:] = rows_BLE[0, 2:]  # rows differ in their first sample alone
            positions_BL = torch.tensor([[0, 1, 0, 1]] * 2, device=weight.device)
            with resting(self):
                first, second = self._decoded(rows_BLE, positions_BL)[:, 2:].float()
            self._packs = bool((first - second).abs().max() < 1e-2 * first.abs().mean())
        if not self._packs:
            raise VlkitError(
                f"{self.where}: a model of model_type = {self.config.model_type!r} cannot keep samples apart that lie "
                f"end to end in a row; set model.pack_length to null"
            )


@contextmanager
def resting(module: nn.Module) -> Iterator[None]:
    """Meanwhile nothing in a module is in training mode."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


class _Found:
    """What a library's model takes for the output of its layers: their states, and nothing else."""

    def __init__(self, states_1RE: Tensor) -> None:
        self.last_hidden_state = states_1RE

    def __getitem__(self, index: Any) -> Any:
        return (self.last_hidden_state,)[index]

    def __len__(self) -> int:
        return 1

    def __getattr__(self, name: str) -> None:
        return None


class _Given(nn.Module):
    """Stands for layers whose states are known."""

    def __init__(self, states_1RE: Tensor) -> None:
        super().__init__()
        self.found = _Found(states_1RE)

    @property
    def decoder(self) -> _Given:
        """Itself: OPT's output map asks the layers' own layers."""
        return self

    def forward(self, *inputs: Any, **options: Any) -> _Found:
        """The states, whatever is read."""
        return self.found


def _change_vocabulary(model: HfLanguageModel, spec: HfLanguage) -> None:
    from vlkit.parts.cut_vocabulary import add_tokens, cut_vocabulary, read_texts
    from vlkit.parts.language_words import language_words

    if spec.vocabulary is not None:
        kept = spec.vocabulary
        cut_vocabulary(model, read_texts(Path(kept)) if isinstance(kept, str) else language_words(kept))
    if spec.tokens:
        add_tokens(model, spec.tokens)


def notices_of(folder: Path | None) -> dict[str, bytes]:
    """Terms of use and licenses beside weights, which go with them."""
    paths = [folder / name for name in _NOTICES] if folder else []
    return {path.name: path.read_bytes() for path in paths if path.is_file() and path.stat().st_size < _LONGEST_NOTICE}


def write_config(part: Any, folder: Path) -> None:
    """Writes all that a language model or a side of one is built from but its weights."""
    from transformers import GenerationConfig

    folder.mkdir(parents=True, exist_ok=True)
    part.config.save_pretrained(str(folder))
    GenerationConfig(eos_token_id=list(part.end_ids)).save_pretrained(str(folder))
    part.tokenizer.save_pretrained(str(folder))
    for name, text in part.notices.items():
        (folder / name).write_bytes(text)


def auto_class(config: Any) -> Any:
    """The class of transformers that builds a whole language model."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _check_kind(config: Any, *, where: str) -> None:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

    known = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if config.is_encoder_decoder else MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) not in known or hasattr(config, "vision_config"):
        raise VlkitError(
            f"{where}: model_type = {config.model_type!r} is no language model; take a decoder-only model (Llama, "
            f"Qwen, Gemma, BLOOM, ...) or an encoder-decoder (mT5, mT0, ...)"
        )


def _check_form(model: Any, table: nn.Embedding, config: Any, *, where: str) -> None:
    if getattr(config, "use_bidirectional_attention", False) or getattr(config, "is_causal", True) is False:
        raise VlkitError(f"{where}: its attention looks ahead, so it cannot write; take a causal language model")
    if config.model_type in _SCALE_THEMSELVES and type(table) is nn.Embedding:
        raise VlkitError(
            f"{where}: this transformers multiplies all that a {config.model_type} model reads, images' tokens too; "
            f"install a newer transformers"
        )
    if model.get_output_embeddings() is None or (not config.is_encoder_decoder and model.base_model is model):
        raise VlkitError(f"{where}: {type(model).__name__} has no output map that is known; is it a language model?")


def _end_ids(tokenizer: Any, config: Any, folder: Path | None, *, rows: int) -> tuple[int, ...]:
    """All tokens that end a text: the tokenizer's, and those that the model's files name beside it."""
    path = folder / "generation_config.json" if folder else None
    named = read_settings(path).get("eos_token_id") if path and path.is_file() else None
    named = config.eos_token_id if named is None else named
    ends = (tokenizer.eos_token_id, *(named if isinstance(named, list | tuple) else [named]))
    return tuple(dict.fromkeys(end for end in ends if isinstance(end, int) and 0 <= end < rows))
