"""Going on from a saved model, and folders that hold adapters only."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers import encoder_factory as factory
from vlkit.adapt.inject import add_lora, merge
from vlkit.errors import SpecError, UnknownName, VlkitError
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.folder import load, load_meta, read_spec, save
from vlkit.models.registry import build, build_meta
from vlkit.models.trainable import (
    check_moved,
    freeze,
    part_names,
    part_of,
    part_parameters,
    set_trainable,
    snapshot,
    trainable_report,
    unfreeze,
)
from vlkit.models.weights import read_weights
from vlkit.spec.adapt import Bottleneck, LoRA
from vlkit.spec.describe import explain
from vlkit.spec.load import load_recipe
from vlkit.spec.model import DualEncoderSpec, SavedSpec
from vlkit.spec.parts import LinearHeadSpec

TEXTS = ["a", "zwei Worte", "三"]


def embedded(model: DualEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.stack([model.transform(factory.random_image(seed)) for seed in range(2)])
    with torch.no_grad():
        return model.encode_image(pixels), model.encode_text(model.tokenize(TEXTS))


def same(one: DualEncoder, other: DualEncoder) -> bool:
    pairs = zip((*embedded(one), one.scale), (*embedded(other), other.scale), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


def jolt(model: DualEncoder, *parts: str) -> None:
    with torch.no_grad():
        for part in parts:
            for parameter in part_parameters(model, part):
                parameter.add_(0.1 * torch.randn_like(parameter))


def adapted(base: Path) -> DualEncoder:
    model = build(SavedSpec(path=str(base), adapters={"text": LoRA(rank=2), "image": Bottleneck(width=3)}))
    jolt(model, "text_adapter", "image_adapter")
    return model


@pytest.mark.parametrize("kind", ["vlkit", "open_clip", "open_clip_siglip", "clip", "siglip", "vision_text", "tiny"])
def test_any_model_goes_on_as_a_model_folder(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    if kind == "vlkit":
        save(load("tiny"), source)
    elif kind.startswith("open_clip"):
        factory.open_clip_folder(source, siglip_like=kind == "open_clip_siglip")
    elif kind != "tiny":
        getattr(factory, kind)(source)
    path = "tiny" if kind == "tiny" else str(source)
    plain = build(SavedSpec(path=path))
    assert same(plain, load(path)) and plain.spec == load(path).spec
    model = build(SavedSpec(path=path, adapters={"text": LoRA(rank=2), "image": LoRA(rank=2)}))
    for mine, theirs in zip(embedded(model), embedded(plain), strict=True):
        # torch's own attention adds a zero to its weights: equal values at another place in memory
        torch.testing.assert_close(mine, theirs, atol=0 if kind in ("vlkit", "tiny", "clip") else 1e-6, rtol=0)
    jolt(model, "text_adapter", "image_adapter", "scale")
    assert not same(model, plain)
    whole, alone = save(model, tmp_path / "whole"), save(model, tmp_path / "alone", adapters_only=True)
    assert same(load(whole), model) and load(whole).spec == model.spec
    assert same(load(alone), model) and load(alone).spec == model.spec
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for spec in (model.spec, SavedSpec(path=path, adapters={"text": LoRA(rank=2), "image": LoRA(rank=2)})):
        if kind != "siglip" and not isinstance(spec, DualEncoderSpec):
            empty = build_meta(spec).state_dict()
            assert {name: tensor.shape for name, tensor in empty.items()} == shapes
            assert all(tensor.is_meta for tensor in empty.values())
    shutil.rmtree(source, ignore_errors=True)
    assert same(load(whole), model)  # needs nothing else


def test_adapters_alone_hold_what_differs_and_know_their_base(base: Path, tmp_path: Path) -> None:
    model = adapted(base)
    jolt(model, "text_head")
    alone = save(model, tmp_path / "alone", adapters_only=True)
    assert (alone / "model.safetensors").stat().st_size < (base / "model.safetensors").stat().st_size / 4
    assert read_spec(alone) == SavedSpec(path=str(base), adapters={"text": LoRA(rank=2), "image": Bottleneck(width=3)})
    assert same(load(alone), model)
    again = save(load(alone), tmp_path / "again", adapters_only=True)  # of the same base, not of the folder in between
    assert read_spec(again) == read_spec(alone) and same(load(again), model)
    moved = base.rename(tmp_path / "elsewhere")
    with pytest.raises(VlkitError, match=r"holds adapters only, for the model .*load\(\.\.\., base=\.\.\.\)"):
        load(alone)
    assert same(load(alone, base=moved), model)
    other = load(moved)
    jolt(other, "image_head")
    save(other, moved)
    with pytest.raises(VlkitError, match="no longer is the model"):
        load(alone, base=moved)


@pytest.mark.parametrize("held", ["as it was loaded", "as it is stored", "all of it", "one part"])
def test_adapters_of_a_short_base_are_all_that_is_written(held: str, base: Path, tmp_path: Path) -> None:
    if held == "as it is stored":
        base = save(load(base), tmp_path / "short", dtype=torch.bfloat16)
    model: DualEncoder = load(base, dtype=torch.bfloat16 if held == "as it was loaded" else None)
    if held in ("all of it", "one part"):
        (model if held == "all of it" else model.image).to(torch.bfloat16)
    add_lora(model.text, LoRA(rank=2))
    jolt(model, "text_adapter")
    alone = save(model, tmp_path / "alone", adapters_only=True)
    written = read_weights(alone)
    rounded = {"log_scale"} if held == "all of it" else set()
    assert {name for name in written if "lora" not in name} == rounded and len(written) == 8 + len(rounded)
    back = load(alone).state_dict()
    for name, tensor in model.state_dict().items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name


def test_adapters_never_take_the_place_of_their_base(base: Path, tmp_path: Path) -> None:
    model = adapted(base)
    (tmp_path / "link").symlink_to(base)
    for place in (base, tmp_path / "link", base / ".." / base.name):
        with pytest.raises(VlkitError, match=r"holds the model that the adapters were added to, .*another folder"):
            save(model, place, adapters_only=True)
    assert same(build(SavedSpec(path=str(base))), load("tiny"))


def test_adapters_on_themselves_are_refused(base: Path, tmp_path: Path) -> None:
    model = adapted(base)
    one, two = (save(model, tmp_path / name, adapters_only=True) for name in ("one", "two"))
    text = (one / "spec.yaml").read_text()
    for below in (one, two):
        (two / "spec.yaml").write_text(text.replace(str(base), str(one)))
        (one / "spec.yaml").write_text(text.replace(str(base), str(below)))
        for action in (load, load_meta, lambda where: build(SavedSpec(path=str(where)))):
            with pytest.raises(VlkitError, match=f"model below them is never reached: adapters .* of {below}"):
                action(one)
    assert same(load(one, base=base), model)


def test_adapters_whose_weights_are_gone_are_not_made_up(base: Path, tmp_path: Path) -> None:
    alone = save(adapted(base), tmp_path / "alone", adapters_only=True)
    kept = {name: tensor.clone() for name, tensor in read_weights(alone).items() if ".1." not in name}
    save_file(kept, alone / "model.safetensors")
    with pytest.raises(VlkitError, match=r"alone lacks \d+ tensors of its adapters \(.*\.1\..* and \d+ more\); copy"):
        load(alone)


def test_a_whole_model_takes_no_base(base: Path) -> None:
    with pytest.raises(VlkitError, match="whole model"):
        load(base, base=base)
    with pytest.raises(VlkitError, match="whole model"):
        load("tiny", base=base)


def test_adapters_alone_need_a_base_that_they_fit(base: Path, tmp_path: Path) -> None:
    fresh = build(load("tiny").spec)
    with pytest.raises(VlkitError, match="was not loaded"):
        save(fresh, tmp_path / "m", adapters_only=True)
    model = load(base)
    model.text_head = torch.nn.Sequential()
    model.text_head.spec, model.text_head.in_width = LinearHeadSpec(), 32
    with pytest.raises(VlkitError, match="in more than adapters and weights"):
        save(model, tmp_path / "m", adapters_only=True)
    hidden = load(base)
    add_lora(hidden.text.blocks[0], LoRA(rank=2))
    with pytest.raises(VlkitError, match=r"inside of model\.text"):
        save(hidden, tmp_path / "m")


def test_the_card_names_adapters(base: Path, tmp_path: Path) -> None:
    card = (save(adapted(base), tmp_path / "m") / "README.md").read_text()
    assert "| text_adapter | lora | 768 |" in card and "| image_adapter | bottleneck |" in card


def test_a_merged_model_is_a_plain_one(base: Path, tmp_path: Path) -> None:
    model = build(SavedSpec(path=str(base), adapters={"text": LoRA(rank=2), "image": LoRA(rank=2, targets="all")}))
    jolt(model, "text_adapter", "image_adapter")
    before = embedded(model)
    merge(model)
    assert model.spec == load(base).spec and part_names(model) == part_names(load(base))
    again = load(save(model, tmp_path / "merged"))
    for mine, theirs in zip(embedded(again), before, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert same(again, model)


def test_half_precision_and_a_second_adapter(base: Path, tmp_path: Path) -> None:
    model = adapted(base)
    half = load(save(model, tmp_path / "m"), dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters() if p.ndim} == {torch.bfloat16}
    torch.testing.assert_close(embedded(half)[1], embedded(model)[1], atol=0.1, rtol=0)
    with pytest.raises(VlkitError, match="has an adapter already"):
        build(SavedSpec(path=str(tmp_path / "m"), adapters={"text": LoRA()}))


def test_an_adapter_is_a_part_of_its_own(base: Path) -> None:
    model = adapted(base)
    names = ("image", "image_adapter", "text", "text_adapter", "image_head", "text_head", "scale")
    assert part_names(model) == names
    rows = {row.part: row for row in trainable_report(model).rows}
    plain = {row.part: row for row in trainable_report(load(base)).rows}
    assert all(rows[name].parameters == plain[name].parameters for name in plain)
    assert rows["text_adapter"].parameters == 2 * 2 * (32 + 96 + 32 + 32)  # two blocks; qkv and out; A and B
    assert sum(row.parameters for row in rows.values()) == trainable_report(model).parameters
    assert {part_of(name) for name, _ in model.named_parameters()} == set(names)

    def trains() -> set[str]:
        return {row.part for row in trainable_report(model).rows if row.trainable}

    set_trainable(model, ["text_adapter", "text_head"])
    assert trains() == {"text_adapter", "text_head"}
    unfreeze(model, "text")
    freeze(model, "text_adapter")
    assert trains() == {"text", "text_head"}
    set_trainable(model, ["image.blocks"])
    assert all(not part_of(name).endswith("_adapter") for name, p in model.named_parameters() if p.requires_grad)
    with pytest.raises(UnknownName, match="text_adapter"):
        set_trainable(model, ["text_adaptor"])
    with pytest.raises(UnknownName, match="no part 'text_adapter'"):
        set_trainable(load(base), ["text_adapter"])


@pytest.mark.parametrize("part", ["text", "text_adapter", "image_adapter"])
def test_what_moved_is_told_apart(part: str, base: Path) -> None:
    model = adapted(base)
    before = snapshot(model)
    jolt(model, part)
    check_moved(before, snapshot(model), [part])
    for other in {"text", "text_adapter", "image_adapter"} - {part}:
        with pytest.raises(VlkitError, match="should have trained and did not move"):
            check_moved(before, snapshot(model), [other])


RECIPE = """
model:
  kind: saved
  path: somewhere
  adapters: {text: {kind: lora}}
