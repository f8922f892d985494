"""Learning from a teacher: parallel texts alone, and a teacher's similarities of images and texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name

from tests.helpers.ranks import on_ranks
from vlkit.distributed.collectives import Ranks
from vlkit.errors import ShapeError, VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.folder import load, save
from vlkit.models.registry import build
from vlkit.objectives.context import Context
from vlkit.objectives.pairs.distillation import ClipDistillation, TextDistillation
from vlkit.objectives.weighted_sum import build_objective
from vlkit.spec.model import DualEncoderSpec, SavedSpec
from vlkit.spec.objectives import ClipDistillationObjective, ContrastiveObjective, TextDistillationObjective
from vlkit.spec.parts import LinearHeadSpec, TinyImage, TinyText

ENGLISH = ("a dog", "a cat", "", "two birds", "a very long tree", "a fish", "", "an owl")
TARGET = (
    "ein Hund",
    "eine Katze",
    "etwas",
    "zwei Vögel",
    "ein sehr langer Baum",
    "ein Fisch",
    "noch etwas",
    "eine Eule",
)


def make(seed: int = 0, *, embed_dim: int = 12) -> DualEncoder:
    torch.manual_seed(seed)
    image, text = TinyImage(image_size=16, width=16, depth=1), TinyText(width=16, depth=1)
    spec = DualEncoderSpec(
        image=image,
        text=text,
        embed_dim=embed_dim,
        image_head=LinearHeadSpec(),
        text_head=LinearHeadSpec(),
        init_scale=5.0,
    )
    return build(spec).eval()


def batch_of(model: DualEncoder, rows: slice = slice(None), *, pixels: bool = True) -> PairBatch:
    texts, pivots = TARGET[rows], ENGLISH[rows]
    images = torch.randn(len(TARGET), 3, 16, 16, generator=torch.Generator().manual_seed(1))[rows]
    return PairBatch(
        images if pixels else None,
        None,
        model.tokenize(texts),
        None,
        ("de",) * len(texts),
        tuple(f"c{number}" for number in range(len(texts))),
        captions=texts,
        pivots=pivots,
    )


def text_term(model: DualEncoder, teacher: DualEncoder, **fields: Any) -> Any:
    spec = TextDistillationObjective(**fields)
    found = build_objective([spec], model, context=Context())
    found.members[0][1].terms[0][1].teacher = teacher
    return found


@pytest.fixture
def teacher_folder(tmp_path: Path) -> Path:
    return save(make(5), tmp_path / "teacher")


def reference(kind: str, student_BE: torch.Tensor, teacher_BE: torch.Tensor) -> torch.Tensor:
    if kind == "mse":
        return F.mse_loss(student_BE, teacher_BE)
    cosines = F.cosine_similarity(student_BE[:, None], teacher_BE[None], dim=-1)
    if kind == "cosine":
        return (1 - cosines.diagonal()).mean()
    return F.cross_entropy(cosines / 0.1, torch.arange(len(cosines)))


@pytest.mark.parametrize("micro_batch", [None, 3])
@pytest.mark.parametrize("kind", ["mse", "cosine", "contrastive"])
def test_it_is_the_distance_from_the_teachers_english(kind: Any, micro_batch: Any, teacher_folder: Path) -> None:
    model, teacher = make(), load(teacher_folder)
    rows = [row for row, text in enumerate(ENGLISH) if text]  # the others are left out
    student_BE = model.text_head(model.text(model.tokenize([TARGET[row] for row in rows])))
    with torch.no_grad():
        teacher_BE = teacher.text_head(teacher.text(teacher.tokenize([ENGLISH[row] for row in rows])))
    expected = reference(kind, student_BE, teacher_BE)
    expected.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    spec = TextDistillationObjective(teacher=str(teacher_folder), loss=kind, temperature=0.1)
    loss = build_objective([spec], model, micro_batch=micro_batch)(model, batch_of(model, pixels=False))
    torch.testing.assert_close(loss.total, expected)
    assert loss.parts["with_english"].item() == len(rows) / len(TARGET)
    loss.total.backward()
    for name, parameter in model.named_parameters():
        if name in wanted:
            torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-6, rtol=1e-4)
        else:
            assert parameter.grad is None, name


def test_a_text_loss_runs_no_image_encoder(teacher_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    objective = build_objective([TextDistillationObjective(teacher=str(teacher_folder))], model)
    assert objective.needs == {"text"}

    def broken(pixels_BCHW: torch.Tensor) -> torch.Tensor:
        raise AssertionError("an image was encoded")

    with monkeypatch.context() as patch:
        patch.setattr(model.image, "forward", broken)
        objective(model, batch_of(model))
    both = build_objective([TextDistillationObjective(teacher=str(teacher_folder)), ContrastiveObjective()], model)
    assert both.needs == {"image", "text"}
    parts = both(model, batch_of(model)).parts
    assert {"text_distillation", "contrastive"} <= set(parts)


@pytest.mark.parametrize("kind", ["mse", "cosine", "contrastive"])
def test_the_teacher_itself_has_nothing_to_learn(kind: Any, teacher_folder: Path) -> None:
    model = load(teacher_folder)
    batch = replace(batch_of(model), pivots=TARGET)
    spec = TextDistillationObjective(teacher=str(teacher_folder), loss=kind, temperature=1e-3)
    assert build_objective([spec], model)(model, batch).total.item() == pytest.approx(0, abs=1e-5)


def test_null_is_the_model_that_the_run_goes_on_from(teacher_folder: Path) -> None:
    model = build(SavedSpec(path=str(teacher_folder)))
    objective = build_objective([TextDistillationObjective()], model)
    batch = replace(batch_of(model), pivots=TARGET)
    assert objective(model, batch).total.item() == 0
    with torch.no_grad():
        for parameter in model.text_head.parameters():
            parameter.add_(torch.randn_like(parameter))
    moved = objective(model, batch).total.item()
    assert moved > 0.1  # the teacher stayed where it was
    again = build_objective([TextDistillationObjective()], model)(model, batch).total.item()
    assert again == moved  # and is so again when the run is resumed
    with pytest.raises(VlkitError, match="this one starts anew"):
        build_objective([TextDistillationObjective()], make())


def test_a_teacher_is_frozen_and_remembered(teacher_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    seen = []
    for remember in (True, False):
        term = TextDistillation.build(
            TextDistillationObjective(teacher=str(teacher_folder), remember=remember), model, Context()
        )
        assert not any(parameter.requires_grad for parameter in term.teacher.parameters())
        inner = term.teacher.text.encoder if remember else term.teacher.text
        forward, counts = inner.forward, []
        monkeypatch.setattr(
            inner, "forward", lambda tokens, f=forward, c=counts: (c.append(len(tokens.ids_BL)), f(tokens))[1]
        )
        encoded = model.encode(batch_of(model), sides={"text"})
        for _ in range(2):
            term.loss(model, batch_of(model), None, term.per_pair(model, batch_of(model), encoded))
        seen.append(sum(counts))
    assert seen == [6, 12]


def test_what_cannot_be_is_told(teacher_folder: Path) -> None:
    with pytest.raises(ShapeError, match=r"embeds into 12 dimensions, the model into 8; set model.embed_dim to 12"):
        build_objective([TextDistillationObjective(teacher=str(teacher_folder))], make(embed_dim=8))
    model = make()
    objective = build_objective([TextDistillationObjective(teacher=str(teacher_folder))], model)
    with pytest.raises(VlkitError, match="needs the English captions"):
        objective(model, replace(batch_of(model), pivots=()))
    none = objective(model, replace(batch_of(model), pivots=("",) * len(TARGET)))
    none.total.backward()
    assert none.total.item() == 0 and all(p.grad is None or not p.grad.any() for p in model.parameters())
    clip = build_objective([ClipDistillationObjective(teacher=str(teacher_folder))], model)
    with pytest.raises(VlkitError, match=r"set loop\.cache_features to false"):
        clip(model, replace(batch_of(model), pixels_BCHW=None, image_BD=torch.randn(8, 16)))
    with pytest.raises(VlkitError, match="needs the captions"):
        clip(model, replace(batch_of(model), captions=()))
    english = ClipDistillationObjective(teacher=str(teacher_folder), teacher_text="english")
    with pytest.raises(VlkitError, match="needs an English caption of each image"):
        build_objective([english], model)(model, batch_of(model))
    other = build(DualEncoderSpec(image=TinyImage(image_size=32), text=TinyText(), embed_dim=12))
    with pytest.raises(VlkitError, match="both see the same pixels"):
        build_objective([ClipDistillationObjective(teacher=str(teacher_folder))], other)


def clip_reference(model: DualEncoder, teacher: DualEncoder, batch: PairBatch, texts: tuple[str, ...]) -> torch.Tensor:
    with torch.no_grad():
        image_BE, text_BE = teacher.encode_image(batch.pixels_BCHW), teacher.encode_text(teacher.tokenize(texts))
        target_BB = teacher.scale * image_BE @ text_BE.T
    own = model(batch)
    given_BB = own.scale * own.image_BE @ own.text_BE.T
    rows = F.cross_entropy(given_BB, target_BB.softmax(dim=1))
    return (rows + F.cross_entropy(given_BB.T, target_BB.T.softmax(dim=1))) / 2


@pytest.mark.parametrize("teacher_text", ["caption", "english"])
def test_soft_targets_are_the_teachers(teacher_text: Any, teacher_folder: Path) -> None:
    model, teacher = make(), load(teacher_folder)
    batch = replace(batch_of(model), pivots=tuple(text or "thing" for text in ENGLISH))
    spec = ClipDistillationObjective(teacher=str(teacher_folder), teacher_text=teacher_text)
    loss = build_objective([spec], model)(model, batch)
    texts = TARGET if teacher_text == "caption" else batch.pivots
    torch.testing.assert_close(loss.total, clip_reference(model, teacher, batch, texts))


def test_each_caption_is_read_in_its_own_language(teacher_folder: Path) -> None:
    model = make()
    term = build_objective([ClipDistillationObjective(teacher=str(teacher_folder))], model).members[0][1].terms[0][1]
    read = {}
    tokenize = term.teacher.tokenize

    def spy(texts: list[str], *, language: str | None = None) -> Any:
        read[language] = texts
        return tokenize(texts, language=language)

    term.teacher.tokenize = spy
    languages = ("de", "en", "de", "fr", "de", "en", "de", "de")
    mixed = replace(batch_of(model), languages=languages)
    loss = term.loss(model, mixed, model(mixed), {})
    assert read["fr"] == [TARGET[3]] and read["en"] == [TARGET[1], TARGET[5]]
    term.teacher.tokenize = tokenize
    torch.testing.assert_close(loss.total, term.loss(model, batch_of(model), model(mixed), {}).total)


def _on_rank(folder: str, kind: str, cuts: tuple[int, ...]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of this rank's rows and its gradients."""
    model, ranks = make(), Ranks.world()
    mine = slice(cuts[ranks.rank], cuts[ranks.rank + 1])
    spec: Any = ClipDistillationObjective(teacher=folder)
    if kind != "clip":
        spec = TextDistillationObjective(teacher=folder, loss=kind, remember=False)  # type: ignore[arg-type]
    loss = build_objective([spec], model, context=Context(ranks=ranks))(model, batch_of(model, mine))
    loss.total.backward()
    return loss.total.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("kind", ["mse", "cosine", "contrastive", "clip"])
def test_many_processes_are_one(size: int, kind: str, teacher_folder: Path) -> None:
    width = len(TARGET) // size
    whole_loss, whole = _on_rank(str(teacher_folder), kind, (0, len(TARGET)))
    found = on_ranks(size, _on_rank, str(teacher_folder), kind, tuple(range(0, len(TARGET) + 1, width)))
    assert sum(loss for loss, _ in found) / size == pytest.approx(whole_loss, rel=1e-5)
    for name, wanted in whole.items():
        mean = torch.stack([grads[name] for _, grads in found]).mean(dim=0)
        torch.testing.assert_close(mean, wanted, atol=1e-6, rtol=1e-4)


def test_terms_have_names_of_their_own() -> None:
    assert (TextDistillation.name, ClipDistillation.name) == ("text_distillation", "clip_distillation")
