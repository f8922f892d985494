"""Image tokenizers of other libraries: equal to those libraries, saved and loaded, and what they refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

import vlkit
from tests.helpers.stored_tokenizers import SIDE, STORED, diffusers_vq, janus, janus_network, torchscript
from vlkit.errors import AssetError, MissingPackage, VlkitError
from vlkit.models.image_tokenizer.model import ImageTokenizerModel
from vlkit.parts.image_tokenizers import build_image_tokenizer
from vlkit.parts.torchscript_tokenizer import ALLOWED
from vlkit.spec.image_tokenizers import JanusTokenizerSpec, TorchScriptTokenizerSpec


def pixels(tokenizer: Any, count: int = 2) -> Tensor:
    low = tokenizer.pixel_low
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3)) * (1 - low) + low


def test_codes_and_images_are_those_of_diffusers(tmp_path: Path) -> None:
    from diffusers import VQModel

    tokenizer: Any = build_image_tokenizer(diffusers_vq(tmp_path))
    theirs: Any = VQModel.from_pretrained(str(tmp_path / "vqvae")).eval()
    images = pixels(tokenizer)
    with torch.no_grad():
        codes = theirs.quantize(theirs.encode(images).latents)[2][2].view(2, -1)
        back = theirs.decode(codes, force_not_quantize=True, shape=(2, 8, 8, 4)).sample
    assert len(codes.unique()) > 3 and torch.equal(tokenizer.encode(images), codes)
    assert torch.allclose(tokenizer.decode(codes), back.clamp(0, 1), atol=1e-6)


def test_images_are_those_of_janus_and_codes_are_compared_as_its_decoder_reads_them(tmp_path: Path) -> None:
    from transformers.models.janus.modeling_janus import JanusVQVAE

    tokenizer: Any = build_image_tokenizer(janus(tmp_path))
    theirs: Any = JanusVQVAE.from_pretrained(str(tmp_path / "janus")).float().eval()
    codes = tokenizer.encode(pixels(tokenizer))
    with torch.no_grad():
        assert torch.allclose(tokenizer.decode(codes), (theirs.decode(codes) + 1).div(2).clamp(0, 1), atol=1e-6)
        latents = theirs.quant_conv(theirs.encoder(pixels(tokenizer))).permute(0, 2, 3, 1).flatten(1, 2)
    unit = torch.nn.functional.normalize
    likeness = unit(latents, dim=-1) @ unit(theirs.quantize.embedding.weight, dim=-1).T
    assert torch.equal(likeness.argmax(dim=-1), codes)


@pytest.mark.parametrize("kind", ["diffusers_vq", "janus"])
def test_each_code_is_nearest_to_itself(kind: str, tmp_path: Path) -> None:
    tokenizer: Any = build_image_tokenizer(STORED[kind](tmp_path))
    assert tokenizer.nearest(tokenizer.table()).tolist() == list(range(tokenizer.codebook_size))


def test_a_program_gives_its_own_codes_back(tmp_path: Path) -> None:
    tokenizer: Any = build_image_tokenizer(torchscript(tmp_path))
    codes = torch.arange(64).remainder(24)[None]
    assert torch.equal(tokenizer.encode(tokenizer.decode(codes) * 2 - 1), codes)
    tokenizer.to(torch.bfloat16)
    assert torch.equal(tokenizer.encode(tokenizer.decode(codes) * 2 - 1), codes)  # it stays in float32


def test_the_tokenizer_of_a_whole_janus_is_taken(tmp_path: Path) -> None:
    from transformers import JanusConfig

    network = janus_network()
    JanusConfig(vq_config=network.config.to_dict()).save_pretrained(tmp_path)
    state = {f"model.vqmodel.{name}": one.contiguous() for name, one in network.state_dict().items()}
    save_file(state | {"model.language_model.norm.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    tokenizer: Any = build_image_tokenizer(JanusTokenizerSpec(weights=str(tmp_path)))
    assert all(torch.equal(one, network.state_dict()[name]) for name, one in tokenizer.network.state_dict().items())


@pytest.mark.parametrize("kind", list(STORED))
def test_a_model_folder_holds_all_but_programs(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = STORED[kind](tmp_path)
    model: Any = ImageTokenizerModel(build_image_tokenizer(spec))
    images = pixels(model)
    vlkit.save(model, tmp_path / "saved")
    if kind == "torchscript":
        with pytest.raises(VlkitError, match=rf"would run .*both.jit, a program; if you trust both, set {ALLOWED}=1"):
            vlkit.load(tmp_path / "saved")
        monkeypatch.setenv(ALLOWED, "1")
    else:  # what it was read from is not needed any more
        Path(spec.weights).rename(tmp_path / "elsewhere")
    again: Any = vlkit.load(tmp_path / "saved")
    assert again.spec == model.spec and torch.equal(again.encode(images), model.encode(images))
    if kind == "torchscript":
        (tmp_path / "both.jit").write_bytes(b"another one")
        with pytest.raises(
            AssetError, match=r"tokenizer.sha256: .*both.jit are not the files that this model was made"
        ):
            vlkit.load(tmp_path / "saved")


def test_what_no_vq_model_is_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = diffusers_vq(tmp_path)
    with pytest.raises(
        VlkitError, match=r"image_size = 17 is no multiple of 2, the pixels of a code's side; nearest: 16"
    ):
        build_image_tokenizer(spec.model_copy(update={"image_size": 17}))
    config, weights = (tmp_path / "vqvae" / name for name in ("config.json", "diffusion_pytorch_model.safetensors"))
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"num_vq_embeddings": 25}))
    with pytest.raises(VlkitError, match=r"not those of its configuration \(1 tensors, such as quantize.embedding.wei"):
        build_image_tokenizer(spec)
    config.write_text(json.dumps(settings | {"_class_name": "AutoencoderKL"}))
    with pytest.raises(VlkitError, match="_class_name = 'AutoencoderKL', norm_type = 'group'; allowed: a 'VQModel'"):
        build_image_tokenizer(spec)
    config.write_text(json.dumps(settings))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(
        AssetError, match=r"lacks diffusion_pytorch_model.safetensors; .*bin is a pickle, which can run"
    ):
        build_image_tokenizer(spec)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingPackage, match=r"tokenizer: diffusers_vq needs the package 'diffusers'"):
        build_image_tokenizer(spec)


def test_what_no_janus_is_is_refused(tmp_path: Path) -> None:
    spec = janus(tmp_path)
    config = tmp_path / "janus" / "config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"base_channels": 64}))
    with pytest.raises(VlkitError, match=r"tokenizer.weights: .* its weights are not those of its configuration"):
        build_image_tokenizer(spec)
    config.write_text('{"model_type": "bert"}')
    with pytest.raises(VlkitError, match="model_type = 'bert'; allowed: 'janus_vqgan', 'janus'"):
        build_image_tokenizer(spec)
    (tmp_path / "janus" / "model.safetensors").unlink()
    config.write_text(json.dumps(settings))
    with pytest.raises(AssetError, match=r"tokenizer.weights: .* has no model.safetensors"):
        build_image_tokenizer(spec)


def test_programs_run_only_where_they_may_and_as_they_say(tmp_path: Path) -> None:
    spec = torchscript(tmp_path)
    fields = spec.model_dump(exclude_unset=True)
    with pytest.raises(
        ValidationError, match=r"run_code: .*both.jit is a program and would be run; write run_code: tru"
    ):
        TorchScriptTokenizerSpec(**fields | {"run_code": False})
    for changed, said in [
        (
            {"codes_at": None},
            r"was to give 64 whole numbers an image and gave tuple; see image_size, step and codes_at",
        ),
        ({"codes_at": 1}, r"and gave torch.float32 \[2, 8, 8\]"),
        ({"step": 4}, r"was to give 16 whole numbers an image and gave torch.int32 \[2, 8, 8\]"),
        ({"codebook_size": 4}, r"gave the code \d+; codebook_size = 4 does not fit it"),
    ]:
        wrong: Any = build_image_tokenizer(TorchScriptTokenizerSpec(**fields | changed))
        with pytest.raises(VlkitError, match=said):
            wrong.encode(pixels(wrong))
    rows: Any = build_image_tokenizer(TorchScriptTokenizerSpec(**fields | {"codes_as": "rows"}))
    with pytest.raises(VlkitError, match=r"both.jit cannot decode: "):
        rows.decode(torch.zeros(1, 64, dtype=torch.int64))
    with pytest.raises(VlkitError, match=r"the program .*both.jit has no method 'nope'"):
        build_image_tokenizer(TorchScriptTokenizerSpec(**fields | {"decode": "nope"}))
    (tmp_path / "text.jit").write_text("no program")
    with pytest.raises(AssetError, match=r"text.jit is no TorchScript program that can be read"):
        build_image_tokenizer(TorchScriptTokenizerSpec(**fields | {"encoder": str(tmp_path / "text.jit")}))
    with pytest.raises(AssetError, match=r"tokenizer: there is no file .*none.jit"):
        build_image_tokenizer(TorchScriptTokenizerSpec(**fields | {"encoder": str(tmp_path / "none.jit")}))
