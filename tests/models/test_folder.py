"""Model folders: what is saved is loaded, killed saves do no harm, and every damage has its message."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

from vlkit.errors import AssetError, UnknownName, VlkitError
from vlkit.models import locate as locating
from vlkit.models.digest import weights_digest
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.folder import load, load_meta, read_spec, save
from vlkit.models.locate import Located, locate
from vlkit.models.registry import build
from vlkit.models.weights import assign_weights, read_weights
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.parts import HeadSpec, HfText, LinearHeadSpec, MlpHeadSpec, PrototypeHeadSpec, TinyImage, TinyText
from vlkit.version import __version__

TEXTS = ["a cat", "Hund", "x", "een heel lange zin over een fiets"]


def features(model: DualEncoder, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return model.encode_image(pixels), model.encode_text(model.tokenize(TEXTS))


def equal(one: DualEncoder, other: DualEncoder, pixels: torch.Tensor) -> bool:
    return all(map(torch.equal, features(one, pixels), features(other, pixels)))


def write_text_model(folder: Path, kind: str) -> Path:
    """A random transformers text model with a tokenizer of its own, in hub layout."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    vocabulary = {
        word: index for index, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, cls_token="<s>", sep_token="</s>")
    size = {"vocab_size": len(vocabulary), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(3)
    if kind == "bert":
        config = BertConfig(**size, **ids, intermediate_size=48, max_position_embeddings=80)
        model: nn.Module = BertModel(config, add_pooling_layer=False)
    else:
        config = LlamaConfig(**size, **ids, intermediate_size=48, num_key_value_heads=2, rope_theta=500.0)
        model = LlamaModel(config)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_saved_is_loaded_to_the_bit(model, pixels, tmp_path, dtype) -> None:
    folder = save(model, tmp_path / "model", dtype=dtype)
    again = load(folder)
    assert not again.training
    assert repr(again.transform) == repr(model.transform)
    assert again.spec == model.spec
    if dtype is None:
        assert equal(again, model, pixels)
        assert again.scale.item() == model.scale.item() and torch.equal(again.bias, model.bias)
    else:
        assert equal(again, load(save(again, tmp_path / "twice")), pixels)
        assert {parameter.dtype for parameter in again.parameters() if parameter.ndim} == {dtype}


def test_a_type_at_loading_is_the_same_as_at_saving(model, pixels, tmp_path) -> None:
    save(model, tmp_path / "small", dtype=torch.bfloat16)
    save(model, tmp_path / "full")
    assert equal(load(tmp_path / "small"), load(tmp_path / "full", dtype=torch.bfloat16), pixels)


@pytest.mark.parametrize("place", ["", "image", "text.blocks.0", "image_head"])
def test_what_torch_compiles_is_saved_as_it_is_without(model, pixels, tmp_path, place) -> None:
    plain = save(model, tmp_path / "plain")
    owner, _, name = place.rpartition(".")
    if place:
        setattr(model.get_submodule(owner), name, torch.compile(model.get_submodule(place)))
    compiled = model if place else torch.compile(model)
    folder = save(compiled, tmp_path / "compiled")
    assert equal(load(folder), load(plain), pixels)
    assert weights_digest(compiled) == weights_digest(load(plain))
    for file in plain.rglob("*"):
        assert file.read_bytes() == (folder / file.relative_to(plain)).read_bytes(), file.name


def test_the_folder_holds_what_it_should(model, tmp_path) -> None:
    folder = save(model, tmp_path / "a" / "b")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.safetensors", "spec.yaml"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b"], "no scratch folder stays"
    written = YAML(typ="safe").load((folder / "spec.yaml").read_text())
    assert written["vlkit"] == __version__
    assert DualEncoderSpec(**written["model"]) == model.spec == read_spec(folder)


def test_loading_leaves_random_state_alone(model, tmp_path) -> None:
    save(model, tmp_path / "m")
    torch.manual_seed(5)
    expected = torch.rand(3)
    for name in (tmp_path / "m", "tiny"):
        torch.manual_seed(5)
        load(name)
        assert torch.equal(torch.rand(3), expected)


