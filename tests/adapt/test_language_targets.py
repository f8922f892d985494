"""What ``attention``, ``mlp`` and ``all`` mean in language models: the right linear layers of each architecture."""

from __future__ import annotations

import re
from typing import Any

import pytest
from torch import nn

from vlkit.adapt.inject import add_lora
from vlkit.adapt.targets import find_layers
from vlkit.errors import VlkitError
from vlkit.parts.language_models import build_language_model
from vlkit.spec.adapt import LoRA
from vlkit.spec.language import TinyLanguage

_LLAMA = ({"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj", "down_proj"})
_LAYERS: dict[str, tuple[set[str], set[str]]] = {
    "llama": _LLAMA, "qwen3": _LLAMA, "gemma2": _LLAMA, "gemma3": _LLAMA,
    "bloom": ({"query_key_value", "dense"}, {"dense_h_to_4h", "dense_4h_to_h"}),
    "t5": ({"q", "k", "v", "o"}, {"wi", "wo"}),
    "mt5": ({"q", "k", "v", "o"}, {"wi_0", "wi_1", "wo"}),
}  # fmt: skip


def _model(architecture: str) -> Any:
    return build_language_model(TinyLanguage(architecture=architecture))


def _leaves(names: Any) -> set[str]:
    return {name.rpartition(".")[2] for name in names}


@pytest.mark.parametrize("architecture", _LAYERS)
def test_presets_name_the_layers_of_the_architecture(architecture: str) -> None:
    model, (attention, mlp) = _model(architecture), _LAYERS[architecture]
    found = {targets: find_layers(model, targets) for targets in ("attention", "mlp", "all")}
    assert [_leaves(found[targets]) for targets in found] == [attention, mlp, attention | mlp]
    # two blocks, in encoder-decoders on each side, where those of the decoder also look at what was read
    times = {"attention": 6, "mlp": 4} if model.encodes else {"attention": 2, "mlp": 2}
    for targets, layers in (("attention", attention), ("mlp", mlp)):
        assert len(found[targets]) == times[targets] * len(layers)
    head, table = model.whole.get_output_embeddings(), model.whole.get_input_embeddings()
    assert not any(layer in (head, table) for layer in found["all"].values())


@pytest.mark.parametrize(("architecture", "targets"), [("mt5", ("q", "v")), ("bloom", ("query_key_value",))])
def test_names_alone_are_mblip_s_small_choice(architecture: str, targets: tuple[str, ...]) -> None:
    assert _leaves(find_layers(_model(architecture), targets)) == set(targets)


def test_all_adapts_no_more_than_the_model_that_is_given() -> None:
    whole = nn.ModuleDict({"encoder": _model("llama"), "language_model": _model("mt5")})
    add_lora(whole["language_model"], LoRA(rank=2, targets="all"))
    adapted = [name for name, _ in whole.named_parameters() if "lora_" in name]
    assert adapted and all(re.match(r"language_model\.model\.(en|de)coder\.block\.", name) for name in adapted)
    assert all(parameter.requires_grad for parameter in whole["encoder"].parameters())


def test_an_output_map_is_no_layer_of_a_block() -> None:
    model = _model("llama")
    model.model.model.layers = nn.ModuleList()
    with pytest.raises(VlkitError, match="adapter targets 'all' match no linear layer of TinyLanguageModel; it has: "):
        find_layers(model, "all")
