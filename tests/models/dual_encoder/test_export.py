"""Exports: what the other library gives after loading them is what the model gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import encoder_factory as factory
from tests.helpers.train_factory import drawings
from vlkit.adapt.inject import adapter_of, add_adapter
from vlkit.errors import VlkitError
from vlkit.models import export_folder
from vlkit.models.dual_encoder.export import check
from vlkit.models.dual_encoder.export.formats import TOLERANCE, export
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.folder import load, save
from vlkit.models.registry import build
from vlkit.parts.bridges import build_head
from vlkit.spec.adapt import Bottleneck, LoRA
from vlkit.spec.load import load_recipe
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.parts import HfText, IdentityHeadSpec, LinearHeadSpec, MlpHeadSpec, PrototypeHeadSpec, TimmImage
from vlkit.spec.recipe import Recipe
from vlkit.training.loop import train

TEXTS = [*factory.TEXTS, "x" * 300]


def images() -> list[Any]:
    return [factory.random_image(seed, size=(50 + 20 * seed, 40)) for seed in range(3)]


def moved(model: DualEncoder) -> DualEncoder:
    """As after some training: no parameter is where it was."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:
                parameter += 0.02 * torch.randn(parameter.shape, generator=draw)
        model.log_scale += 0.1
        if model.bias is not None:
            model.bias += 0.5
    return model.eval()


def embeddings(model: DualEncoder, *, language: str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        pixels_BCHW = torch.stack([model.transform(image) for image in images()])
        return model.encode_image(pixels_BCHW), model.encode_text(model.tokenize(TEXTS, language=language))


def open_clip_embeddings(folder: Path, *, src_lang: str | None = None) -> tuple[Any, torch.Tensor, torch.Tensor]:
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    if src_lang:
        tokenizer.tokenizer.src_lang = src_lang
    model.eval()
    with torch.no_grad():
        pixels_BCHW = torch.stack([preprocess(image) for image in images()])
        return (
            model,
            model.encode_image(pixels_BCHW, normalize=True),
            model.encode_text(tokenizer(TEXTS), normalize=True),
        )


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    assert one.shape == other.shape
    assert float((one[0] - one[1]).abs().max()) > 1e-3  # the rows differ at all
    torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=0)


_OPEN_CLIP: dict[str, Callable[[Path], Path]] = {
    "native": lambda path: factory.open_clip_folder(path / "oc"),
    "quickgelu": lambda path: factory.open_clip_folder(path / "oc", more={"quick_gelu": True}),
    "siglip": lambda path: factory.open_clip_folder(path / "oc", siglip_like=True),
    "hf_text": lambda path: factory.open_clip_folder(path / "oc", hf_text=factory.xlm_roberta(path / "xlmr")),
    "timm": lambda path: factory.open_clip_folder(path / "oc", timm="test_vit"),
    "resnet": lambda path: factory.open_clip_folder(
        path / "oc", vision={"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
    ),
    "coca": lambda path: factory.coca_folder(path / "oc"),
}


@pytest.mark.parametrize("flavour", _OPEN_CLIP)
def test_open_clip_models_go_back_to_open_clip(flavour: str, tmp_path: Path) -> None:
    folder = _OPEN_CLIP[flavour](tmp_path)
    model = moved(load(folder))
    before = embeddings(model)
    exported = export(model, tmp_path / "out", format="open_clip")
    theirs, image_BE, text_BE = open_clip_embeddings(tmp_path / "out")
    same(image_BE, before[0])
    same(text_BE, before[1])
    assert float(theirs.logit_scale.detach().exp()) == pytest.approx(float(model.scale.detach()), rel=1e-6)
    assert (theirs.logit_bias is None) == (model.bias is None)
    if model.bias is not None:
        assert float(theirs.logit_bias.detach()) == pytest.approx(-9.5)
    assert max(exported.differences) <= TOLERANCE
    assert bool(exported.notes) == (flavour == "coca")
    # so that it can be replaced
    assert {path.name for path in (tmp_path / "out").iterdir()} <= set(export_folder._FILES)
    # and what it was is still what it was, and comes back
    for one, two in zip(before, embeddings(model), strict=True):
        assert torch.equal(one, two)
    for one, two in zip(before, embeddings(load(tmp_path / "out")), strict=True):
        same(one, two)


def test_an_export_of_an_untouched_model_has_the_same_tensors(tmp_path: Path) -> None:
    folder = factory.open_clip_folder(tmp_path / "oc")
    export(load(folder), tmp_path / "out", format="open_clip")
    one, two = (load_file(place / "open_clip_model.safetensors") for place in (folder, tmp_path / "out"))
    assert one.keys() == two.keys()  # the model class is the same, so weights files can take each other's place
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], atol=1e-6, rtol=1e-6)
    config, again = (json.loads((place / "open_clip_config.json").read_text()) for place in (folder, tmp_path / "out"))
    assert config["model_cfg"] == again["model_cfg"]


