"""What came with weights never runs, never asks, and takes no more memory than the weights bear out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import encoder_factory as factory
from vlkit.errors import AssetError, VlkitError
from vlkit.models.folder import load, load_meta, save
from vlkit.parts.configs import read_settings
from vlkit.parts.encoders import image_encoder, text_encoder
from vlkit.parts.weight_files import read_header

OPEN_CLIP = "open_clip_config.json"
_CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, ViTImageProcessor
class Config(BertConfig): model_type = "unheard"
class Model(BertModel): pass
class Tokenizer(PreTrainedTokenizerFast): pass
class Processor(ViTImageProcessor): pass
"""
_AUTO = {
    "AutoConfig": "planted.Config", "AutoModel": "planted.Model", "AutoTokenizer": ["planted.Tokenizer", None],
    "AutoImageProcessor": "planted.Processor",
}  # fmt: skip


class Planted:
    """A pickle that leaves a mark when it is read as Python's own reader would."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The place where planted code would leave a mark; nothing did, and nobody was asked."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run code"))
    yield tmp_path / "marker"
    assert not (tmp_path / "marker").exists()


def plant(folder: Path, marker: Path) -> None:
    """Puts code into a folder as models on the hub have it, and names it in each configuration."""
    (folder / "planted.py").write_text(_CODE.format(marker=str(marker)))
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            change(folder / name, "auto_map", _AUTO)


def change(file: Path, dotted: str, value: Any) -> None:
    """Sets one value of a JSON file; ``...`` takes it out."""
    content = json.loads(file.read_text())
    *keys, last = dotted.split(".")
    place = content
    for key in keys:
        place = place.setdefault(key, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    file.write_text(json.dumps(content))


# --- code


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("kind", ["bert", "vit", "clip"])
def test_code_beside_a_model_of_transformers_is_never_run(
    kind: str, native: bool, tmp_path: Path, marker: Path
) -> None:
    folder = getattr(factory, kind)(tmp_path / "m")
    plant(folder, marker)
    take: Callable[[str], Any] = {"bert": text_encoder, "vit": image_encoder, "clip": load}[kind]
    if native:  # transformers has a class of its own for it, which needs none of that code
        assert take(f"hf:{folder}") is not None
        return
    change(folder / "config.json", "model_type", "unheard")
    with pytest.raises(AssetError, match=r"no transformers model that can be read: .*custom code"):
        take(f"hf:{folder}")


@pytest.mark.parametrize("asks", [{"trust_remote_code": True}, {}, {"tokenizer_type": "bert"}])
@pytest.mark.parametrize("saved", [False, True])
def test_code_beside_the_tokenizer_of_an_open_clip_folder_is_never_run(
    asks: dict[str, Any], saved: bool, tmp_path: Path, marker: Path
) -> None:
    folder = factory.open_clip_folder(tmp_path / "oc", siglip_like=True)
    at = save(load(f"open_clip:{folder}"), tmp_path / "saved") if saved else folder
    place = at / "text" if saved else at
    plant(place, marker)
    change(place / "tokenizer_config.json", "tokenizer_class", "Tokenizer")
    if asks:
        change(place / OPEN_CLIP, "model_cfg.text_cfg.tokenizer_kwargs", asks)
        expected = rf"tokenizer_kwargs = .* holds {next(iter(asks))}, .*allowed: additional_special_tokens, clean, "
        with pytest.raises(AssetError, match=expected):
            load(at if saved else f"open_clip:{at}")
        change(place / OPEN_CLIP, "model_cfg.text_cfg.tokenizer_kwargs", {"clean": "canonicalize"})
    try:
        load(at if saved else f"open_clip:{at}")  # by a class of transformers, or not at all
    except AssetError as error:
        assert "custom code" in str(error)


def test_code_beside_the_text_tower_of_an_open_clip_folder_is_never_run(tmp_path: Path, marker: Path) -> None:
    tower = factory.xlm_roberta(tmp_path / "xlmr")
    folder = factory.open_clip_folder(tmp_path / "oc", hf_text=tower)
    plant(tower, marker)
    load(f"open_clip:{folder}")
    change(tower / "config.json", "model_type", "unheard")
    for take in (load, text_encoder, lambda name: text_encoder(name, pretrained=False)):
        with pytest.raises(AssetError, match="custom code"):
            take(f"open_clip:{folder}")


@pytest.mark.parametrize("kind", ["open_clip folder", "open_clip file", "timm", "hf"])
def test_pickles_are_judged_before_any_library_sees_them(
    kind: str, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries fall back to Python's own reader where the safe one raises a TypeError."""
    import open_clip
    import timm

    def plain_load(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("mmap") is None:
            raise TypeError("an old torch")
        return real(*args, **kwargs)

    real = torch.load
    monkeypatch.setattr(torch, "load", plain_load)
    weights = {"open_clip folder": "open_clip_pytorch_model.bin", "timm": "pytorch_model.bin"}.get(kind, "w.bin")
    folder = tmp_path / "m"
    folder.mkdir()
    if kind == "open_clip folder":
        factory.open_clip_folder(folder)
        (folder / "open_clip_model.safetensors").unlink()
    elif kind == "timm":
        (folder / "config.json").write_text(json.dumps({"architecture": "test_vit", "pretrained_cfg": {}}))
    elif kind == "hf":
        factory.bert(folder)
        (folder / "model.safetensors").rename(folder / "x")
        weights = "pytorch_model.bin"
    torch.save({"state_dict": {"a": torch.ones(2), "b": Planted(marker)}}, folder / weights)
    monkeypatch.setattr(open_clip, "create_model", lambda *a, **k: pytest.fail("open_clip was given the file"))
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: pytest.fail("timm was given the file"))
    take, name = {
        "open_clip folder": (load, f"open_clip:{folder}"),
        "open_clip file": (load, f"open_clip:RN50/{folder / 'w.bin'}"),
        "timm": (image_encoder, f"timm:{folder}"),
        "hf": (text_encoder, f"hf:{folder}"),
    }[kind]
    with pytest.raises(AssetError, match=r"pickle of more than tensors \(posix\.mkdir\)|only as pytorch_model\.bin"):
        take(name)


