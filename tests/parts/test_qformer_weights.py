"""Weights of Q-Formers from LAVIS, transformers and vlkit: equal outputs, and what does not fit told by name."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlkit.errors import AssetError, VlkitError
from vlkit.parts.bridges import build_bridge
from vlkit.parts.qformer_weights import blip2_name, load_qformer
from vlkit.spec.bridges import QFormerBridgeSpec

SIZES: dict[str, Any] = {"num_queries": 3, "width": 16, "layers": 3, "heads": 2, "ffn": 24, "norm_image": True}


def spec(weights: Path | None = None, **changed) -> QFormerBridgeSpec:
    return QFormerBridgeSpec(**{**SIZES, **changed}, weights=None if weights is None else str(weights))


def build(weights: Path | None = None, in_width: int = 12, out_width: int = 20, **changed):
    return build_bridge(spec(weights, **changed), in_width, out_width).eval()


def image(width: int = 12) -> torch.Tensor:
    return torch.randn(2, 5, width, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def blip2(tmp_path_factory) -> tuple[Any, Path]:
    """A random BLIP-2 of transformers far from its first weights, and its folder."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration, OPTConfig

    torch.manual_seed(4)
    config = Blip2Config(
        vision_config={
            "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
            "image_size": 28,
        },
        qformer_config={
            "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
            "vocab_size": 30,
        },
        text_config=OPTConfig(
            hidden_size=20, num_hidden_layers=1, num_attention_heads=2, ffn_dim=8, vocab_size=40,
            word_embed_proj_dim=20, max_position_embeddings=20,
        ),
        num_query_tokens=3,
        image_token_index=39,
    )  # fmt: skip
    model = Blip2ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.3)
    folder = tmp_path_factory.mktemp("blip2")
    model.save_pretrained(folder)
    return model, folder


def peer_output(model, pixels_tokens: torch.Tensor) -> torch.Tensor:
    """What transformers makes of image tokens: its norm of them, Q-Former and projection."""
    seen = model.vision_model.post_layernorm(pixels_tokens)
    queries = model.query_tokens.expand(len(seen), -1, -1)
    states = model.qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state
    return model.language_projection(states)


def lavis_state(model) -> dict[str, torch.Tensor]:
    """The same weights as LAVIS names them."""
    lavis = {}
    for name, value in model.state_dict().items():
        if name.startswith(("vision_model.post", "qformer.", "language_projection", "query_tokens")):
            name = name.replace("qformer.layernorm", "Qformer.bert.embeddings.LayerNorm")
            name = name.replace("qformer.", "Qformer.bert.").replace("attention.attention.", "attention.self.")
            name = name.replace("language_projection", "opt_proj").replace("vision_model.post_layernorm", "ln_vision")
        lavis[name] = value
    return lavis


