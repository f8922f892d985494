"""Adapters: nothing at the start, all that trains afterwards, and foldable into the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from vlkit.adapt.inject import adapter_of, add_adapter, add_lora, base_name, merge
from vlkit.adapt.targets import find_layers
from vlkit.errors import VlkitError
from vlkit.models.folder import load
from vlkit.models.trainable import check_moved, snapshot
from vlkit.spec.adapt import AdapterSpec, Bottleneck, LoRA

KINDS = (
    "hf:bert",
    "hf:llama",
    "hf:t5",
    "hf:clip",
    "hf:vit",
    "hf:dinov2",
    "open_clip:image",
    "open_clip:text",
    "timm:vit_tiny_patch16_224",
    "tiny:image",
    "tiny:text",
)
ADAPTERS: tuple[AdapterSpec, ...] = (
    LoRA(rank=2),
    LoRA(rank=3, targets="all"),
    Bottleneck(width=3),
    Bottleneck(width=2, targets="all"),
)
Make = Callable[[str], tuple[Any, Any]]


def new_parameters(module: nn.Module, before: set[str]) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if base_name(name) not in before}


def step(module: nn.Module, inputs: Any) -> None:
    """One step that moves every trained tensor, up to those that a zero factor hides."""
    module.train()
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.5)
    target = torch.randn_like(module(inputs).detach())
    for _ in range(2):  # what stands behind a zero matrix moves in the second step
        optimizer.zero_grad()
        (module(inputs) * target).sum().backward()
        optimizer.step()
    module.eval()


@pytest.mark.parametrize("spec", ADAPTERS, ids=lambda spec: f"{spec.kind}-{spec.targets}")
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_at_the_start_then_only_the_adapter_moves(kind: str, spec: AdapterSpec, encoder_of: Make) -> None:
    encoder, inputs = encoder_of(kind)
    own = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    with torch.no_grad():
        before = encoder(inputs)
    assert add_adapter(encoder, spec) is encoder and adapter_of(encoder) == spec
    with torch.no_grad():
        assert torch.equal(encoder(inputs), before)
    assert {base_name(name) for name, p in encoder.named_parameters() if not p.requires_grad} == set(own)
    added = new_parameters(encoder, set(own))
    assert added and all(p.requires_grad for p in added.values())
    at_start = {name: p.detach().clone() for name, p in added.items()}
    objects = {name: id(p) for name, p in encoder.named_parameters()}
    step(encoder, inputs)
    moved = {name for name, p in added.items() if not torch.equal(p, at_start[name])}
    assert {name.rpartition("lora_")[0] for name in moved} == {name.rpartition("lora_")[0] for name in added}
    with torch.no_grad():
        assert not torch.equal(encoder(inputs), before)
    kept = {base_name(name): p for name, p in encoder.named_parameters()}
    assert all(torch.equal(kept[name], p) for name, p in own.items())  # to the bit
    assert {name: id(p) for name, p in encoder.named_parameters()} == objects  # an optimiser would lose new ones
    encoder.state_dict()
    assert {name: id(p) for name, p in encoder.named_parameters()} == objects


@pytest.mark.parametrize("targets", ["attention", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_merged_is_unmerged(kind: str, targets: Any, encoder_of: Make) -> None:
    encoder, inputs = encoder_of(kind)
    names = list(encoder.state_dict())
    with torch.no_grad():
        base = encoder(inputs)
        add_lora(encoder, LoRA(rank=2, alpha=6.0, targets=targets))
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
        adapted = encoder(inputs)
        merge(encoder)
        assert adapter_of(encoder) is None and list(encoder.state_dict()) == names
        torch.testing.assert_close(encoder(inputs), adapted, atol=1e-5, rtol=1e-5)
        assert (adapted - base).abs().max() > 1e-3
    add_lora(encoder, LoRA(rank=2))  # and again


def test_an_update_is_alpha_over_rank_times_b_a(encoder_of: Make) -> None:
    encoder, _ = encoder_of("tiny:text")
    layer = encoder.blocks[0].qkv
    add_lora(encoder, LoRA(rank=4, alpha=10.0, targets=["blocks.0.qkv"]))
    adapted: Any = encoder.blocks[0].qkv
    a_RD, b_OR = adapted.lora_A.default.weight, adapted.lora_B.default.weight
    assert a_RD.shape == (4, 32) and b_OR.shape == (96, 4)
    nn.init.normal_(b_OR)
    x_ND = torch.randn(3, 32)
    torch.testing.assert_close(adapted(x_ND), layer(x_ND) + 10 / 4 * x_ND @ a_RD.T @ b_OR.T)


def test_a_bottleneck_is_residual_and_stands_behind_each_sub_layer(encoder_of: Make) -> None:
    encoder, _ = encoder_of("tiny:image")
    add_adapter(encoder, Bottleneck(width=5, targets="all"))
    adapted = [name for name, module in encoder.named_modules() if hasattr(module, "bottleneck")]
    assert adapted == ["blocks.0.out", "blocks.0.mlp.2", "blocks.1.out", "blocks.1.mlp.2"]
    layer: Any = encoder.blocks[1].mlp[2]
    down, up = layer.bottleneck[0], layer.bottleneck[2]
    nn.init.normal_(up.weight)
    x_ND = torch.randn(3, 64)
    h_ND = layer.base_layer(x_ND)
    torch.testing.assert_close(layer(x_ND), h_ND + up(nn.functional.gelu(down(h_ND))))
    assert layer.out_features == 32  # what a library may ask a linear layer


@pytest.mark.parametrize(
    ("kind", "targets", "expected"),
    [
        ("hf:bert", "attention", {"self.query", "self.key", "self.value", "attention.output.dense"}),
        ("hf:bert", "mlp", {"intermediate.dense", "0.output.dense", "1.output.dense"}),
        ("hf:bert", ("query", "self.value"), {"self.query", "self.value"}),
        ("open_clip:text", "attention", {"attn"}),
        ("open_clip:text", "mlp", {"mlp.c_fc", "mlp.c_proj"}),
        ("tiny:text", "attention", {"qkv", "out"}),
        ("timm:vit_tiny_patch16_224", "mlp", {"mlp.fc1", "mlp.fc2"}),
    ],
)
def test_targets_mean_layers(kind: str, targets: Any, expected: set[str], encoder_of: Make) -> None:
    encoder, _ = encoder_of(kind)
    names = set(find_layers(encoder, targets))
    assert names and all(any(name.endswith(end) for end in expected) for name in names)
    assert all(any(name.endswith(end) for name in names) for end in expected)


def test_what_cannot_be_is_told(encoder_of: Make) -> None:
    text, _ = encoder_of("tiny:text")
    with pytest.raises(VlkitError, match=r"'querry' match no linear layer of TinyTextEncoder; it has: blocks\.\*\.qkv"):
        add_lora(text, LoRA(targets=["qkv", "querry"]))
    assert adapter_of(text) is None and all(p.requires_grad for p in text.parameters())
    with pytest.raises(VlkitError, match="are empty"):
        add_lora(text, LoRA(targets=[]))
    convolutions, _ = encoder_of("timm:test_efficientnet")
    with pytest.raises(VlkitError, match="'attention' match no linear layer of TimmImageEncoder"):
        add_lora(convolutions, LoRA())
    with pytest.raises(VlkitError, match="has no adapter to merge"):
        merge(text)
    add_lora(text, LoRA())
    with pytest.raises(VlkitError, match=r"has an adapter already .*vlkit\.merge"):
        add_adapter(text, Bottleneck())
    model = load("tiny")
    add_lora(model.text, LoRA(rank=2))
    add_adapter(model.image, Bottleneck(width=2))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(VlkitError, match="bottleneck adapter is not linear"):
        merge(model)
    assert list(model.state_dict()) == list(state)


def test_dropout_is_of_the_update_alone_and_of_training(encoder_of: Make) -> None:
    encoder, inputs = encoder_of("tiny:text")
    add_lora(encoder, LoRA(rank=2, dropout=0.5))
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    assert torch.equal(encoder(inputs), encoder(inputs))
    encoder.train()
    assert not torch.equal(encoder(inputs), encoder(inputs))


def test_a_frozen_adapter_stays(encoder_of: Make) -> None:
    model = load("tiny")
    add_lora(model.text, LoRA(rank=2))
    before = snapshot(model)
    for parameter in model.text_head.parameters():
        parameter.data.add_(1)
    check_moved(before, snapshot(model), ["text_head"])