def test_pickles_of_tensors_are_read(tmp_path: Path) -> None:
    for old in (False, True):
        content = {"state_dict": {"a": torch.ones(2, 3)}, "epoch": 3}
        torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not old)
        assert read_header(tmp_path / "w.pt") == {"state_dict.a": (2, 3)}
    torch.save({"a": torch.ones(1).expand(10**9)}, tmp_path / "w.pt")
    with pytest.raises(AssetError, match=r"w\.pt: a claims 1,000,000,000 values, more than the file has"):
        read_header(tmp_path / "w.pt")


def timm_folder(folder: Path) -> Path:
    import timm
    from timm.models import save_for_hf

    save_for_hf(timm.create_model("test_vit", pretrained=False), str(folder), safe_serialization=True)
    return folder


def test_timm_takes_the_weights_of_the_folder_whatever_its_configuration_names(tmp_path: Path, marker: Path) -> None:
    folder = timm_folder(tmp_path / "m")
    own = image_encoder(f"timm:{folder}").state_dict()
    torch.save({"a": Planted(marker)}, tmp_path / "evil.pth")
    elsewhere = {
        "file": str(tmp_path / "evil.pth"), "url": "https://host.invalid/evil.pth", "hf_hub_id": "a/b",
        "source": "hf-hub", "custom_load": True, "hf_hub_filename": "evil.pth",
    }  # fmt: skip
    for key, value in elsewhere.items():
        change(folder / "config.json", f"pretrained_cfg.{key}", value)
    found = image_encoder(f"timm:{folder}").state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in found.items())
    for key, value in {
        "checkpoint_path": str(tmp_path / "evil.pth"),
        "pretrained_cfg": {},
        "features_only": True,
    }.items():
        again = shutil.copytree(folder, tmp_path / key)
        change(again / "config.json", f"model_args.{key}", value)
        with pytest.raises(AssetError, match=rf"model_args = .* holds {key}, which is no argument of an architecture"):
            image_encoder(f"timm:{again}")


