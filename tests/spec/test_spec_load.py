"""The recipe loader: inheritance, overrides, origins, and error texts word for word."""

# ruff: noqa: E501 - messages stand on one line, as they are printed

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator

from vlkit.errors import SpecError, UnknownName, VlkitError
from vlkit.spec.base import Spec
from vlkit.spec.dataset import DataSpec, TemperatureMixing, UniformMixing
from vlkit.spec.load import dump_yaml, find_recipe, load_recipe, load_spec, resolve, resolve_spec, shipped_recipes
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.objectives import ClassPrototypeObjective, ContrastiveObjective
from vlkit.spec.parts import HfText, IdentityHeadSpec, LinearHeadSpec, MlpHeadSpec, TimmImage, TinyImage, TinyText
from vlkit.spec.recipe import Recipe
from vlkit.spec.sources import BuiltSource, FolderSource
from vlkit.spec.training import OptimSpec, StageSpec

BASE = """\
model:
  image: {kind: tiny, image_size: 64}
  text: {kind: tiny}
data:
  sources:
    - {kind: folder, path: a.jsonl}
  languages: [no, en]
stages:
  - {name: one, trainable: [image_head], steps: 5}
  - {name: two, trainable: [text_head], steps: 5}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return Path(name)


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_recipe(path, overrides)
    return caught.value.problems


# --- the page of the house


class QFormer(Spec):
    kind: Literal["qformer"] = "qformer"
    num_queries: int = Field(default=32, ge=1)
    depth: int = 6
    width: int | None = None
    num_heads: int = 8
    dropout: float = 0.0


class Projection(Spec):
    kind: Literal["projection"] = "projection"
    hidden: int = 64


class Bridged(Spec):
    kind: Literal["vision_language"] = "vision_language"
    encoder: str
    bridge: Annotated[QFormer | Projection, Field(discriminator="kind")] = QFormer(num_queries=16)
    scale: int | float = 1

    @field_validator("encoder")
    @classmethod
    def _known(cls, value: str) -> str:
        if value == "none":
            raise ValueError("an encoder must see something")
        return value


class Run(Spec):
    model: Bridged


def test_a_wrong_key_prints_what_the_house_says(here: Path) -> None:
    text = "# a recipe\nmodel:\n  encoder: vit\n  bridge:\n    num_querys: 64\n    kind: qformer\n"
    path = write(here, "recipes/mblip/tiny.yaml", text)
    with pytest.raises(SpecError) as caught:
        load_spec(Run, path)
    assert str(caught.value) == (
        "recipes/mblip/tiny.yaml:5  model.bridge.num_querys = 64\n"
        "  no such key; did you mean 'num_queries'?  qformer takes: num_queries, depth, width, num_heads, dropout\n"
        "1 problem; nothing was run."
    )


def test_norway_and_floats(here: Path) -> None:
    path = write(here, "r.yaml", BASE + "optim: {lr: 3e-4, eps: 1e-3}\n")
    recipe = load_recipe(path)
    assert recipe.data.languages == ("no", "en")
    assert (recipe.optim.lr, recipe.optim.eps) == (0.0003, 0.001)
    assert load_recipe(path, ["data.languages=[de,no]", "optim.lr=1e-3"]).data.languages == ("de", "no")


def test_another_kind_clears_the_stale_siblings(here: Path) -> None:
    path = write(here, "r.yaml", "model:\n  encoder: vit\n  bridge: {kind: qformer, num_queries: 64}\n")
    assert resolve_spec(Run, path, ["model.bridge.kind=projection"]).spec.model.bridge == Projection()
    for order in (
        ["model.bridge.hidden=3", "model.bridge.kind=projection"],
        ["model.bridge.kind=projection", "model.bridge.hidden=3"],
    ):
        assert resolve_spec(Run, path, order).spec.model.bridge == Projection(hidden=3)
    child = write(here, "c.yaml", "extends: r.yaml\nmodel: {bridge: {kind: projection}}\n")
    assert load_spec(Run, child).model.bridge == Projection()
    same = write(here, "s.yaml", "extends: r.yaml\nmodel: {bridge: {kind: qformer, depth: 2}}\n")
    assert load_spec(Run, same).model.bridge == QFormer(num_queries=64, depth=2)


def test_a_kind_that_only_the_default_names_is_known(here: Path) -> None:
    path = write(here, "r.yaml", "model: {encoder: vit}\n")
    assert resolve_spec(Run, path, ["model.bridge.depth=2"]).spec.model.bridge == QFormer(num_queries=16, depth=2)
    partial = write(here, "p.yaml", "model: {encoder: vit, bridge: {depth: 3}}\n")
    assert load_spec(Run, partial).model.bridge == QFormer(num_queries=16, depth=3)
    child = write(here, "c.yaml", "extends: p.yaml\nmodel: {bridge: {kind: projection}}\n")
    assert load_spec(Run, child).model.bridge == Projection()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("num_queries: 0", "model.bridge.num_queries = 0\n  should be an int >= 1"),
        ("num_queries: 1.5", "model.bridge.num_queries = 1.5\n  should be an int >= 1"),
        ("num_queries: '5'", 'model.bridge.num_queries = "5"\n  should be an int >= 1; leave out the quotes'),
        (
            "hidden: 5",
            "model.bridge.hidden = 5\n  no such key; it belongs to kind projection.  qformer takes: num_queries, depth, width, num_heads, dropout",
        ),
    ],
)
def test_a_unions_tag_is_in_no_key_path(here: Path, line: str, message: str) -> None:
    path = write(here, "r.yaml", f"model:\n  encoder: vit\n  bridge:\n    kind: qformer\n    {line}\n")
    with pytest.raises(SpecError) as caught:
        load_spec(Run, path)
    assert caught.value.problems == [f"r.yaml:5  {message}"]


def test_a_bad_kind_stands_at_its_own_line(here: Path) -> None:
    path = write(here, "r.yaml", "model:\n  encoder: vit\n  bridge:\n    depth: 2\n    kind: qforma\n")
    with pytest.raises(SpecError) as caught:
        load_spec(Run, path)
    assert caught.value.problems == [
        "r.yaml:5  model.bridge.kind = qforma\n  no such kind; did you mean 'qformer'?  kinds: qformer, projection"
    ]


def test_messages_of_validators_and_plain_unions(here: Path) -> None:
    path = write(here, "r.yaml", "model:\n  encoder: none\n  scale: x\n")
    with pytest.raises(SpecError) as caught:
        load_spec(Run, path)
    assert set(caught.value.problems) == {
        "r.yaml:2  model.encoder = none\n  an encoder must see something",
        "r.yaml:3  model.scale = x\n  should be an int or number",
    }
    other = write(here, "o.yaml", "model:\n  encoder: none\n  scale: x\n  kind: vision\n")
    with pytest.raises(SpecError) as caught:
        load_spec(Run, other)
    assert caught.value.problems == ["o.yaml:4  model.kind = vision\n  no such kind; kinds: vision_language"]


def test_lists_are_replaced_never_merged(here: Path) -> None:
    write(here, "base.yaml", BASE)
    child = write(
        here,
        "c.yaml",
        "extends: base.yaml\ndata: {languages: [sw]}\nstages: [{name: x, trainable: [scale], steps: 1}]\n",
    )
    recipe = load_recipe(child)
    assert recipe.data.languages == ("sw",)
    assert [stage.name for stage in recipe.stages] == ["x"]
    assert recipe.data.sources == (FolderSource(path="a.jsonl"),)
    assert load_recipe(child, ["data.languages=[de]"]).data.languages == ("de",)


# --- every fault at once, each at its place

FAULTS = """\
modle: 3
model:
  image: {kind: tiny, image_size: 4}
  text: {kind: tinny}
  image_head: {kind: linear, bias: no}
  init_scale: .inf
  lr: 1
