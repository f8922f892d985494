"""A Q-Former that learns from pairs: it trains, saves, loads, and is what a vision-language model starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import vlkit
from tests.helpers import encoder_factory as factory
from tests.helpers.train_factory import drawings, figures, losses
from vlkit.errors import ShapeError, VlkitError
from vlkit.models.query_former.batch import QueryBatch
from vlkit.models.query_former.model import QueryFormer
from vlkit.models.registry import build, build_meta
from vlkit.parts.bridges import QFormer, build_bridge
from vlkit.parts.encoders import image_encoder
from vlkit.parts.query_reader import QueryReader
from vlkit.spec.bridges import QFormerBridgeSpec, QueryTextSpec
from vlkit.spec.language import TinyLanguage
from vlkit.spec.load import load_recipe
from vlkit.spec.model import QueryFormerSpec, VisionLanguageSpec
from vlkit.spec.parts import TinyImage
from vlkit.training import steps
from vlkit.training.loop import train
from vlkit.types import Model, TextBatch

SPEC = QueryFormerSpec(
    encoder=TinyImage(image_size=16, width=16, depth=1),
    bridge=QFormerBridgeSpec(num_queries=3, width=16, layers=2, heads=2, ffn=24),
    embed_dim=8,
)


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return build(SPEC).eval()


def batch(model: Any, texts: tuple[str, ...] = ("a cat", "ein Hund")) -> QueryBatch:
    pixels = torch.stack([model.transform(factory.random_image(seed)) for seed in range(len(texts))])
    names = tuple(f"c{number}" for number in range(len(texts)))
    return QueryBatch(model.text.tokenize(texts), pixels, None, ("en",) * len(texts), names, names)


def test_it_is_a_model_whose_spec_builds_it_again(model: Any, tmp_path: Path) -> None:
    assert isinstance(model, Model) and set(model.parts()) == {"encoder", "bridge", "text"} and model.spec == SPEC
    vlkit.save(model, tmp_path / "saved")
    again: Any = vlkit.load(tmp_path / "saved").eval()
    given = batch(model)
    for name in ("queries", "texts", "match", "words"):
        assert torch.equal(outputs(again, given)[name], outputs(model, given)[name]), name
    assert {name: p.shape for name, p in build_meta(SPEC).named_parameters()} == {
        name: p.shape for name, p in model.named_parameters()
    }
    assert "bridge: {kind: qformer, weights:" in (tmp_path / "saved" / "README.md").read_text()


def outputs(model: Any, given: QueryBatch) -> dict[str, torch.Tensor]:
    """What the three losses look at."""
    image = model.image_tokens(given)
    states = model.bridge.query_states(image)
    return {
        "queries": model.embedded_queries(states),
        "texts": model.embedded_texts(given.tokens),
        "match": model.match_logits(image, given.tokens),
        "words": model.text.logits(model.writing_states(given.tokens, states)),
    }


def test_a_text_token_reaches_what_it_may_reach(model: Any) -> None:
    given = batch(model)
    plain = outputs(model, given)
    for place in range(1, 6):
        ids = given.tokens.ids_BL.clone()
        ids[0, place] = 65
        changed = outputs(model, QueryBatch(**{**vars(given), "tokens": TextBatch(ids, given.tokens.mask_BL)}))
        assert torch.equal(changed["queries"], plain["queries"])  # contrast and captions: queries see no text
        assert not torch.allclose(changed["match"][0], plain["match"][0], atol=1e-7)  # matching: they do
        assert torch.equal(changed["words"][0, :place], plain["words"][0, :place])  # words before it
        assert not torch.allclose(changed["words"][0, place], plain["words"][0, place], atol=1e-6)
        assert torch.equal(changed["words"][1], plain["words"][1]) and torch.equal(
            changed["match"][1], plain["match"][1]
        )


def test_an_image_reaches_words_and_matching_and_no_text(model: Any) -> None:
    given = batch(model)
    plain = outputs(model, given)
    changed = outputs(model, QueryBatch(**{**vars(given), "pixels_BCHW": given.pixels_BCHW.flip(-1)}))
    assert torch.equal(changed["texts"], plain["texts"])
    for name in ("queries", "match", "words"):
        assert not torch.allclose(changed[name], plain[name], atol=1e-6), name


def test_a_written_text_begins_with_a_mark_of_its_own(model: Any) -> None:
    given = batch(model)
    ids = given.tokens.ids_BL.clone()
    ids[:, 0] = 65  # whatever stood there is not read
    states = model.bridge.query_states(model.image_tokens(given))
    expected = model.writing_states(given.tokens, states)
    assert torch.equal(model.writing_states(TextBatch(ids, given.tokens.mask_BL), states), expected)
    assert model.text.start == 259 and model.text.text.words.num_embeddings == 260


def test_looked_up_tokens_are_those_of_pixels(model: Any) -> None:
    given = batch(model)
    tokens = model.encoder.tokens(given.pixels_BCHW)
    looked_up = QueryBatch(**{**vars(given), "pixels_BCHW": None, "image_BNT": tokens})
    assert torch.equal(model.image_tokens(looked_up), model.image_tokens(given))
    first = given.rows(torch.tensor([1]))
    assert len(first) == 1 and first.concepts == ("c1",) and torch.equal(first.pixels_BCHW[0], given.pixels_BCHW[1])


def test_parts_that_do_not_fit_are_told(model: Any) -> None:
    with pytest.raises(
        ShapeError, match=r"^the Q-Former takes tokens 12 wide, the image encoder gives 32; build it with"
    ):
        QueryFormer(
            image_encoder("tiny"), QFormer(12, 8, width=16, layers=1, heads=2, ffn=8), model.text, init_scale=1.0
        )
    with pytest.raises(VlkitError, match=r"^bridge is a Linear; a QueryFormer takes a QueryTransformer$"):
        QueryFormer(image_encoder("tiny"), torch.nn.Linear(2, 2), model.text, init_scale=1.0)


def test_a_tokenizer_of_transformers_is_kept_and_must_mark_the_start(tmp_path: Path) -> None:
    text = QueryTextSpec(tokenizer=str(factory.bert(tmp_path / "bert")), vocab=300)
    first: Any = build(SPEC.model_copy(update={"text": text}))
    vlkit.save(first, tmp_path / "saved")
    again: Any = vlkit.load(tmp_path / "saved")
    assert torch.equal(again.text.tokenize(["a cat"]).ids_BL, first.text.tokenize(["a cat"]).ids_BL)
    with pytest.raises(VlkitError, match=r"has 300 tokens and model.text.vocab = 299; set vocab=300 or more$"):
        build(SPEC.model_copy(update={"text": text.model_copy(update={"vocab": 299})}))
    bare = QueryTextSpec(tokenizer=str(factory.t5(tmp_path / "t5")), vocab=300)
    with pytest.raises(VlkitError, match="texts must begin with a mark"):
        build(SPEC.model_copy(update={"text": bare}))


def test_at_full_size_it_has_the_parameters_of_the_paper() -> None:
    """BLIP-2, section 3.1: 188 M with its queries, between an image encoder 1408 wide and BERT's vocabulary."""
    made = load_recipe("vlm/blip2_stage1").model
    assert isinstance(made, QueryFormerSpec)
    bridge = build_bridge(made.bridge, 1408, made.embed_dim, empty=True)
    bert = made.text.model_copy(update={"vocab": 30522, "max_length": 512})
    text = QueryReader.build(bert, made.bridge, embed_dim=made.embed_dim, empty=True)
    counts = [sum(weight.numel() for weight in part.parameters()) for part in (bridge, text)]
    assert sum(counts) == pytest.approx(188e6, rel=0.01)
    assert counts[0] == pytest.approx(105e6, rel=0.01)  # what stays of it before a language model