@pytest.mark.parametrize(
    ("dotted", "value", "expected"),
    [
        ("attn_implementation", "kernels-community/flash-attn", "names code of the hub"),
        ("_attn_implementation", {"text_config": "a/b"}, "names code of the hub"),
        ("transformers_weights", "../evil.bin", "no safetensors file beside it"),
        ("model_cfg.vision_cfg.timm_model_name", "local-dir:/evil", "is no name of a timm model"),
        ("model_cfg.vision_cfg.timm_model_name", "hf-hub:a/b", "is no name of a timm model"),
        ("architecture", "local-dir:/evil", "is no name of a timm model"),
        ("pretrained_cfg.architecture", 3, "is no name of a timm model"),
        ("backbone", "local-dir:/evil", "names a place"),
        ("backbone_kwargs", {"checkpoint_path": "/evil.pth"}, "is no argument of an architecture"),
        ("model_cfg.text_cfg.context_length", 10**9, r"allowed: 1 to 65,536 tokens"),
        ("model_cfg.text_cfg", [], "is a list; expected an object"),
        ("text_config.num_attention_heads", 0, "must be 1 or more"),
        ("num_labels", 10**9, r"allowed: up to 1,000,000"),
        ("layers", [3, 10**7], "10000000 is more than any model has"),
    ],
)
def test_what_no_configuration_may_say(dotted: str, value: Any, expected: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    change(tmp_path / "config.json", dotted, value)
    with pytest.raises(AssetError, match=rf"config\.json: {dotted.partition('.')[0]}.* = .*{expected}"):
        read_settings(tmp_path / "config.json")


def test_what_configurations_of_known_models_say(tmp_path: Path) -> None:
    usual = {
        "auto_map": _AUTO, "architectures": ["X"], "attn_implementation": "sdpa", "backbone": "microsoft/resnet-50",
        "custom_load": True, "id2label": {"0": "a"}, "max_position_embeddings": 131072, "num_hidden_layers": None,
        "rope_scaling": {"factor": 8.0}, "text_config": None, "trust_remote_code": False, "use_cache": True,
        "vision_feature_layer": -2, "vocab_size": 262144,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(usual))
    assert read_settings(tmp_path / "config.json") == usual
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(other := {"model_max_length": 10**30, "auto_map": _AUTO})
    )
    assert read_settings(tmp_path / "tokenizer_config.json") == other


def test_deep_configurations_are_judged_to_the_ground(tmp_path: Path) -> None:
    depth = 400
    text = '{"a": ' * depth + '{"kernel_config": {"x": "a/b"}}' + "}" * depth
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(AssetError, match=r"a\.a\.kernel_config = {…} names code of the hub"):
        read_settings(tmp_path / "config.json")


def test_an_adapter_of_peft_is_not_followed_to_its_base(tmp_path: Path) -> None:
    folder = factory.bert(tmp_path / "m")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "evil")}))
    with pytest.raises(AssetError, match=r"holds adapter_config\.json: .*merge the adapter into its model first"):
        text_encoder(f"hf:{folder}")


# --- sizes