def test_tiny_is_always_the_same(pixels) -> None:
    one, other = load("tiny"), load("tiny")
    big = torch.nn.functional.interpolate(pixels, size=32)
    assert equal(one, other, big)


def test_a_trained_state_is_what_is_saved(model, pixels, tmp_path) -> None:
    model.train()
    before = features(model.eval(), pixels)[1]
    with torch.no_grad():
        for parameter in model.text_head.parameters():
            parameter.mul_(-0.3).add_(0.01)
    save(model.train(), tmp_path / "m")
    assert model.training, "saving leaves the mode"
    again = load(tmp_path / "m")
    assert equal(again, model.eval(), pixels) and not torch.equal(features(again, pixels)[1], before)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_transformers_encoders_load_without_their_source(tmp_path, pixels, kind, monkeypatch) -> None:
    source = write_text_model(tmp_path / kind, kind)
    spec = DualEncoderSpec(
        image=TinyImage(image_size=16),
        text=HfText(name=str(source)),
        embed_dim=8,
        image_head=LinearHeadSpec(),
        text_head=LinearHeadSpec(),
    )
    model = build(spec).eval()
    folder = save(model, tmp_path / "model")
    expected = features(model, pixels)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    shutil.rmtree(source)
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = load(folder)
    assert all(map(torch.equal, features(again, pixels), expected))
    assert buffers.keys() == dict(again.named_buffers()).keys()
    for name, buffer in again.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    half = load(folder, dtype=torch.bfloat16)
    for name, buffer in half.named_buffers():
        assert torch.equal(buffer, buffers[name]), f"{name} lost bits"
    torch.testing.assert_close(features(half, pixels)[1], expected[1], atol=0.1, rtol=0)
    shutil.rmtree(folder / "text")
    with pytest.raises(VlkitError):
        load(folder)


