"""`explain`: every key a recipe may hold is found, and described."""

from __future__ import annotations

import pytest

from vlkit.errors import UnknownName
from vlkit.spec.describe import KeyRow, explain, summary
from vlkit.spec.load import resolve
from vlkit.spec.recipe import Recipe
from vlkit.spec.schema import leaves, shape_of_map


def test_keys_of_a_map() -> None:
    rows = {row.key: row for row in explain("optim")}
    assert rows["optim.lr"] == KeyRow("optim.lr", "number > 0", "0.001", "Peak learning rate.")
    assert rows["optim.schedule"].type == "one of cosine, constant"
    assert rows["optim.betas"].type == "list of 2 numbers"
    assert rows["optim.clip_norm"].type == "number > 0, or null"
    assert summary("optim") == "AdamW with warm-up and a cosine."


def test_the_whole_recipe() -> None:
    rows = {row.key: row for row in explain()}
    assert list(rows) == list(Recipe.model_fields)
    assert rows["seed"].type == "int >= 0 and <= 9223372036854775807"
    assert (rows["model"].default, rows["optim"].default) == ("required", "")
    assert rows["objectives"].default.startswith("[{kind: contrastive, weight: 1.0, ")


def test_a_map_that_varies_gives_its_kinds() -> None:
    assert [(row.key, row.type) for row in explain("model.image")] == [
        (f"model.image.{kind}", "kind") for kind in ("timm", "open_clip", "hf", "multiway", "tiny", "tiled")
    ]
    assert [row.key for row in explain("model.image_head") if row.default == "default"] == ["model.image_head.mlp"]
    assert explain("data.sources")[0].key == "data.sources.0.webdataset"


def test_the_keys_of_one_kind() -> None:
    rows = {row.key: row for row in explain("model.image.timm")}
    assert rows["model.image.timm.image_size"].type == "int >= 16 and <= 4096, or null"
    assert rows["model.image.timm.pretrained"] == KeyRow(
        "model.image.timm.pretrained", "true or false", "true", "Load the weights; false starts from random ones."
    )
    assert summary("model.image.timm") == "An image encoder of timm."


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("optim.lr", ["optim.lr"]),
        ("stages.lr", ["stages.0.lr"]),
        ("stages.1.lr", ["stages.1.lr"]),
        ("model.text.max_length", [f"model.text.{kind}.max_length" for kind in ("hf", "multiway", "tiny")]),
        ("data.sources.built.name", ["data.sources.0.built.name"]),
    ],
)
def test_single_keys(path: str, keys: list[str]) -> None:
    assert [row.key for row in explain(path)] == keys


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("optm", "no key 'optm'; did you mean 'optim'? (see: vlkit explain)"),
        ("optim.lrr", "no key 'lrr'; did you mean 'lr'? (see: vlkit explain optim)"),
        ("model.image.tim", "no key 'tim'; did you mean 'timm'? (see: vlkit explain model.image)"),
        ("optim.lr.x", "no key 'x' (see: vlkit explain optim.lr)"),
    ],
)  # fmt: skip
def test_unknown_keys(path: str, message: str) -> None:
    with pytest.raises(UnknownName) as caught:
        explain(path)
    assert str(caught.value) == message


def test_every_key_of_every_spec_is_explained_and_has_help() -> None:
    for path in leaves(shape_of_map(Recipe)):
        rows = explain(path)
        assert rows, path
        assert all(row.type for row in rows), path
        assert all(row.help or row.key.endswith("kind") for row in rows), path


def test_every_key_of_a_loaded_recipe_is_explained() -> None:
    for key in resolve("contrastive/tiny").origins:
        assert explain(key)