@pytest.mark.parametrize(
    ("kind", "dotted", "value", "says"),
    [
        ("bert", "vocab_size", 10**12, r"\(vocab_size = 1,000,000,000,000, .*much larger than its weights, which hold"),
        ("bert", "num_hidden_layers", 10**6, r"num_hidden_layers = 1,000,000 .* its weights hold \d+ tensors"),
        ("bert", "hidden_size", 10**9, "much larger than its weights"),
        ("bert", "type_vocab_size", 10**11, "much larger than its weights"),
        ("clip", "vision_config.image_size", 10**9, "much larger than its weights"),
        ("clip", "text_config.vocab_size", 10**12, "much larger than its weights"),
        ("timm", "model_args.depth", 10**6, r"model_args\.depth = 1,000,000 in its configuration"),
        ("timm", "model_args.embed_dim", 10**9, "much larger than its weights|timm cannot build"),
        ("open_clip", "model_cfg.text_cfg.vocab_size", 10**12, "much larger than its weights"),
        ("open_clip", "model_cfg.vision_cfg.width", 10**9, "much larger than its weights"),
        ("open_clip", "model_cfg.vision_cfg.layers", 10**6, r"vision_cfg\.layers = 1,000,000"),
        ("open_clip", "model_cfg.embed_dim", 10**12, "much larger than its weights"),
    ],
)
def test_sizes_that_the_weights_do_not_bear_out(kind: str, dotted: str, value: int, says: str, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    make: dict[str, Callable[[Path], Path]] = {"timm": timm_folder, "open_clip": factory.open_clip_folder}
    make.get(kind, getattr(factory, kind, timm_folder))(folder)
    change(folder / (OPEN_CLIP if kind == "open_clip" else "config.json"), dotted, value)
    take: Any = {"bert": text_encoder, "timm": image_encoder}.get(kind, load)
    name = f"{'hf' if kind in ('bert', 'clip') else kind}:{folder}"
    with pytest.raises(VlkitError, match=says):
        take(name)
    random = image_encoder if dotted.partition(".")[2].startswith(("vision", "depth", "embed")) else text_encoder
    with pytest.raises(VlkitError, match=says):
        random(name if kind != "timm" else f"timm:{folder}", pretrained=False)


def test_sizes_in_a_model_folder_are_compared_with_its_weights(tmp_path: Path) -> None:
    for key, old, new in (
        ("depth", "depth: 2", "depth: 1000000"),
        ("embed_dim", "embed_dim: 32", "embed_dim: 1000000000"),
        ("overflow", "embed_dim: 32", f"embed_dim: {10**29}"),
    ):
        folder = save(load("tiny"), tmp_path / key)
        text = (folder / "spec.yaml").read_text()
        assert old in text
        (folder / "spec.yaml").write_text(text.replace(old, new))
        for take in (load, load_meta):
            with pytest.raises(VlkitError, match=r"describes a model much larger than its weights, which hold"):
                take(folder)


# --- tokenizers


@pytest.mark.parametrize(
    ("key", "rule", "says"),
    [
        ("normalizer", {"type": "Prepend", "prepend": "x" * 10**6}, "of 100 characters more than 400,000 long"),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 10**6}, "400,000 long"),
        ("normalizer", {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 40}, "more than 400,000 long"),
        ("normalizer", {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"Regex": ""}, "content": "a"}] * 40}, "more than 400,000 long"),
        ("post_processor", {"type": "TemplateProcessing", "pair": [], "single": [
            *[{"SpecialToken": {"id": "<s>", "type_id": 0}}] * 10**5, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}, r"adds 100,000 special tokens"),
        ("model", {"type": "WordLevel", "vocab": {}, "unk_token": "a"}, "its tokenizer cannot take texts: .*UNK"),
    ],
)  # fmt: skip
def test_rules_of_tokenizers_that_no_memory_holds(key: str, rule: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder = factory.bert(tmp_path / "m")
    change(folder / "tokenizer.json", key, rule)
    with pytest.raises(AssetError, match=says):
        text_encoder(f"hf:{folder}")


def test_usual_rules_of_tokenizers_pass(tmp_path: Path) -> None:
    folder = factory.bert(tmp_path / "m")
    rules = [{"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "query: "},
             *[{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}] * 30,
             *[{"type": "Prepend", "prepend": ""}] * 30,
             *[{"type": "Replace", "pattern": {"String": "``"}, "content": "''"}] * 30]  # fmt: skip
    change(folder / "tokenizer.json", "normalizer", {"type": "Sequence", "normalizers": rules})
    encoder = text_encoder(f"hf:{folder}")
    assert (
        encoder.tokenizer.tokenizer.decode(encoder.tokenize(["A  Cat"]).ids_BL[0]) == "<s> q u e r y :   a   c a t </s>"
    )


# --- files that say something else than they should


@pytest.mark.parametrize("text", ["null", "[]", "3", "{", "[" * 100_000, '{"a": "\\ud800"}', '{"a": 1, "a": 2}'])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_files_of_transformers_that_hold_something_else(name: str, text: str, tmp_path: Path) -> None:
    folder = factory.bert(tmp_path / "m")
    (folder / name).write_text(text)
    with pytest.raises(AssetError, match=rf"{name}: (expected an object, found|bad JSON)"):
        text_encoder(f"hf:{folder}")


@pytest.mark.parametrize(
    ("kind", "file", "dotted", "value", "says"),
    [
        ("bert", "config.json", "hidden_act", "unheard", r"cannot load the weights in .*unheard"),
        ("bert", "config.json", "hidden_size", -4, r"config\.json: hidden_size = -4 must be 1 or more"),
        (
            "bert",
            "config.json",
            "type_vocab_size",
            3,
            r"shape \(the first: embeddings\.token_type_embeddings\.weight, "
            r"\[2, 16\] in the weights and \[3, 16\] by .*config\.json\); get the folder again",
        ),
        ("bert", "config.json", "add_cross_attention", True, r"^.{1,900}$"),
        ("bert", "tokenizer_config.json", "model_max_length", "x", "expected a number"),
        ("vit", "preprocessor_config.json", "image_std", [0, 0, 0], "preprocessing"),
        ("vit", "preprocessor_config.json", "size", {"height": 10**9, "width": 10**9}, "allowed: 1 to 8,192"),
        ("open_clip", OPEN_CLIP, "model_cfg.vision_cfg.head_width", 0, "ZeroDivisionError: [^.]*$"),
        ("open_clip", OPEN_CLIP, "model_cfg.vision_cfg.image_size", [], "cannot use the sizes"),
        ("open_clip", OPEN_CLIP, "model_cfg.text_cfg", ..., r"lacks model_cfg\.text_cfg"),
        ("open_clip", OPEN_CLIP, "preprocess_cfg.mean", "x", "preprocessing does not work"),
        ("open_clip", OPEN_CLIP, "preprocess_cfg.resize_mode", "x", "open_clip cannot use its preprocessing"),
        ("timm", "config.json", "pretrained_cfg.interpolation", "x", "timm cannot use its preprocessing"),
        ("timm", "config.json", "architecture", ..., "no key 'architecture'"),
    ],
)
def test_values_that_libraries_stumble_over(
    kind: str, file: str, dotted: str, value: Any, says: str, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    {"timm": timm_folder, "open_clip": factory.open_clip_folder}.get(kind, getattr(factory, kind, timm_folder))(folder)
    change(folder / file, dotted, value)
    take: Any = {"bert": text_encoder, "timm": image_encoder, "vit": image_encoder}.get(kind, load)
    with pytest.raises(VlkitError, match=says):
        take(f"{'hf' if kind in ('bert', 'vit') else kind}:{folder}")


def test_a_weights_file_that_is_none(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "w.pt"))
    with pytest.raises(AssetError, match=r"w\.pt: it is a TorchScript program, which is code and is never loaded"):
        read_header(tmp_path / "w.pt")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.pt").read_bytes())
    with pytest.raises(AssetError, match=r"w\.safetensors: it is damaged or no safetensors file \(.*\); get it again"):
        read_header(tmp_path / "w.safetensors")
    (tmp_path / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    with pytest.raises(AssetError, match=r"cannot read the weights .*passwd: it is neither safetensors nor a pickle"):
        load(f"open_clip:ViT-B-32/{tmp_path}/../{tmp_path.name}/passwd")


@pytest.mark.parametrize(
    ("kind", "dotted", "held", "stack"),
    [
        ("bert", "num_hidden_layers", 2, "encoder.layer"),
        ("clip", "text_config.num_hidden_layers", 2, "text_model.encoder.layers"),
        ("clip", "vision_config.num_hidden_layers", 2, "vision_model.encoder.layers"),
    ],
)
def test_fewer_layers_than_the_weights_hold_are_told(
    kind: str, dotted: str, held: int, stack: str, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    getattr(factory, kind)(folder)
    change(folder / "config.json", dotted, held - 1)
    with pytest.raises(VlkitError) as caught:
        (text_encoder if kind == "bert" else load)(f"hf:{folder}")
    assert f"its weights hold {held} layers of {stack}, and by its configuration the last 1 of them" in str(
        caught.value
    )


def test_a_configuration_without_weights_is_told(tmp_path: Path) -> None:
    factory.bert(tmp_path / "m")
    for file in (tmp_path / "m").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(AssetError, match=r"model\.safetensors"):
        text_encoder(f"hf:{tmp_path / 'm'}")
