"""Laws of training: cached == uncached, same seed == same run, frozen stays frozen, what is kept back is never seen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import encoder_factory
from tests.helpers.train_factory import ALL, HEADS, drawings, figures, losses, read_rows, recipe, write_rows
from vlkit.data.sources.open import VALIDATION, open_sources
from vlkit.errors import DataError, VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder, Encoded
from vlkit.models.registry import build
from vlkit.models.trainable import snapshot
from vlkit.objectives.weighted_sum import WeightedSum
from vlkit.parts.tiny import TinyImageEncoder
from vlkit.spec.recipe import Recipe
from vlkit.training import steps
from vlkit.training.loop import train
from vlkit.types import ClassRows, Loss

H = {"name": "heads", "trainable": HEADS, "steps": 8}
T = {"name": "towers", "trainable": ALL, "steps": 8}
TEXT = {"name": "text", "trainable": ("text", *HEADS), "steps": 8}
IMAGE = {"name": "image", "trainable": ("image", *HEADS), "steps": 8}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return drawings(tmp_path / "data")


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[PairBatch]]:
    """All batches that the objective sees."""
    seen: list[PairBatch] = []
    call = WeightedSum.__call__

    def spy(self: WeightedSum, model: Any, batch: PairBatch) -> Loss:
        seen.append(batch)
        return call(self, model, batch)

    monkeypatch.setattr(WeightedSum, "__call__", spy)
    yield seen


@pytest.mark.parametrize(
    "stages", [(H, T, H), (TEXT, IMAGE, H), (IMAGE, TEXT)], ids=lambda s: "-".join(x["name"] for x in s)
)
def test_cached_equals_uncached(table: Path, tmp_path: Path, stages: tuple[Any, ...], batches: list[PairBatch]) -> None:
    runs = [
        train(recipe(table, tmp_path / str(cached), *stages, loop={"cache_features": cached}))
        for cached in (True, False)
    ]
    half = len(batches) // 2
    for one, two in zip(batches[:half], batches[half:], strict=True):
        assert (one.languages, one.concepts) == (two.languages, two.concepts)
        assert two.pixels_BCHW is not None and two.tokens is not None
    assert any(batch.image_BD is not None for batch in batches[:half])
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=2e-3)
    weights = [run.model().state_dict() for run in runs]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=2e-3, rtol=2e-2)


def test_the_same_seed_is_the_same_run_and_another_is_not(table: Path, tmp_path: Path) -> None:
    runs = [
        train(recipe(table, tmp_path / str(number), T, seed=seed, loop={"num_workers": workers}))
        for number, (seed, workers) in enumerate([(0, 0), (0, 2), (1, 0)])
    ]
    assert figures(runs[0]) == figures(runs[1])
    assert snapshot(runs[0].model()) == snapshot(runs[1].model()) != snapshot(runs[2].model())
    assert losses(runs[0]) != losses(runs[2])


def test_it_learns(table: Path, tmp_path: Path) -> None:
    run = train(recipe(table, tmp_path / "run", {**T, "steps": 80}, model={"text_head": {"dropout": 0.0}}))
    first, last = losses(run)[:8], losses(run)[-8:]
    assert sum(last) < 0.5 * sum(first)


@pytest.mark.parametrize("cached", [True, False])
def test_frozen_stays_frozen_with_its_buffers(table: Path, tmp_path: Path, cached: bool) -> None:
    batchnorm = {"kind": "timm", "name": "test_efficientnet", "pretrained": False, "image_size": 32}
    made = recipe(table, tmp_path / "run", H, loop={"cache_features": cached}, model={"image": batchnorm})
    torch.manual_seed(made.seed)
    fresh, trained = snapshot(build(made.model)), snapshot(train(made).model())
    assert any("running_mean" in name for name in fresh.buffers)
    moved = {name for name, digest in fresh.parameters.items() if trained.parameters[name] != digest}
    assert {name.partition(".")[0] for name in moved} == {"image_head", "text_head", "log_scale"}
    assert fresh.buffers == trained.buffers


def test_parts_of_parts_train_alone(table: Path, tmp_path: Path) -> None:
    made = recipe(table, tmp_path / "run", {"name": "up", "trainable": ("image_head.up", "text.blocks.0"), "steps": 3})
    torch.manual_seed(made.seed)
    fresh, trained = snapshot(build(made.model)), snapshot(train(made).model())
    moved = {name for name, digest in fresh.parameters.items() if trained.parameters[name] != digest}
    assert moved and all(name.startswith(("image_head.up.", "text.blocks.0.")) for name in moved)


def test_a_part_that_does_not_move_is_an_error(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = DualEncoder.encode

    def half(self: DualEncoder, *args: Any, **kwargs: Any) -> Encoded:
        encoded = encode(self, *args, **kwargs)
        return encoded._replace(text_BE=encoded.text_BE.detach())

    monkeypatch.setattr(DualEncoder, "encode", half)
    with pytest.raises(VlkitError) as error:
        train(recipe(table, tmp_path / "run"))
    assert str(error.value) == (
        "text_head should have trained and did not move (is it in the loss, and its learning rate above 0?)"
    )
    assert not (tmp_path / "run" / "model").exists()


def test_a_frozen_part_that_moves_is_an_error(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = steps.Steps._step

    def leaking(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.trainee.model.image.norm.bias.data += 1e-3
        return step(self, *args, **kwargs)

    monkeypatch.setattr(steps.Steps, "_step", leaking)
    with pytest.raises(VlkitError, match=r"^image\.norm\.bias moved and should not have \(only image_head, text_head"):
        train(recipe(table, tmp_path / "run"))


@pytest.mark.parametrize("cached", [True, False])
def test_what_is_kept_back_is_never_in_a_batch(
    table: Path, tmp_path: Path, batches: list[PairBatch], cached: bool
) -> None:
    rows = read_rows(table)
    for number, split in enumerate(["test", "test-variant", "validation"]):
        for row in rows[4 * number : 4 * number + 4]:
            row["split"] = split
    write_rows(table, rows)
    stages = ({**H, "steps": 25},)
    made = recipe(
        table, tmp_path / "run", *stages, data={"holdout_concepts": 2}, loop={"batch_size": 4, "cache_features": cached}
    )
    train(made)
    validation = open_sources(made.data, split=VALIDATION)
    held_out = {validation.meta(index).concept for index in range(len(validation))} - {
        row["concept"] for row in rows[:12]
    }
    assert len(held_out) == 2
    seen = {concept for batch in batches for concept in batch.concepts}
    assert len(batches) == 25
    assert seen == {row["concept"] for row in rows[12:]} - held_out


@pytest.mark.parametrize("cached", [True, False])
def test_unreadable_images_below_the_cap_are_left_out_and_above_it_end_the_run(
    table: Path, tmp_path: Path, batches: list[PairBatch], caplog: pytest.LogCaptureFixture, cached: bool
) -> None:
    (tmp_path / "data" / "5.png").write_bytes(b"no picture")
    rows = read_rows(table)
    rows[5]["concept"] = "broken"
    write_rows(table, rows)
    stages, loop_ = ({**H, "steps": 12},), {"cache_features": cached}
    with caplog.at_level(logging.WARNING):
        train(recipe(table, tmp_path / "run", *stages, loop=loop_, data={"max_bad_share": 0.05}))
    assert [
        message for message in caplog.messages if message.startswith("bad sample skipped: 5.png: cannot read image")
    ]
    assert "broken" not in {concept for batch in batches for concept in batch.concepts}
    assert all(len(set(batch.concepts)) == len(batch.concepts) == 6 for batch in batches)
    with pytest.raises(
        DataError, match=r"^1 of 24 samples cannot be read, more than data\.max_bad_share = 0\.01 allows"
    ):
        train(recipe(table, tmp_path / "other", *stages, loop=loop_))


def test_a_batch_larger_than_the_data_is_an_error(table: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^loop\.batch_size = 25, but there are only 24 images .*use loop\.batch_size=24"
    ):
        train(recipe(table, tmp_path / "run", loop={"batch_size": 25}))
    short = {"batch_size": 24}
    with pytest.raises(DataError, match=r"there are only 19 images with a caption in the chosen languages"):
        train(recipe(table, tmp_path / "other", loop=short, data={"languages": ["fr"]}))


def test_the_loss_has_to_be_finite(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = WeightedSum.__call__
    steps = iter([1.0, 1.0, float("nan")])

    def breaking(self: WeightedSum, model: Any, batch: PairBatch) -> Loss:
        loss = call(self, model, batch)
        return Loss(loss.total * next(steps), loss.parts)

    monkeypatch.setattr(WeightedSum, "__call__", breaking)
    with pytest.raises(VlkitError) as error:
        train(recipe(table, tmp_path / "run", loop={"checkpoint_every": 1, "max_skipped_steps": 0}))
    assert str(error.value).startswith("the loss of step 3 is nan (contrastive ")
    assert str(error.value).endswith(
        "; start again with --overwrite and a lower optim.lr (now 0.003), more optim.warmup_steps or a lower "
        "optim.clip_norm"
    )
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-1", "step-2"]


def test_the_gradient_has_to_be_finite(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = WeightedSum.__call__

    def breaking(self: WeightedSum, model: Any, batch: PairBatch) -> Loss:
        loss = call(self, model, batch)
        return Loss(loss.total + (model.log_scale * 0).sqrt(), loss.parts)  # 0, with an infinite slope

    monkeypatch.setattr(WeightedSum, "__call__", breaking)
    with pytest.raises(VlkitError, match=r"^the gradient of step 1 has length nan; start again with --overwrite"):
        train(recipe(table, tmp_path / "run", loop={"max_skipped_steps": 0}))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_step_that_is_not_finite_is_skipped_and_counted(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    call, step = WeightedSum.__call__, steps.Steps._step
    bad, states = {3, 4, 6}, []

    def breaking(self: WeightedSum, model: Any, batch: PairBatch) -> Loss:
        loss = call(self, model, batch)
        return Loss(loss.total * float("inf" if len(states) + 1 in bad else 1), loss.parts)

    def watched(self: steps.Steps, *args: Any) -> Any:
        agreed = step(self, *args)
        states.append(snapshot(self.trainee.model).parameters)
        return agreed

    monkeypatch.setattr(WeightedSum, "__call__", breaking)
    monkeypatch.setattr(steps.Steps, "_step", watched)
    run = train(recipe(table, tmp_path / "run", H, loop={"max_skipped_steps": 2}))
    assert {number for number in range(2, 9) if states[number - 1] == states[number - 2]} == bad
    assert [line["skipped_steps"] for line in run.metrics()] == [0, 0, 1, 2, 2, 3, 3, 3]
    assert [line["loss"] is None for line in run.metrics()] == [number in bad for number in range(1, 9)]
    assert "the loss of step 3 is inf" in caplog.text and "the step is skipped (3 so far)" in caplog.text
    bad.add(5)
    states.clear()
    with pytest.raises(VlkitError, match=r"^the loss of step 5 is inf"):
        train(recipe(table, tmp_path / "other", H, loop={"max_skipped_steps": 2}))


WARM = {"model": {"image_head": {"center": True}, "text_head": {"center": True}}}


def test_a_warm_start_begins_far_ahead(table: Path, tmp_path: Path) -> None:
    cold = train(recipe(table, tmp_path / "cold", H, **WARM))
    warm = train(recipe(table, tmp_path / "warm", {**H, "warm_start": {}}, **WARM))
    assert losses(warm)[0] < 0.8 * losses(cold)[0]


def test_means_are_those_of_the_training_data(table: Path, tmp_path: Path) -> None:
    made = recipe(table, tmp_path / "run", **WARM)
    model = train(made).model()
    source = open_sources(made.data)
    with torch.no_grad():
        features = model.image(torch.stack([model.transform(source[index].image()) for index in range(len(source))]))
    torch.testing.assert_close(model.image_head.mean_D, features.mean(0), atol=1e-5, rtol=1e-4)
    assert model.text_head.mean_D.any()


@pytest.mark.parametrize(
    ("stage", "more", "message"),
    [
        (
            T,
            WARM,
            r"^model\.image_head\.center = true needs cached features of a frozen image encoder in the first stage;",
        ),
        (TEXT, WARM, r"^model\.text_head\.center = true needs cached features of a frozen text encoder"),
        ({**T, "warm_start": {}}, {}, r"^a warm start needs both encoders frozen with loop\.cache_features = true"),
        (
            H,
            {"model": {"image_head": {"kind": "prototype", "hidden": 8, "known_dim": 4, "num_classes": 6}}},
            r"^model\.image_head is a prototype head, which gets its classes from a warm start; set warm_start: \{\}",
        ),
    ],
)
def test_starts_that_cannot_be(
    table: Path, tmp_path: Path, stage: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    made = recipe(table, tmp_path / "run", stage, **more)
    if "image_head" in more.get("model", {}) and "kind" in more["model"]["image_head"]:
        made = prototypes(table, tmp_path / "run", stage)
    with pytest.raises(VlkitError, match=message):
        train(made)


def prototypes(table: Path, folder: Path, *stages: dict[str, Any], **more: Any) -> Recipe:
    """A recipe whose image head knows the classes of the encoder's classifier."""
    plain = recipe(table, folder, *stages, **more).model_dump()
    plain["model"]["image_head"] = {"kind": "prototype", "hidden": 8, "known_dim": 4, "num_classes": 6, "dropout": 0.3}
    return Recipe.model_validate(plain)


