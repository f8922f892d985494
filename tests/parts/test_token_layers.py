"""Tokens of chosen blocks: equal to the library's own states, joined in order, counted without the extra tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import encoder_factory as factory
from vlkit.errors import ShapeError, VlkitError
from vlkit.parts.encoders import build_image_encoder, image_encoder
from vlkit.spec.parts import HfImage, OpenClipImage, TimmImage, TinyImage


def pixels(encoder: Any) -> torch.Tensor:
    return torch.stack([encoder.transform(factory.random_image(seed)) for seed in range(2)])


def dinov2_with_registers(folder: Path) -> Path:
    from transformers import BitImageProcessor, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=4, **sizes)).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def yolos(folder: Path) -> Path:
    from transformers import ViTImageProcessor, YolosConfig, YolosModel

    sizes = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "image_size": [32, 32], "patch_size": 8, "num_detection_tokens": 5, "use_mid_position_embeddings": False,
    }  # fmt: skip
    YolosModel(YolosConfig(**sizes), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("make", [factory.clip, factory.siglip, factory.dinov2, factory.vit])
def test_hf_blocks_are_the_library_s_hidden_states(make, tmp_path: Path) -> None:
    folder = str(make(tmp_path))
    plain: Any = build_image_encoder(HfImage(name=folder))
    x = pixels(plain)
    states = plain.vision(pixel_values=x, output_hidden_states=True, **plain.options).hidden_states
    second_last = build_image_encoder(HfImage(name=folder, layers=(-2,)))
    torch.testing.assert_close(second_last.tokens(x), states[-2][:, -16:])
    joined: Any = build_image_encoder(HfImage(name=folder, layers=(-1, 1)))
    assert joined.token_width == 32 and joined.width == plain.width
    torch.testing.assert_close(joined.tokens(x), torch.cat([plain.tokens(x), states[1][:, -16:]], dim=-1))
    torch.testing.assert_close(joined(x), plain(x))
    torch.testing.assert_close(joined.pooled_and_states(x)[1], joined.tokens(x))


def test_timm_blocks_are_its_intermediate_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain: Any = build_image_encoder(TimmImage(name="test_vit", pretrained=False))
    torch.manual_seed(0)
    chosen: Any = build_image_encoder(TimmImage(name="test_vit", pretrained=False, layers=(-2,)))
    x = pixels(plain)
    peer = plain.model.get_intermediate_layers(x, n=2, norm=False)
    torch.testing.assert_close(chosen.tokens(x), peer[0])
    torch.manual_seed(0)
    joined: Any = build_image_encoder(TimmImage(name="test_vit", pretrained=False, layers=(-1, 2, -2)))
    found = joined.tokens(x)
    assert found.shape[-1] == joined.token_width == 3 * plain.token_width
    torch.testing.assert_close(found[..., :64], plain.tokens(x))
    torch.testing.assert_close(found[..., 128:], peer[0])
    torch.testing.assert_close(joined(x), plain(x))
    torch.testing.assert_close(joined.pooled_and_states(x)[1], found)


def test_no_block_behind_the_last_named_one_is_run(tmp_path: Path) -> None:
    encoders: list[Any] = [
        build_image_encoder(TimmImage(name="test_vit", pretrained=False, layers=(2,))),
        build_image_encoder(OpenClipImage(name=str(factory.open_clip_folder(tmp_path)), layers=(1,))),
    ]
    for encoder in encoders:
        blocks = encoder.model.blocks if hasattr(encoder, "model") else encoder.tower.transformer.resblocks
        blocks[-1].register_forward_hook(lambda *_: pytest.fail("it was run"))
        encoder.tokens(pixels(encoder))


def test_stages_of_a_convolutional_network_are_joined_where_they_are_of_one_size() -> None:
    stage: Any = build_image_encoder(TimmImage(name="test_efficientnet", pretrained=False, layers=(4,)))
    assert stage.token_width == 48 and stage.num_tokens(stage.image_size) == 100
    with pytest.raises(ShapeError) as error:
        build_image_encoder(TimmImage(name="test_efficientnet", pretrained=False, layers=(4, -1)))
    assert str(error.value) == (
        "timm:test_efficientnet: layers = [4, -1] give 25, 100 tokens, which cannot be joined; choose blocks of one "
        "resolution"
    )


def test_open_clip_blocks_are_its_intermediates(tmp_path: Path) -> None:
    folder = str(factory.open_clip_folder(tmp_path))
    torch.manual_seed(0)
    plain: Any = build_image_encoder(OpenClipImage(name=folder))
    chosen: Any = build_image_encoder(OpenClipImage(name=folder, layers=(-2, -1)))
    chosen.load_state_dict(plain.state_dict())
    x = pixels(plain)
    peer = plain.tower.forward_intermediates(x, normalize_intermediates=False)["image_intermediates"]
    found = chosen.tokens(x)
    assert chosen.token_width == 32
    torch.testing.assert_close(found[..., :16], peer[-2].flatten(2).transpose(1, 2))
    torch.testing.assert_close(found[..., 16:], plain.tokens(x))
    torch.testing.assert_close(chosen(x), plain(x))


def test_tiny_blocks() -> None:
    torch.manual_seed(0)
    plain = build_image_encoder(TinyImage(depth=3))
    torch.manual_seed(0)
    joined = build_image_encoder(TinyImage(depth=3, layers=(1, -1)))
    x = pixels(plain)
    assert joined.token_width == 64
    torch.testing.assert_close(joined.tokens(x)[..., 32:], plain.tokens(x))
    torch.testing.assert_close(joined(x), plain(x))


@pytest.mark.parametrize(
    ("make", "extra", "sizes"),
    [
        (factory.clip, 1, (32, 64)),
        (factory.siglip, 0, (32, 64)),
        (dinov2_with_registers, 5, (28, 56)),
        (factory.dinov2, 1, (32, 64)),
    ],
)
@pytest.mark.parametrize("layers", [(-1,), (-2,)])
def test_tokens_are_as_many_as_foretold_at_two_sizes_without_class_and_registers(
    make, extra: int, sizes: tuple[int, int], layers: tuple[int, ...], tmp_path: Path
) -> None:
    folder = str(make(tmp_path))
    for size in sizes:
        encoder: Any = build_image_encoder(HfImage(name=folder, image_size=size, layers=layers))
        patches = (size // encoder.patch_size) ** 2
        states = encoder._states(pixels(encoder)).last_hidden_state
        assert states.shape[1] == patches + extra
        assert encoder.tokens(pixels(encoder)).shape[1] == encoder.num_tokens(size) == patches
        torch.testing.assert_close(
            build_image_encoder(HfImage(name=folder, image_size=size)).tokens(pixels(encoder)), states[:, extra:]
        )


@pytest.mark.parametrize(("name", "extra"), [("test_vit", 1), ("test_vit_relpos", 0)])
def test_timm_tokens_are_as_many_as_foretold_at_two_sizes(name: str, extra: int) -> None:
    for size in (64, 128):
        encoder: Any = build_image_encoder(TimmImage(name=name, pretrained=False, image_size=size, layers=(-2,)))
        x = torch.randn(1, 3, size, size)
        assert encoder.model.num_prefix_tokens == extra
        assert (
            encoder.tokens(x).shape[1] == encoder.num_tokens(size) == encoder.model.forward_features(x).shape[1] - extra
        )


def test_tokens_behind_the_patches_are_left_out_as_well(tmp_path: Path) -> None:
    encoder: Any = build_image_encoder(HfImage(name=str(yolos(tmp_path)), pooling="mean"))
    x = pixels(encoder)
    states = encoder._states(x).last_hidden_state
    assert states.shape[1] == 1 + 16 + 5
    torch.testing.assert_close(encoder.tokens(x), states[:, 1:17])


@pytest.mark.parametrize("layer", [0, 3, -3])
def test_blocks_that_are_not_there_are_told(layer: int, tmp_path: Path) -> None:
    with pytest.raises(VlkitError) as error:
        image_encoder(f"hf:{factory.clip(tmp_path)}", layers=(-1, layer))
    assert str(error.value) == (
        f"hf:{tmp_path}: layers = [-1, {layer}] names block {layer}; allowed: 1 to 2, or -1 (the last) to -2"
    )