def test_a_folder_of_transformers_gives_its_outputs(blip2) -> None:
    model, folder = blip2
    torch.testing.assert_close(build(folder)(image()), peer_output(model, image()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("projection", ["opt_proj", "t5_proj", "llm_proj"])
def test_a_file_of_lavis_gives_the_same(blip2, tmp_path, nested: bool, projection: str) -> None:
    model, _ = blip2
    state = {name.replace("opt_proj", projection): value for name, value in lavis_state(model).items()}
    torch.save({"model": state, "epoch": 3} if nested else state, tmp_path / "blip2.pth")
    torch.testing.assert_close(
        build(tmp_path / "blip2.pth")(image()), peer_output(model, image()), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("start", ["", "bridge."])
def test_a_file_of_vlkit_s_own_gives_the_same(tmp_path, start: str) -> None:
    first = build()
    save_file({f"{start}{name}": value for name, value in first.state_dict().items()}, tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors"):
        second = build(place)
        assert torch.equal(second(image()), first(image())) and second.spec.weights == str(place)


def test_of_a_model_that_was_trained_with_texts_the_projection_is_not_taken(tmp_path, caplog) -> None:
    first = build()
    state = {f"bridge.{name}": value for name, value in first.state_dict().items()}
    save_file({**state, "text.words.weight": torch.zeros(4, 16)}, tmp_path / "model.safetensors")
    second = build(tmp_path)
    assert torch.equal(second.query_states(image()).last_BMW, first.query_states(image()).last_BMW)
    assert not torch.equal(second.projection.weight, first.projection.weight)
    assert caplog.messages == [
        f"the Q-Former takes its weights from {tmp_path}, but for 2 that depend on what it stands between and are "
        f"drawn anew: projection.bias, projection.weight"
    ]


def test_names_of_transformers_for_all_of_ours(blip2) -> None:
    theirs = {blip2_name(name) for name in build().state_dict()}
    here = ("query_tokens", "qformer.", "language_projection.", "vision_model.post_layernorm.")
    assert theirs == {name for name in blip2[0].state_dict() if name.startswith(here)}
    with pytest.raises(KeyError):
        blip2_name("text.words.weight")


def test_between_other_widths_what_depends_on_them_is_drawn_anew_and_told(blip2, caplog) -> None:
    model, folder = blip2
    bridge = build(folder, in_width=10, out_width=8)
    assert bridge(image(10)).shape == (2, 3, 8)
    taken = load_qformer(bridge, folder)
    assert taken.new == (
        "image_norm.bias", "image_norm.weight",
        "layers.0.cross.key.bias", "layers.0.cross.key.weight",
        "layers.0.cross.value.bias", "layers.0.cross.value.weight",
        "layers.2.cross.key.bias", "layers.2.cross.key.weight",
        "layers.2.cross.value.bias", "layers.2.cross.value.weight",
        "projection.bias", "projection.weight",
    )  # fmt: skip
    assert taken.unused == taken.new
    assert torch.equal(bridge.layers[2].ffn.up.weight, model.qformer.encoder.layer[2].intermediate_query.dense.weight)
    assert caplog.messages[0] == (
        f"the Q-Former takes its weights from {folder}, but for 12 that depend on what it stands between and are drawn "
        f"anew: image_norm.bias, image_norm.weight, layers.0.cross.key.bias, layers.0.cross.key.weight and 8 more"
    )


def test_a_norm_that_is_not_wanted_is_told_as_unused(blip2, caplog) -> None:
    caplog.set_level(logging.INFO)
    taken = load_qformer(build(norm_image=False), blip2[1])
    assert taken == ((), ("image_norm.bias", "image_norm.weight"))
    assert caplog.messages == [f"not used of {blip2[1]}: image_norm.bias, image_norm.weight"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": 2}, "{where} holds a Q-Former of 3 layers; set model.bridge.layers to 3 instead of 2"),
        ({"heads": 4}, "{where}/config.json says 2 heads; set model.bridge.heads to 2 instead of 4"),
        (
            {"num_queries": 4, "ffn": 25},
            "the Q-Former in {where} is of other sizes: 10 tensors differ (queries_MW is [3, 16], not [4, 16]; "
            "layers.0.ffn.up.weight is [24, 16], not [25, 16]; layers.0.ffn.up.bias is [24], not [25]); set "
            "num_queries, width and ffn of model.bridge to its own",
        ),
        (
            {"cross_every": 1},
            "the Q-Former in {where} lacks 6 of the tensors that model.bridge describes: layers.1.cross.norm.bias, "
            "layers.1.cross.norm.weight, layers.1.cross.out.bias, layers.1.cross.out.weight and 2 more; cross_every "
            "and layers must be those that it was made with",
        ),
        (
            {"cross_every": 3},
            "the Q-Former in {where} looks at the image where model.bridge does not: layers.2.cross.norm.bias, "
            "layers.2.cross.norm.weight, layers.2.cross.out.bias, layers.2.cross.out.weight and 2 more; set "
            "model.bridge.cross_every to what it was made with",
        ),
    ],
)  # fmt: skip
def test_other_sizes_name_the_key_to_set(blip2, changed: dict[str, int], message: str) -> None:
    with pytest.raises(VlkitError) as error:
        build(blip2[1], **changed)
    assert str(error.value) == "model.bridge.weights: " + message.format(where=blip2[1])


def test_heads_of_a_model_folder_are_asked_for(tmp_path) -> None:
    save_file({f"bridge.{name}": value for name, value in build().state_dict().items()}, tmp_path / "model.safetensors")
    (tmp_path / "spec.yaml").write_text("format: 2\nmodel:\n  kind: vision_language\n  bridge:\n    heads: 2\n")
    with pytest.raises(VlkitError, match=r"spec.yaml says 2 heads; set model.bridge.heads to 2 instead of 4$"):
        build(tmp_path, heads=4)


def test_lacking_tensors_and_other_files_are_told(blip2, tmp_path) -> None:
    with pytest.raises(
        AssetError, match=r"^model.bridge.weights: there is no .*; name a file or folder with a Q-Former"
    ):
        build(tmp_path / "nothing.pth")
    with pytest.raises(AssetError, match=re.escape(f"model.bridge.weights: {tmp_path} has no model.safetensors")):
        build(tmp_path)
    save_file({"a": torch.zeros(2), "b": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(VlkitError) as error:
        build(tmp_path)
    assert str(error.value) == (
        f"model.bridge.weights: {tmp_path} holds no Q-Former: none of its 2 tensors are learned queries "
        f"(query_tokens); name weights of BLIP-2, or of a vlkit model with a bridge of kind qformer"
    )
    state = load_file(blip2[1] / "model.safetensors")
    del state["qformer.encoder.layer.1.output_query.dense.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(
        VlkitError, match=r"lacks 1 of the tensors that model.bridge describes: layers.1.ffn.down.weight"
    ):
        build(tmp_path)


def test_a_pickle_of_more_than_tensors_is_not_loaded(tmp_path) -> None:
    torch.save({"model": {"query_tokens": torch.zeros(1, 3, 16)}, "args": Path("x")}, tmp_path / "weights.pth")
    with pytest.raises(AssetError, match="can run code and is never loaded"):
        build(tmp_path / "weights.pth")


def test_weights_are_not_read_where_others_follow_or_none_are_wanted(tmp_path) -> None:
    gone = spec(tmp_path / "gone.pth")
    assert build_bridge(gone, 12, 20, saved=True).spec == gone
    assert build_bridge(gone, 12, 20, empty=True).queries_MW.is_meta