@pytest.mark.parametrize("moment", ["before weights", "after weights", "before rename"])
def test_a_killed_save_leaves_the_old_folder_whole(model, pixels, tmp_path, moment) -> None:
    folder = save(model, tmp_path / "model")
    other = tmp_path / "other"
    with torch.no_grad():
        model.text_head.map.weight.mul_(2).add_(1)
    save(model, other)
    patch = {
        "before weights": "folder.write_weights = die",
        "after weights": "tiny.TinyTextEncoder.save_config = die",
        "before rename": "files._replace_folder = die",
    }[moment]
    code = (
        "import os, sys\nfrom vlkit import files\nfrom vlkit.models import folder\nfrom vlkit.parts import tiny\n"
        f"def die(*a, **k):\n    os._exit(9)\nmodel = folder.load(sys.argv[1])\n"
        f"{patch}\nfolder.save(model, sys.argv[2])\n"
    )
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = subprocess.run([sys.executable, "-c", code, str(other), str(folder)], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not equal(load(folder), load(other), pixels)
    assert equal(load(save(load(other), folder)), load(other), pixels)


def test_an_error_inside_a_save_leaves_no_traces(model, tmp_path, monkeypatch) -> None:
    folder = save(model, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model.text, "save_config", full)
    with pytest.raises(VlkitError, match=r"cannot write .*model: No space left on device; free some space"):
        save(model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_saving_never_replaces_anything_else(model, tmp_path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    with pytest.raises(VlkitError, match=r"photos holds something else than a model \(one.jpg\)"):
        save(model, tmp_path / "photos")
    with pytest.raises(VlkitError, match=r"one.jpg is a file; choose a folder"):
        save(model, tmp_path / "photos" / "one.jpg")
    assert (tmp_path / "photos" / "one.jpg").read_bytes() == b"x"
    (tmp_path / "new").mkdir()
    save(model, tmp_path / "new")


def test_a_model_that_could_not_be_built_again_is_not_saved(model, tmp_path) -> None:
    bare = DualEncoder(model.image, model.text, embed_dim=8, text_head=nn.Linear(24, 8))
    with pytest.raises(VlkitError, match=r"part 'text_head' \(Linear\) has no .spec"):
        save(bare, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_place_that_cannot_be_written_to(model, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(VlkitError, match=r"file is a file; choose a folder$"):
        save(model, tmp_path / "file" / "m")


def damage(folder: Path, text: str, replacement: str) -> None:
    path = folder / "spec.yaml"
    old = path.read_text()
    assert text in old
    path.write_text(old.replace(text, replacement, 1))


def test_a_folder_of_an_older_version_is_refused_with_what_to_do(model, tmp_path) -> None:
    folder = save(model, tmp_path / "m")
    assert YAML(typ="safe").load((folder / "spec.yaml").read_text())["format"] == 2
    damage(folder, "format: 2\n", "")
    damage(folder, f"vlkit: {__version__}", "vlkit: 0.3.0")
    with pytest.raises(VlkitError) as error:
        load(folder)
    assert str(error.value) == (
        f"{folder} is a model folder of vlkit 0.3.0, which this version cannot read: train or save the model again, or "
        f"use it with: pip install 'vlkit<0.4'"
    )


@pytest.mark.parametrize(("number", "what"), [(1, "train or save the model again"), (3, "run: pip install -U vlkit")])
def test_a_folder_of_another_format_is_refused_with_what_to_do(model, tmp_path, number, what) -> None:
    folder = save(model, tmp_path / "m")
    damage(folder, "format: 2\n", f"format: {number}\n")
    for read in (load, load_meta):
        with pytest.raises(VlkitError) as error:
            read(folder)
        assert (
            str(error.value)
            == f"{folder} is a model folder of format {number}, and this version reads format 2: {what}"
        )


def test_a_newer_version_is_named_with_the_fix(model, tmp_path) -> None:
    folder = save(model, tmp_path / "m")
    damage(folder, f"vlkit: {__version__}", "vlkit: 99.1.0")
    load(folder)  # newer, but nothing in it is unknown
    damage(folder, "  embed_dim: 12", "  embed_dim: 12\n  gate: 3")
    with pytest.raises(VlkitError) as error:
        load(folder)
    message = str(error.value)
    assert "spec.yaml:" in message and "model.gate = 3" in message and "no such key" in message
    assert message.endswith(f"It was saved by vlkit 99.1.0, this is vlkit {__version__}; run: pip install -U vlkit")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  embed_dim: 12", "  embed_dmi: 12", "no such key; did you mean 'embed_dim'?"),
        ("    kind: linear", "    kind: lienar", "no such kind; did you mean 'linear'?"),
        ("  embed_dim: 12", "  embed_dim: 13", "does not fit the model its spec describes: "),
        ("model:", "modle:", "no such key; did you mean 'model'?"),
        ("model:", "extends: x.yaml\nmodel:", "no such key"),
        ("model:", "model: [", "this is no YAML"),
    ],
)
def test_a_damaged_spec_says_where(model, tmp_path, old, new, expected) -> None:
    folder = save(model, tmp_path / "m")
    damage(folder, old, new)
    with pytest.raises(VlkitError) as error:
        load(folder)
    assert expected in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"[1, 2]\n", b"\xff\xfe\x00", b"vlkit: 0.1.0\n"])
def test_a_spec_that_is_none(model, tmp_path, content) -> None:
    folder = save(model, tmp_path / "m")
    (folder / "spec.yaml").write_bytes(content)
    with pytest.raises(VlkitError, match=r"spec\.yaml:\d"):
        load(folder)


def test_missing_and_damaged_weights_name_the_file(model, tmp_path) -> None:
    folder = save(model, tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(VlkitError, match=r"cannot read .*model.safetensors: .*; the file is damaged"):
        load(folder)
    weights.unlink()
    with pytest.raises(VlkitError, match=r"no weights in .*m: neither"):
        load(folder)


def test_names_are_told_apart_by_their_form_and_files(model, tmp_path) -> None:
    folder = save(model, tmp_path / "m")
    assert locate("tiny") == Located("tiny", "")
    assert locate(str(folder)) == locate(f"hf:{folder}") == Located("vlkit", str(folder))
    assert locate("open_clip:ViT-B-32/laion2b_s34b_b79k") == Located("open_clip", "ViT-B-32/laion2b_s34b_b79k")
    for mark, kind in (("config.json", "hf"), ("open_clip_config.json", "open_clip")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / mark).write_text("{}")
        assert locate(str(tmp_path / kind)) == Located(kind, str(tmp_path / kind))


def test_names_of_nothing_are_answered_with_what_there_is(model, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(model, tmp_path / "runs" / "quickstart" / "model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").touch()
    forms = "Give a model folder, 'open_clip:MODEL/TAG', 'open_clip:MODEL/FILE', 'hf:ID', 'hf-hub:ORG/NAME' or 'tiny'."
    for name, error, message in [
        (
            "runs/quickstart/modle",
            UnknownName,
            f"no model 'runs/quickstart/modle'; did you mean 'runs/quickstart/model'? {forms}",
        ),
        ("runs/quickstart", VlkitError, "runs/quickstart is not a model folder; did you mean 'runs/quickstart/model'?"),
        ("openclip:ViT-B-32", UnknownName, f"no kind of model 'openclip'; did you mean 'open_clip'? {forms}"),
        ("hf:", VlkitError, f"model 'hf:' lacks a name after the colon. {forms}"),
        ("nowhere", UnknownName, f"no model 'nowhere'. {forms}"),
        (
            "full",
            VlkitError,
            "full is not a model folder: it has no spec.yaml (vlkit), open_clip_config.json (open_clip) or config.json "
            "(transformers); it holds photo.jpg",
        ),
        (
            "full/photo.jpg",
            VlkitError,
            "full/photo.jpg is a file; give the model folder that holds it, or 'open_clip:MODEL/full/photo.jpg' "
            "for open_clip's",
        ),
        ("x" * 300, VlkitError, f"no model '{'x' * 80}'…: file name too long. {forms}"),
        ("hf:./missing/model", VlkitError, "no folder ./missing/model; a hub name reads 'hf:ORG/NAME'"),
    ]:
        with pytest.raises(error) as raised:
            load(name)
        assert str(raised.value) == message


def test_a_hub_name_without_a_hub(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(
        AssetError, match=r"no model 'org/name': it is not in the hub's cache, .* \(HF_HUB_OFFLINE=1 is set\); give"
    ):
        load("hf-hub:org/name")


@pytest.mark.parametrize(
    ("mark", "kind"), [("spec.yaml", "vlkit"), ("open_clip_config.json", "open_clip"), ("config.json", "hf")]
)
def test_a_hub_model_is_told_apart_before_its_weights_are_fetched(tmp_path, monkeypatch, mark, kind) -> None:
    asked = []

    def snapshot(repo, patterns):
        asked.append(tuple(patterns))
        (tmp_path / mark).touch()
        return tmp_path

    monkeypatch.setattr(locating, "_snapshot", snapshot)
    where = {"vlkit": str(tmp_path), "open_clip": "hf-hub:org/name", "hf": "org/name"}[kind]
    assert locate("hf-hub:org/name") == locate("hf:org/name") == Located(kind, where)
    assert not any("safetensors" in pattern for pattern in asked[0])
    assert any("model*.safetensors" in patterns for patterns in asked) == (kind == "vlkit")


@pytest.mark.parametrize(
    "head", [LinearHeadSpec(), MlpHeadSpec(hidden=8), PrototypeHeadSpec(known_dim=4, num_classes=5)]
)
def test_heads_that_are_loaded_next_draw_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: HeadSpec
) -> None:
    spec = DualEncoderSpec(image=TinyImage(), text=TinyText(), embed_dim=16, image_head=head, text_head=head)
    model = build(spec)
    folder = save(model, tmp_path / "model")
    real = nn.init.orthogonal_

    def only_without_memory(tensor: torch.Tensor) -> torch.Tensor:
        assert tensor.is_meta
        return real(tensor)

    monkeypatch.setattr(nn.init, "orthogonal_", only_without_memory)
    loaded = build(spec, saved=folder)
    assign_weights(loaded, read_weights(folder))
    assert equal(loaded.eval(), model.eval(), torch.rand(2, 3, 32, 32))