def class_rows() -> ClassRows:
    draw = torch.Generator().manual_seed(0)
    names = tuple((f"class {row}", f"kind {row}") for row in range(6))
    return ClassRows(torch.randn(6, 16, generator=draw), torch.randn(6, generator=draw), names)


def test_a_prototype_head_starts_with_the_classes_and_resumes_exactly(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = TinyImageEncoder.__init__

    def knowing(self: TinyImageEncoder, *args: Any, **options: Any) -> None:
        plain(self, *args, **options)
        self.class_rows = class_rows  # of the object: isinstance() with a protocol remembers what it found of a class

    monkeypatch.setattr(TinyImageEncoder, "__init__", knowing)
    both = ({"kind": "contrastive"}, {"kind": "class_prototypes", "names_per_step": 4})
    parts = ("image_head.up", "image_head.down", "text_head.up", "text_head.down", "scale")
    stages = ({**H, "trainable": parts, "warm_start": {}}, {**H, "steps": 4}, {**TEXT, "steps": 2})
    runs = [
        train(prototypes(table, tmp_path / name, *stages, objectives=both, loop={"checkpoint_every": 3}))
        for name in "ab"
    ]
    for part in (*(runs[1].checkpoints).glob("*"), runs[1].model_path):
        assert part.exists()
    head = runs[0].model().image_head
    rows = class_rows()
    torch.testing.assert_close(head.weight_KD, rows.weight_KD - rows.weight_KD.mean(0))
    assert all("class_acc1" in line for line in runs[0].metrics())
    # b again from where its first stage was in the middle
    made = prototypes(table, tmp_path / "c", *stages, objectives=both, loop={"checkpoint_every": 3})
    with monkeypatch.context() as patch:
        save = steps.Steps._checkpoint

        def stopping(self: Any, *args: Any) -> None:
            save(self, *args)
            raise RuntimeError("stopped by the test")

        patch.setattr(steps.Steps, "_checkpoint", stopping)
        for resume in (False, True, True, True):  # a stop at every checkpoint
            with pytest.raises(RuntimeError, match="stopped by the test"):
                train(made, resume=resume)
    assert figures(train(made, resume=True)) == figures(runs[0]) == figures(runs[1])


def test_a_warm_prototype_head_needs_its_objective(table: Path, tmp_path: Path) -> None:
    with pytest.raises(VlkitError, match=r"^a prototype head learns from the objective class_prototypes; add it"):
        train(prototypes(table, tmp_path / "run", {**H, "warm_start": {}}))


def big_parts(folder: Path) -> dict[str, Any]:
    """Encoders of timm and transformers, which can save activations."""
    return {
        "image": {"kind": "timm", "name": "test_vit", "pretrained": False, "image_size": 32},
        "text": {"kind": "hf", "name": str(encoder_factory.bert(folder))},
    }


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_saving_activations_changes_nothing(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro_batch: int | None
) -> None:
    parts, runs, calls = big_parts(tmp_path / "bert"), [], []
    count = [0]
    linear = torch.nn.Linear.forward

    def counting(self: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        return linear(self, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", counting)
    for on in (False, True):
        loop = {"grad_checkpointing": on, "micro_batch": micro_batch}
        count[0] = 0
        runs.append(train(recipe(table, tmp_path / f"{on}", {**T, "steps": 3}, loop=loop, model=parts)))
        calls.append(count[0])
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-5)
    assert calls[1] > 1.3 * calls[0]  # blocks ran again in the backward pass


def test_encoders_that_cannot_save_activations_are_named(table: Path, tmp_path: Path) -> None:
    with pytest.raises(VlkitError, match=r"^loop\.grad_checkpointing: text \(TinyTextEncoder\) cannot do"):
        train(recipe(table, tmp_path / "run", TEXT, loop={"grad_checkpointing": True}))
    train(recipe(table, tmp_path / "heads", H, loop={"grad_checkpointing": True}))


def test_compiled_code_changes_nothing(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plainly, compiled = torch.nn.Module.compile, []

    def quickly(self: torch.nn.Module) -> None:
        compiled.append(type(self).__name__)
        plainly(self, backend="aot_eager")  # traced as ever, without a minute of C++

    monkeypatch.setattr(torch.nn.Module, "compile", quickly)
    stages = ({**T, "steps": 3}, {**T, "steps": 1})
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    runs = [
        train(recipe(table, tmp_path / f"{on}", *stages, loop={"compile": on, "batch_size": 4})) for on in (False, True)
    ]
    assert compiled == 4 * ["_Block"] and torch._dynamo.utils.counters["stats"]["unique_graphs"] > graphs
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-4)


def test_bf16_stays_close(table: Path, tmp_path: Path) -> None:
    runs = [
        train(recipe(table, tmp_path / precision, T, loop={"precision": precision, "micro_batch": 4}))
        for precision in ("fp32", "bf16")
    ]
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=3e-2)
    assert losses(runs[0]) != losses(runs[1])