_HF: dict[str, Callable[[Path], Path]] = {
    "clip": factory.clip, "siglip": factory.siglip, "vision_text": factory.vision_text, "chinese": factory.chinese_clip,
    "alt": factory.alt_clip, "metaclip_2": factory.metaclip_2,
}  # fmt: skip


@pytest.mark.parametrize("kind", _HF)
def test_transformers_models_go_back_to_transformers(kind: str, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model = moved(load(_HF[kind](tmp_path / "hf")))
    before = embeddings(model)
    exported = export(model, tmp_path / "out", format="transformers")
    assert max(exported.differences) <= TOLERANCE and not exported.notes
    assert {path.name for path in (tmp_path / "out").iterdir()} <= set(export_folder._FILES)
    theirs = AutoModel.from_pretrained(tmp_path / "out").eval()
    processor, tokenizer = (
        AutoImageProcessor.from_pretrained(tmp_path / "out"),
        AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    padding = "max_length" if kind == "siglip" else True
    cut = model.text.tokenizer.max_length
    tokens = tokenizer(TEXTS, return_tensors="pt", truncation=True, max_length=cut, padding=padding)
    tokens.pop("token_type_ids", None)
    if kind == "siglip":
        tokens.pop("attention_mask")
    with torch.no_grad():
        got = theirs(pixel_values=processor(images(), return_tensors="pt")["pixel_values"], **tokens)
    same(got.image_embeds, before[0])
    same(got.text_embeds, before[1])
    bias = 0 if model.bias is None else model.bias
    torch.testing.assert_close(got.logits_per_image, model.scale * before[0] @ before[1].T + bias, atol=1e-3, rtol=1e-4)


def built(text: Path, *, image_head: Any, text_head: Any, embed_dim: int = 12, **more: Any) -> DualEncoder:
    spec = DualEncoderSpec(
        image=TimmImage(name="test_vit", pretrained=False),
        text=HfText(name=str(text), **more),
        embed_dim=64 if isinstance(image_head, IdentityHeadSpec) else embed_dim,
        image_head=image_head,
        text_head=text_head,
        init_bias=-10.0,
    )
    torch.manual_seed(5)
    model = moved(build(spec))
    for head in (model.image_head, model.text_head):
        if head.needs_mean:
            head.fit_mean(torch.randn(50, head.in_width) + 0.5)
    return model


_HEADS = {
    "linear": (LinearHeadSpec(), LinearHeadSpec()),
    "identity": (IdentityHeadSpec(), LinearHeadSpec()),
    "bias": (LinearHeadSpec(bias=True), LinearHeadSpec(bias=True)),
    "center": (LinearHeadSpec(center=True), LinearHeadSpec(center=True)),
}


@pytest.mark.parametrize("heads", _HEADS)
@pytest.mark.parametrize("text", ["xlm_roberta", "bert", "nllb"])
def test_parts_joined_here_become_an_open_clip_model(text: str, heads: str, tmp_path: Path) -> None:
    image_head, text_head = _HEADS[heads]
    pooling = "cls" if text == "nllb" else "mean"
    model = built(
        getattr(factory, text)(tmp_path / "text"), image_head=image_head, text_head=text_head, pooling=pooling
    )
    language = "de" if text == "nllb" else None
    before = embeddings(model, language=language)
    exported = export(model, tmp_path / "out", format="open_clip")
    theirs, image_BE, text_BE = open_clip_embeddings(tmp_path / "out", src_lang="deu_Latn" if language else None)
    same(text_BE, before[1])
    assert exported.differences.pixels <= TOLERANCE
    assert float(theirs.logit_bias.detach()) == pytest.approx(-9.5)
    # test_vit resizes to 160 / 0.95 and crops, which open_clip cannot: it says so, and equal pixels give equal features
    (note,) = exported.notes
    assert note.startswith("preprocessing differs: here images are resized to 168 (bicubic)")
    assert exported.differences.images > TOLERANCE and image_BE.shape == before[0].shape
    assert note in (tmp_path / "out" / "README.md").read_text()
    again = load(tmp_path / "out")
    same(embeddings(again, language=language)[1], before[1])


def test_a_prefix_becomes_part_of_the_tokenizer(tmp_path: Path) -> None:
    model = built(
        factory.bert(tmp_path / "text"),
        image_head=LinearHeadSpec(),
        text_head=LinearHeadSpec(),
        prefix="query: ",
        max_length=30,
    )
    before = embeddings(model)
    export(model, tmp_path / "out", format="open_clip")
    same(open_clip_embeddings(tmp_path / "out")[2], before[1])


def test_padding_is_what_the_tokenizer_says_and_not_the_config(tmp_path: Path) -> None:
    """As multilingual-e5, whose config says 0 and whose tokenizer pads with 1: open_clip masks by the config's id."""
    folder = factory.bert(tmp_path / "text", tokenizer=factory.fast_tokenizer(pad_id=1))
    assert json.loads((folder / "config.json").read_text())["pad_token_id"] == 0
    model = built(folder, image_head=LinearHeadSpec(), text_head=LinearHeadSpec())
    before = embeddings(model)
    export(model, tmp_path / "out", format="open_clip")
    same(open_clip_embeddings(tmp_path / "out")[2], before[1])


@pytest.mark.parametrize("flavour", ["native", "siglip", "timm", "resnet", "hf_text"])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_heads_fold_into_open_clip_towers(flavour: str, bias: bool, tmp_path: Path) -> None:
    found = load(_OPEN_CLIP[flavour](tmp_path))
    spec = LinearHeadSpec(bias=bias)
    heads = {side: build_head(spec, 12, 9) for side in ("image_head", "text_head")}
    model = moved(DualEncoder(found.image, found.text, embed_dim=9, init_bias=-10.0, **heads))
    before = embeddings(model)
    export(model, tmp_path / "out", format="open_clip")
    _, image_BE, text_BE = open_clip_embeddings(tmp_path / "out")
    same(image_BE, before[0])
    same(text_BE, before[1])


def test_linear_heads_fold_into_transformers_projections(tmp_path: Path) -> None:
    found = load(factory.clip(tmp_path / "hf"))
    heads = {side: build_head(LinearHeadSpec(), 12, 9) for side in ("image_head", "text_head")}
    model = moved(DualEncoder(found.image, found.text, embed_dim=9, init_bias=-10.0, **heads))
    exported = export(model, tmp_path / "out", format="transformers")
    assert max(exported.differences) <= TOLERANCE
    assert exported.notes == (
        "the similarity bias -9.5 is lost, CLIPModel has none; embeddings and rankings do not change",
    )
    for one, two in zip(embeddings(model), embeddings(load(tmp_path / "out")), strict=True):
        same(one, two)


def test_a_saved_model_is_exported_as_well(tmp_path: Path) -> None:
    """open_clip -> vlkit -> trained -> saved -> loaded elsewhere, without the first folder -> open_clip."""
    folder = _OPEN_CLIP["hf_text"](tmp_path)
    model = moved(load(folder))
    before = embeddings(model)
    save(model, tmp_path / "saved")
    folder.rename(tmp_path / "gone")
    (tmp_path / "xlmr").rename(tmp_path / "gone too")
    export(load(tmp_path / "saved"), tmp_path / "out", format="open_clip")
    _, image_BE, text_BE = open_clip_embeddings(tmp_path / "out")
    same(image_BE, before[0])
    same(text_BE, before[1])


@pytest.mark.parametrize(
    ("change", "format", "message"),
    [
        (
            {"image_head": MlpHeadSpec(hidden=8)},
            "open_clip",
            r"^image_head is a mlp head, .*image_head\.kind=linear",
        ),
        (
            {"text_head": LinearHeadSpec(bias=True, center=True)},
            "open_clip",
            r"^text_head is linear with center = true",
        ),
        ({"pooling": "last"}, "open_clip", r"^text: open_clip pools by mean or cls, not by 'last': keep vlkit's own"),
        ({"layers": (0, -1)}, "open_clip", r"^text: open_clip reads the last layer alone, not layers = \[0, -1\]"),
        (
            {},
            "transformers",
            r"^image: transformers takes the two sides of a CLIP-type model .* TimmImageEncoder: use .*\n"
            r"text: .* this is a HfTextEncoder with a pooling of ours: use",
        ),
    ],
)
def test_what_has_no_place_is_named_with_the_alternative(
    change: dict[str, Any], format: Any, message: str, tmp_path: Path
) -> None:
    plain = {"image_head": LinearHeadSpec(), "text_head": LinearHeadSpec()}
    model = built(factory.bert(tmp_path / "text"), **plain | change)
    with pytest.raises(VlkitError, match=message):
        export(model, tmp_path / "out", format=format)
    assert not (tmp_path / "out").exists()


def test_a_bias_that_no_shift_of_the_features_gives_is_refused(tmp_path: Path) -> None:
    heads = {"image_head": LinearHeadSpec(), "text_head": LinearHeadSpec(bias=True)}
    model = built(factory.bert(tmp_path / "text"), embed_dim=24, **heads)  # 24 values of 16
    with pytest.raises(VlkitError, match=r"^text_head has a bias that .*; train with bias = false"):
        export(model, tmp_path / "out", format="open_clip")


def test_tiny_parts_and_foreign_types_are_refused(model: DualEncoder, tmp_path: Path) -> None:
    tiny = DualEncoder(model.image, model.text, embed_dim=12, image_head=build_head(LinearHeadSpec(), 16, 12))
    with pytest.raises(VlkitError, match=r"^image: open_clip has no tower for a TinyImageEncoder; it takes encoders"):
        export(tiny, tmp_path / "out", format="open_clip")
    llama = built(
        factory.llama(tmp_path / "llama"), image_head=LinearHeadSpec(), text_head=LinearHeadSpec(), pooling="mean"
    )
    with pytest.raises(VlkitError, match=r"^text: open_clip takes text encoders of the types .*, not 'llama'"):
        export(llama, tmp_path / "out", format="open_clip")


def test_a_timm_model_with_arguments_of_its_own_is_refused(tmp_path: Path) -> None:
    spec = DualEncoderSpec(
        image=TimmImage(name="test_vit", pretrained=False, image_size=96),
        text=HfText(name=str(factory.bert(tmp_path / "text"))),
        image_head=LinearHeadSpec(),
        text_head=LinearHeadSpec(),
    )
    with pytest.raises(VlkitError, match=r"^image: open_clip builds test_vit as timm's name alone says"):
        export(build(spec), tmp_path / "out", format="open_clip")


def test_an_export_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(factory.open_clip_folder(tmp_path / "oc"))
    export(model, tmp_path / "out", format="open_clip")
    first = (tmp_path / "out" / "open_clip_model.safetensors").read_bytes()
    peer = check._open_clip

    def wrong(*arguments: Any) -> Any:
        theirs = peer(*arguments)
        return theirs._replace(text=lambda texts: theirs.text(texts) + 1e-3)

    monkeypatch.setattr(check, "_open_clip", wrong)
    with pytest.raises(VlkitError, match=r"^open_clip gives other embeddings .* \(largest differences: texts "):
        export(moved(model), tmp_path / "out", format="open_clip", overwrite=True)
    assert (tmp_path / "out" / "open_clip_model.safetensors").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["oc", "out"]


def test_folders_are_not_replaced_unasked(tmp_path: Path) -> None:
    model = load(factory.open_clip_folder(tmp_path / "oc"))
    export(model, tmp_path / "out", format="open_clip")
    with pytest.raises(VlkitError, match=r"out holds a model already; replace it with --overwrite"):
        export(model, tmp_path / "out", format="open_clip")
    export(moved(model), tmp_path / "out", format="open_clip", overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(VlkitError, match="other holds something else than a model"):
        export(model, tmp_path / "other", format="open_clip", overwrite=True)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(
        VlkitError, match=r"out holds a model that vlkit exported and beside it notes\.txt, which vlkit did"
    ):
        export(model, tmp_path / "out", format="open_clip", overwrite=True)


def test_an_export_replaces_no_model_that_it_did_not_write(tmp_path: Path) -> None:
    """Neither the one it is made of nor another, be it vlkit's own or a download."""
    source, ours = factory.open_clip_folder(tmp_path / "oc"), save(load("tiny"), tmp_path / "ours")
    download = factory.open_clip_folder(tmp_path / "download")
    for place in (source, ours, download):
        before = {path.name: path.read_bytes() for path in place.iterdir()}
        said = (
            "oc would be replaced and holds .*oc, which is read"
            if place == source
            else "holds something else than a model"
        )
        with pytest.raises(VlkitError, match=said):
            export(load(source), place, format="open_clip", overwrite=True)
        assert {path.name: path.read_bytes() for path in place.iterdir()} == before


@pytest.mark.parametrize(("kind", "format"), [("hf", "transformers"), ("native", "open_clip")])
def test_lora_is_merged_into_what_is_written(kind: str, format: Any, tmp_path: Path) -> None:
    plain = load(factory.clip(tmp_path / "hf") if kind == "hf" else _OPEN_CLIP[kind](tmp_path))
    without = embeddings(plain)
    add_adapter(plain.text, LoRA(rank=2, targets="all"))
    model = moved(plain)
    before = embeddings(model)
    assert float((before[1] - without[1]).abs().max()) > 1e-2
    exported = export(model, tmp_path / "out", format=format)
    assert max(exported.differences) <= TOLERANCE
    for one, two in zip(before, embeddings(load(tmp_path / "out")), strict=True):
        same(one, two)
    assert adapter_of(model.text) is not None  # the model itself still has it


def test_bottlenecks_cannot_be_exported(tmp_path: Path) -> None:
    model = load(factory.clip(tmp_path / "hf"))
    add_adapter(model.text, Bottleneck(width=4))
    with pytest.raises(VlkitError, match="a bottleneck adapter is not linear and cannot be merged"):
        export(model, tmp_path / "out", format="transformers")


def test_a_folder_for_the_hub_names_the_hub(tmp_path: Path) -> None:
    model = load(_OPEN_CLIP["hf_text"](tmp_path))
    export(model, tmp_path / "out", format="open_clip", repo="me/mine")
    text = json.loads((tmp_path / "out" / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    assert text["hf_model_name"] == text["hf_tokenizer_name"] == "me/mine"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "xlm-roberta"
    assert "hf-hub:me/mine" in (tmp_path / "out" / "README.md").read_text()


def test_training_goes_on_from_an_imported_model_and_back(tmp_path: Path) -> None:
    """open_clip -> recipe with kind saved -> trained -> open_clip: what came out is what was trained."""
    folder = _OPEN_CLIP["siglip"](tmp_path)
    table = drawings(tmp_path / "data")
    made = Recipe.model_validate(
        {
            "run": {"folder": str(tmp_path / "run")},
            "model": {"kind": "saved", "path": str(folder)},
            "data": {"sources": [{"kind": "folder", "path": str(table)}]},
            "objectives": [{"kind": "sigmoid"}],
            "stages": [{"name": "all", "trainable": ["image", "text", "scale"], "steps": 3, "lr": 1e-2}],
            "loop": {"batch_size": 6, "num_workers": 0},
        }
    )
    model = train(made).model()
    before, trained = embeddings(load(folder)), embeddings(model)
    assert float((trained[1] - before[1]).abs().max()) > 1e-3
    export(model, tmp_path / "out", format="open_clip")
    theirs, image_BE, text_BE = open_clip_embeddings(tmp_path / "out")
    same(image_BE, trained[0])
    same(text_BE, trained[1])
    assert float(theirs.logit_bias.detach()) == pytest.approx(float(model.bias.detach())) != -10.0


def test_all_that_has_no_place_is_told_at_once(tmp_path: Path) -> None:
    """A model such as the quickstart's: each of its obstacles alone, and then none."""
    heads = {"image_head": PrototypeHeadSpec(hidden=8, known_dim=4), "text_head": MlpHeadSpec(hidden=8)}
    model = built(factory.bert(tmp_path / "text"), **heads, layers=(0, -1), pooling="last")
    with pytest.raises(VlkitError) as caught:
        export(model, tmp_path / "out", format="open_clip")
    lines = str(caught.value).split("\n")
    assert [line.split(" ", 1)[0] for line in lines] == ["image_head", "text_head", "text:", "text:"]
    assert "image_head.kind=linear" in lines[0] and "text_head.kind=linear" in lines[1]
    assert "pools by mean or cls, not by 'last'" in lines[2] and "reads the last layer alone" in lines[3]
    assert not (tmp_path / "out").exists()


def test_the_recipe_for_export_has_heads_that_open_clip_holds(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart/exportable")
    spec = recipe.model
    assert isinstance(spec, DualEncoderSpec) and isinstance(spec.text, HfText)
    heads = {"image_head": spec.image_head, "text_head": spec.text_head}
    text = {"layers": spec.text.layers, "pooling": spec.text.pooling, "prefix": spec.text.prefix}
    model = moved(built(factory.bert(tmp_path / "text"), **heads, **text))
    exported = export(model, tmp_path / "out", format="open_clip")
    assert max(exported.differences.pixels, exported.differences.texts) < 1e-5