data:
  sources: []
  languages: de
  mixing: tiny
stages:
  - {trainable: [image_head], steps: true}
optim:
  schedule: cosin
  betas: [0.9]
  lr: 0
seed: 1.5
run: {name: 5}
lr: 3
"""


def test_all_problems_are_told_at_once(here: Path) -> None:
    path = write(here, "r.yaml", FAULTS)
    with pytest.raises(SpecError) as caught:
        load_recipe(path, ["optim.clip_norm=-1", "loop", "stages.3.lr=1", "loop.precision=fp8"])
    assert str(caught.value) == (
        "command line  loop\n"
        "  no '='; write key=value, e.g. optim.lr=3e-4\n"
        "command line  stages.3.lr = 1\n"
        "  no item '3'; stages has one item: 0. Or give the whole list: stages=[...]\n"
        "r.yaml:6  model.init_scale = .inf\n"
        "  should be a finite number\n"
        "r.yaml:19  run.name = 5\n"
        '  should be text; in quotes it is one: "5"\n'
        "r.yaml:18  seed = 1.5\n"
        "  should be an int >= 0 and <= 9223372036854775807\n"
        "r.yaml:3  model.image.image_size = 4\n"
        "  should be an int >= 8 and <= 256\n"
        "r.yaml:4  model.text.kind = tinny\n"
        "  no such kind; did you mean 'tiny'?  kinds: hf, open_clip, multiway, tiny\n"
        "r.yaml:5  model.image_head.bias = no\n"
        "  should be true or false; no is a text\n"
        "r.yaml:7  model.lr = 1\n"
        "  no such key; dual_encoder takes: adapters, image, text, embed_dim, image_head, text_head, decoder, init_scale, max_scale, init_bias\n"
        "r.yaml:9  data.sources = []\n"
        "  should be a list of maps with kind webdataset, folder, built, tree, classes, babel_json, crossmodal3600, "
        "aligned_lines, caption_jsonl, coco_captions, wit, caption_parquet, hub, dialogues, native_and_translated, translations or pipeline, at least 1\n"
        "r.yaml:10  data.languages = de\n"
        "  should be a list of texts, or null; a list of one is written [de]\n"
        "r.yaml:11  data.mixing = tiny\n"
        "  should be a map with kind uniform, temperature, english_share, proportional, tiered or weights\n"
        "r.yaml:17  optim.lr = 0\n"
        "  should be a number > 0\n"
        "r.yaml:16  optim.betas = [0.9]\n"
        "  should be a list of 2 numbers\n"
        "r.yaml:15  optim.schedule = cosin\n"
        "  should be one of cosine, constant; did you mean 'cosine'?\n"
        "command line  optim.clip_norm = -1\n"
        "  should be a number > 0, or null\n"
        "r.yaml:13  stages.0.name\n"
        "  missing; should be text\n"
        "r.yaml:13  stages.0.steps = true\n"
        "  should be an int >= 1\n"
        "command line  loop.precision = fp8\n"
        "  should be one of auto, fp32, bf16\n"
        "r.yaml:1  modle = 3\n"
        "  no such key; did you mean 'model'?  recipe takes: description, run, seed, model, data, objectives, optim, stages, loop, validation\n"
        "r.yaml:20  lr = 3\n"
        "  no such key; did you mean 'optim.lr'?  recipe takes: description, run, seed, model, data, objectives, optim, stages, loop, validation\n"
        "21 problems; nothing was run."
    )


def test_what_is_missing_stands_at_its_parent(here: Path) -> None:
    path = write(here, "r.yaml", "seed: 1\nmodel:\n  text: {kind: hf}\n  image: {image_size: 32}\n")
    assert problems(path) == [
        "r.yaml:4  model.image.kind\n  missing; kinds: timm, open_clip, hf, multiway, tiny, tiled",
        "r.yaml:3  model.text.name\n  missing; should be text",
        "r.yaml:1  data\n  missing; should be a map",
        "r.yaml:1  stages\n  missing; should be a list of maps, at least 1",
    ]


def test_long_values_are_shortened(here: Path) -> None:
    path = write(here, "r.yaml", BASE + f"seed: [{', '.join('1' * 200)}]\n")
    (entry,) = problems(path)
    assert entry.startswith("r.yaml:11  seed = [1, 1, ") and entry.splitlines()[0].endswith("…")


def test_odd_keys_stay_on_one_line(here: Path) -> None:
    found = problems(write(here, "r.yaml", BASE + "'': 1\n\"a\\nb\": 2\n"))
    assert [entry.splitlines()[0] for entry in found] == ['r.yaml:11  "" = 1', 'r.yaml:12  "a\\nb" = 2']


def test_extend_is_a_misspelt_extends(here: Path) -> None:
    path = write(here, "r.yaml", BASE + "extend: b.yaml\n")
    assert problems(path)[0].splitlines()[1].startswith("  no such key; did you mean 'extends'?")


@pytest.mark.parametrize("value", ["[1]", "{a: 1}", "x", "null", "true", "1.5", "''", "[[]]", "-1"])
def test_every_key_answers_every_wrong_type_in_plain_words(here: Path, value: str) -> None:
    """No pydantic jargon, whatever stands wherever."""
    jargon = re.compile(
        r"\b(input|valid|dictionary|instance|tag|parse|discriminator|none|str|string|tuple|model_type)\b", re.I
    )
    path = write(here, "r.yaml", BASE)
    for key in resolve(path).origins:
        try:
            load_recipe(path, [f"{key}={value}"])
        except SpecError as error:
            for entry in error.problems:
                assert entry.startswith("command line  ")
                text = entry.partition("\n  ")[2]
                assert text and not jargon.search(text), entry


# --- overrides


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr", "command line  lr\n  no '='; write key=value, e.g. optim.lr=3e-4"),
        ("=3", "command line  =3\n  no key before '='; write key=value, e.g. optim.lr=3e-4"),
        (
            "seed=",
            "command line  seed=\n  no value after '='; write seed=null for none or seed='\"\"' for an empty text",
        ),
        ("optim..lr=3", "command line  optim..lr=3\n  an empty part in the dotted key"),
        (
            "data.languages=[de",
            "command line  data.languages=[de\n  this is no YAML: expected ',' or ']', but got 'the end of the text'",
        ),
        ("run.name=a\udc80", "command line  run.name=a\udc80\n  this is not valid UTF-8"),
        ("extends=a.yaml", "command line  extends = a.yaml\n  extends can only be written in a file"),
        (
            "stages.2.lr=1",
            "command line  stages.2.lr = 1\n  no item '2'; stages has 2 items: 0 to 1. Or give the whole list: stages=[...]",
        ),
        (
            "stages.-1.lr=1",
            "command line  stages.-1.lr = 1\n  no item '-1'; stages has 2 items: 0 to 1. Or give the whole list: stages=[...]",
        ),
        (
            "stages.lr=1",
            "command line  stages.lr = 1\n  no item 'lr'; stages has 2 items: 0 to 1. Or give the whole list: stages=[...]",
        ),
        ("run.name=5", "command line  run.name = 5\n  should be text; in quotes it is one: '\"5\"'"),
        ("seed.x=5", "command line  seed = {x: 5}\n  should be an int >= 0 and <= 9223372036854775807"),
    ],
)
def test_override_problems(here: Path, override: str, message: str) -> None:
    assert problems(write(here, "r.yaml", BASE), override) == [message]


def test_overrides_reach_into_lists_maps_and_defaults(here: Path) -> None:
    path = write(here, "r.yaml", BASE)
    recipe = load_recipe(
        path, ["stages.0.lr=1e-4", "data.languages.1=sw", "objectives.0.weight=2", "optim={lr: 1e-2, eps: 1e-3}"]
    )
    assert recipe.stages == (
        StageSpec(name="one", trainable=("image_head",), steps=5, lr=1e-4),
        load_recipe(path).stages[1],
    )
    assert recipe.data.languages == ("no", "sw")
    assert recipe.objectives == (ContrastiveObjective(weight=2.0),)
    assert recipe.optim == OptimSpec(lr=1e-2, eps=1e-3)


def test_a_text_value_needs_no_quotes_and_keeps_its_spaces(here: Path) -> None:
    path = write(here, "r.yaml", BASE)
    text = load_recipe(
        path, ["model.text.kind=hf", "model.text.name=C:\\a b # c", "model.text.prefix=query: "]
    ).model.text
    assert text == HfText(name="C:\\a b # c", prefix="query: ")
    assert load_recipe(path, ["run.name='5'", "loop.views= 3 "]).run.name == "5"


def test_whole_floats_are_ints_where_ints_are_wanted(here: Path) -> None:
    assert load_recipe(write(here, "r.yaml", BASE), ["stages.0.steps=1e3"]).stages[0].steps == 1000


def test_the_last_of_two_overrides_holds(here: Path) -> None:
    path = write(here, "r.yaml", BASE)
    assert load_recipe(path, ["seed=1", "seed=2"]).seed == 2
    sources = ["data.sources=[{kind: folder, path: b}]", "data.sources.0.kind=built", "data.sources.0.name=flags"]
    with pytest.raises(
        SpecError, match=r"data.sources.0.path = b\n  no such key; it belongs to kind webdataset and folder"
    ):
        load_recipe(
            path, sources
        )  # a value and a kind of the same command line contradict each other: said, not dropped
    assert load_recipe(path, sources[1:]).data.sources == (BuiltSource(name="flags"),)


# --- extends


def test_a_chain_of_parents_merges_maps(here: Path) -> None:
    write(here, "a/base.yaml", BASE + "optim: {lr: 1, eps: 1}\nseed: 1\n")
    write(here, "a/middle.yaml", "extends: base.yaml\noptim: {lr: 2}\nseed: 2\n")
    child = write(here, "child.yaml", "extends: a/middle.yaml\nseed: 3\n")
    resolved = resolve(child)
    assert (resolved.spec.optim.lr, resolved.spec.optim.eps, resolved.spec.seed) == (2, 1, 3)
    where = {key: resolved.origins[key] for key in ("optim.lr", "optim.eps", "seed", "optim.betas")}
    assert where == {
        "optim.lr": "a/middle.yaml:2",
        "optim.eps": "a/base.yaml:11",
        "seed": "child.yaml:2",
        "optim.betas": "default",
    }


def test_a_shipped_recipe_can_be_a_parent(here: Path) -> None:
    path = write(here, "mine.yaml", "extends: contrastive/tiny\nseed: 7\n")
    assert load_recipe(path) == load_recipe("contrastive/tiny", ["seed=7"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("bass.yaml", "r.yaml:2  extends = bass.yaml\n  no such file: bass.yaml; did you mean 'base.yaml'?"),
        ("r.yaml", "r.yaml:2  extends = r.yaml\n  a circle: r.yaml extends r.yaml"),
        ("loop.yaml", "loop.yaml:1  extends = r.yaml\n  a circle: r.yaml extends loop.yaml extends r.yaml"),
        (
            "[a.yaml, b.yaml]",
            "r.yaml:2  extends = [a.yaml, b.yaml]\n  should be the path of one YAML file, relative to this one, or the name of a shipped recipe",
        ),
    ],
)
def test_wrong_parents(here: Path, value: str, message: str) -> None:
    write(here, "base.yaml", BASE)
    write(here, "loop.yaml", "extends: r.yaml\n")
    assert problems(write(here, "r.yaml", f"seed: 1\nextends: {value}\n")) == [message]


# --- files and names


def test_files_that_hold_no_recipe(here: Path) -> None:
    assert problems(write(here, "r.yaml", "# nothing\n")) == ["r.yaml:1\n  the file holds no keys"]
    assert problems(write(here, "r.yaml", "- 1\n")) == ["r.yaml:1\n  the file should hold a map: lines of key: value"]
    (here / "r.yaml").write_bytes(b"a: 1\nb: \xff\n")
    assert problems(Path("r.yaml")) == ["r.yaml:2\n  this is not UTF-8; save the file in that encoding"]


def test_a_byte_order_mark_and_windows_lines_are_fine(here: Path) -> None:
    path = here / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())
    assert load_recipe(path) == load_recipe(write(here, "s.yaml", BASE))


def test_unknown_recipes(here: Path) -> None:
    with pytest.raises(UnknownName) as caught:
        load_recipe("contrastive/tinny")
    told = str(caught.value)
    assert told.startswith("no recipe 'contrastive/tinny'; did you mean 'contrastive/tiny' or ")
    assert told.endswith("? (a recipe is the path of a YAML file, or a name of: vlkit list recipes)")
    write(here, "folder/r.yaml", BASE)
    with pytest.raises(VlkitError, match=r"^folder is a folder; did you mean 'folder/r.yaml'\?$"):
        load_recipe("folder")


def test_names_of_shipped_recipes() -> None:
    shipped = shipped_recipes()
    assert "contrastive/tiny" in shipped
    for name, path in shipped.items():
        assert find_recipe(name) == path == find_recipe(name + ".yaml")


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_loads_and_dumps_back(name: str, here: Path) -> None:
    resolved = resolve(name)
    assert load_recipe(write(here, "dump.yaml", dump_yaml(resolved.spec))) == resolved.spec
    assert load_recipe(write(here, "show.yaml", resolved.annotated())) == resolved.spec


# --- origins and round trips


def test_origins(here: Path) -> None:
    path = write(here, "r.yaml", BASE)
    origins = resolve(path, ["optim.lr=1", "data.languages.0=de", "stages.1.steps=9"]).origins
    wanted = {
        "model.image.kind": "r.yaml:2",
        "model.image.width": "default",
        "model.image_head.kind": "default",
        "data.languages": "r.yaml:7, command line",
        "stages.0.steps": "r.yaml:9",
        "stages.1.steps": "command line",
        "stages.1.name": "r.yaml:10",
        "optim.lr": "command line",
        "seed": "default",
    }
    assert {key: origins[key] for key in wanted} == wanted


def test_the_values_of_a_cleared_map_are_defaults_again(here: Path) -> None:
    origins = resolve(write(here, "r.yaml", BASE), ["model.image.kind=hf", "model.image.name=x"]).origins
    assert (origins["model.image.kind"], origins["model.image.image_size"]) == ("command line", "default")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)
FLOATS = st.floats(1e-9, 1e9)
RECIPES = st.builds(
    Recipe,
    description=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    seed=st.integers(0, 2**63 - 1),
    model=st.builds(
        DualEncoderSpec,
        image=st.builds(TimmImage, name=TEXTS, image_size=st.none() | st.integers(16, 4096)) | st.builds(TinyImage),
        text=st.builds(HfText, name=TEXTS, prefix=st.none() | TEXTS, layers=st.tuples(st.integers(-9, 9)))
        | st.builds(TinyText),
        image_head=st.builds(IdentityHeadSpec) | st.builds(LinearHeadSpec, center=st.booleans()),
        text_head=st.builds(MlpHeadSpec, hidden=st.integers(1, 9)),
        init_scale=FLOATS,
        init_bias=st.none() | st.floats(-20, 20),
    ),
    data=st.builds(
        DataSpec,
        sources=st.lists(
            st.builds(FolderSource, path=TEXTS) | st.builds(BuiltSource, name=st.just("flags")), min_size=1, max_size=3
        ),
        languages=st.none() | st.lists(TEXTS, max_size=3),
        mixing=st.builds(UniformMixing) | st.builds(TemperatureMixing, alpha=st.floats(0, 1)),
    ),
    objectives=st.lists(
        st.builds(ContrastiveObjective, weight=FLOATS) | st.builds(ClassPrototypeObjective), min_size=1, max_size=2
    ),
    stages=st.lists(
        st.builds(StageSpec, name=TEXTS, trainable=st.tuples(TEXTS), steps=st.integers(1, 9), lr=st.none() | FLOATS),
        min_size=1,
        max_size=2,
    ),
)


@settings(deadline=None, max_examples=60)
@given(RECIPES)
def test_what_is_dumped_loads_back_equal(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump_yaml(recipe), encoding="utf-8", newline="")
    resolved = resolve(path)
    assert resolved.spec == recipe
    path.write_text(resolved.annotated(), encoding="utf-8", newline="")
    assert load_recipe(path) == recipe


@settings(deadline=None, max_examples=60)
@given(lr=FLOATS, steps=st.integers(1, 10**6), name=TEXTS, languages=st.lists(TEXTS, max_size=3))
def test_an_override_is_the_same_as_writing_it(
    tmp_path_factory: pytest.TempPathFactory, lr: float, steps: int, name: str, languages: list[str]
) -> None:
    from vlkit.spec.yaml12 import flow

    path = tmp_path_factory.getbasetemp() / "base.yaml"
    path.write_text(BASE, encoding="utf-8")
    found = load_recipe(
        path,
        [f"optim.lr={lr}", f"stages.0.steps={steps}", f"run.name={flow(name)}", f"data.languages={flow(languages)}"],
    )
    assert (found.optim.lr, found.stages[0].steps, found.run.name, found.data.languages) == (
        lr,
        steps,
        name,
        tuple(languages),
    )


@pytest.mark.parametrize("part", ["image", "text"])
def test_an_old_key_is_refused_with_its_new_spelling(part: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_recipe("contrastive/tiny", [f"model.{part}_adapter={{kind: lora}}"])
    (problem,) = caught.value.problems
    assert problem.startswith(
        f"command line  model.{part}_adapter = {{kind: lora}}\n  no such key; it is called model.adapters.{part} now."
    )


def test_what_may_be_one_number_or_one_for_each_part_is_told_once() -> None:
    stage = load_recipe("contrastive/tiny", ["stages.0.lr={text: 1e-4}"]).stages[0]
    assert stage.lr == {"text": 1e-4}
    for wrong in ("-1", "{text: 0}", "fast"):
        with pytest.raises(SpecError) as caught:
            load_recipe("contrastive/tiny", [f"stages.0.lr={wrong}"])
        (problem,) = caught.value.problems
        assert "should be a number > 0 or map of names, each with a number > 0, or null" in problem, problem