def recipe(table: Path, folder: Path, *more: str) -> Any:
    """The tiny twin of the recipe, shorter."""
    over = [
        f"data.sources=[{{kind: folder, path: {table}}}]", "data.holdout_concepts=0", "stages.0.steps=12",
        "loop.batch_size=8", "loop.log_every=1", f"run.folder={folder}",
    ]  # fmt: skip
    return load_recipe("vlm/tiny/blip2_stage1", [*over, *more])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawings(tmp_path_factory.mktemp("data"), 24)


@pytest.fixture(scope="module")
def first_stage(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train(recipe(table, tmp_path_factory.mktemp("stage1") / "run"))


def test_the_recipe_trains_all_but_the_encoder(first_stage: Any) -> None:
    values = losses(first_stage)
    assert len(values) == 12 and sum(values[-3:]) < sum(values[:3])
    line = first_stage.metrics()[-1]
    assert {"contrast", "match", "caption", "match_acc1", "batch_acc1", "scale"} <= line.keys()


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    first_stage: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(table, tmp_path / "run", "loop.checkpoint_every=5")
    save = steps.Steps._checkpoint

    def stopping(self: Any, *args: Any) -> None:
        save(self, *args)
        raise RuntimeError("stopped by the test")

    with monkeypatch.context() as patch:
        patch.setattr(steps.Steps, "_checkpoint", stopping)
        for resume in (False, True):
            with pytest.raises(RuntimeError, match="stopped by the test"):
                train(made, resume=resume)
    assert figures(train(made, resume=True)) == figures(first_stage)  # wrong pairs are drawn again as they were


def test_a_second_stage_starts_from_it(first_stage: Any) -> None:
    trained: Any = first_stage.model()
    spec = trained.spec.bridge.model_copy(update={"weights": str(first_stage.model_path)})
    bridge: Any = build_bridge(spec, trained.bridge.in_width, 16).eval()
    image = torch.randn(2, 16, 32)
    assert torch.equal(bridge.query_states(image).last_BMW, trained.bridge.eval().query_states(image).last_BMW)
    assert not torch.equal(bridge.projection.weight, trained.bridge.projection.weight)  # to another space
    second: Any = build(
        VisionLanguageSpec(encoder=TinyImage(image_size=32), bridge=spec, language_model=TinyLanguage())
    )
    assert torch.equal(second.bridge.queries_MW, trained.bridge.queries_MW)