data: {sources: [{kind: built, name: flags}]}
stages: [{name: adapt, trainable: [text_adapter], steps: 1}]
"""


def test_a_recipe_says_where_it_goes_on_from(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    model = load_recipe(path, ["model.adapters.text.rank=4", "model.adapters.text.targets=[query, value]"]).model
    assert model == SavedSpec(path="somewhere", adapters={"text": LoRA(rank=4, targets=("query", "value"))})
    child = tmp_path / "child.yaml"
    child.write_text("extends: r.yaml\nmodel: {kind: dual_encoder, image: {kind: tiny}, text: {kind: tiny}}\n")
    assert load_recipe(child).model == DualEncoderSpec(image={"kind": "tiny"}, text={"kind": "tiny"})
    assert load_recipe("contrastive/tiny").model.kind == "dual_encoder"  # which it does not say
    overridden = load_recipe("contrastive/tiny", ["model.path=x", "model.kind=saved"]).model
    assert overridden == SavedSpec(path="x")
    with pytest.raises(SpecError, match=r"model\.image = .*\n  no such key;.* saved takes: adapters, path"):
        load_recipe(path, ["model.image={kind: tiny}"])
    with pytest.raises(SpecError, match=r"model\.kind = save\n  no such kind; did you mean 'saved'"):
        load_recipe(path, ["model.kind=save"])
    path.write_text(RECIPE.replace("{kind: lora}", "{kind: lora, targets: atention}"))
    with pytest.raises(SpecError, match=r"targets = atention\n  should be one of attention, mlp, all or list of texts"):
        load_recipe(path)


def test_explain_knows_all_kinds() -> None:
    kinds = (
        "dual_encoder",
        "vision_language",
        "query_former",
        "image_tokenizer",
        "text_to_image",
        "diffusion_bridge",
        "image_text_to_text",
        "saved",
    )
    assert [row.key for row in explain("model")] == [f"model.{kind}" for kind in kinds]
    assert [row.key for row in explain("model.adapters.text")] == [
        "model.adapters.text.lora",
        "model.adapters.text.bottleneck",
    ]
    assert {row.key for row in explain("model.saved.adapters.text.lora")} >= {"model.saved.adapters.text.lora.rank"}
