"""One pass over the images whatever is asked: cached, damaged, interrupted, shared between processes."""

from __future__ import annotations

import io
import math
import os
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vlkit.evaluation.tasks.scorer as scorer
from tests.helpers.evaluate_fakes import BrokenModel, CountingModel, OracleModel, picture, plain, sample
from tests.helpers.ranks import RankError, on_ranks
from vlkit.data.formats.archives import list_members
from vlkit.data.formats.images import LazyImage
from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.evaluation.embed.encode import embed_images
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.identity import _PROBES
from vlkit.evaluation.embed.image_features import image_features
from vlkit.evaluation.embed.texts import class_embeddings
from vlkit.evaluation.tasks.engine import score_task
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask
from vlkit.types import Sample, TextBatch

COUNT = 23


def _picture(number: int) -> Sample:
    return Sample(key=f"key-{number}", images=(lambda: picture(number),), captions={}, split="test")


def _task(**changes: Any) -> ZeroShotTask:
    samples = [_picture(n) for n in range(COUNT)]
    rng = np.random.default_rng(0)
    words = {tag: [f"{tag} {x}" for x in rng.integers(10**6, size=8)] for tag in ("en", "de", "sw")}
    names: dict[str, list[tuple[str, ...] | None]] = {tag: [(word,) for word in words[tag]] for tag in words}
    names["sw"][2] = names["sw"][5] = None
    names["de"][1] = names["de"][6] = ("Kran", "Kranich")
    targets = [*range(8), *rng.integers(8, size=COUNT - 8).tolist()]
    return ZeroShotTask(**({"name": "t", "samples": samples, "names": names, "targets": targets} | changes))


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(a == b or (a != a and b != b) for a, b in zip(one.values(), other.values(), strict=True))


def test_ranks_agree_with_sorting_all_scores() -> None:
    model, task = CountingModel(), _task()
    image_NE = embed_images(model, [s.image() for s in task.samples])
    for tag, scores in score_task(model, task).languages.items():
        ids, names = task.classes(tag)
        class_KE = class_embeddings(model, names, language=tag)
        rows = [n for n, target in enumerate(task.targets) if target in ids]
        assert scores.images_N.tolist() == rows
        for place, n in enumerate(rows):
            cosines = (image_NE[n].double() @ class_KE.double().T).float().tolist()
            order = sorted(range(len(ids)), key=lambda k: (-round(cosines[k], 6), k))
            own = ids.index(task.targets[n])
            assert scores.rank_N[place] == order.index(own) + 1
            strangers = [k for k in order if k == own or names[k] != names[own]]
            assert scores.tolerant_N[place] == strangers.index(own) + 1
            assert scores.best_NM[place].tolist() == order[:5]
    row = evaluate_task(model, task)[1]
    assert row["acc1_tolerant"] >= row["acc1"] and row["n_ambiguous"] == 2


def test_two_classes_of_one_name_are_half_right_or_wholly() -> None:
    names = {"en": [("crane",), ("crane",)]}
    task = ZeroShotTask("cranes", [sample(7) for _ in range(10)], names, targets=[0, 1] * 5)
    row = evaluate_task(OracleModel({"crane": 7}), task)[0]
    assert (row["acc1"], row["acc1_tolerant"], row["n_ambiguous"], row["n_tied"]) == (0.5, 1.0, 2, 0)


def test_strangers_of_equal_score_are_counted() -> None:
    task = ZeroShotTask("t", [sample(7), sample(7)], {"en": [("crane",), ("heron",)]}, targets=[0, 1])
    row = evaluate_task(OracleModel({"crane": 7, "heron": 7}), task)[0]
    assert (row["acc1"], row["acc1_tolerant"], row["n_tied"]) == (0.5, 0.5, 2)


def test_each_language_is_compared_with_english_on_its_own_classes() -> None:
    model, task = CountingModel(), _task()
    rows = {row.language: row for row in evaluate_task(model, task)}
    kept = [n for n in range(8) if task.names["sw"][n]]
    alone = {"en": [task.names["en"][n] if n in kept else None for n in range(8)]}
    found, expected = score_task(model, task).languages["sw"], score_task(model, _task(names=alone)).languages["en"]
    assert torch.equal(found.english_N, expected.rank_N) and found.images_N.tolist() == expected.images_N.tolist()
    assert rows["sw"]["acc1_en_subset"] == (expected.rank_N == 1).double().mean()
    assert rows["en"]["acc1_en_subset"] == rows["en"]["acc1"]
    assert math.isnan(evaluate_task(model, task, languages=["sw"])[0]["acc1_en_subset"])  # English was not asked for
    less = {"en": [None, *task.names["en"][1:]], "de": task.names["de"]}
    assert math.isnan(evaluate_task(model, _task(names=less))[1]["acc1_en_subset"])  # nor has it all the classes


def test_recall_by_class_and_mean_reciprocal_rank() -> None:
    model, task = CountingModel(), _task()
    scores = score_task(model, task).languages["en"]
    row = scores.values(task)
    by_class = {k: np.mean([scores.rank_N[n] == 1 for n in range(COUNT) if task.targets[n] == k]) for k in range(8)}
    assert scores.class_accuracy() == pytest.approx(by_class)
    assert row["mean_per_class_recall"] == pytest.approx(np.mean(list(by_class.values())))
    assert row["mean_reciprocal_rank"] == pytest.approx(float((1 / scores.rank_N.double()).mean()))


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate_task(CountingModel(), _task())
    monkeypatch.setattr(scorer, "_CHUNK", 4)
    for one, other in zip(whole, evaluate_task(CountingModel(), _task()), strict=True):
        assert _same(one.flat(), other.flat())


def test_templates_by_language_and_the_bare_name_for_the_others() -> None:
    model = CountingModel()
    task = _task(templates={"de": ("ein {}", "{}!", "{}!")})
    evaluate_task(model, task, languages=["de", "sw"])
    assert task.prompt == "translated"
    german, swahili = (
        [text for text in model.texts_seen if text.removeprefix("ein ").startswith(tag)] for tag in ("de", "sw")
    )
    assert len(german) == 2 * 6 and all(text[-1] == "!" or text.startswith("ein ") for text in german)
    assert len(model.texts_seen) == len(set(model.texts_seen)) == 2 * 8 + 6  # Kran, Kranich once; sw bare
    assert len(swahili) == 6


def test_a_warm_cache_means_no_image_is_encoded(tmp_path: Path) -> None:
    cold, warm = CountingModel(), CountingModel()
    rows = [evaluate_task(model, _task(), encoding=Encoding(cache=tmp_path, batch_size=5)) for model in (cold, warm)]
    assert (cold.images_seen, warm.images_seen) == (COUNT, 0)
    assert all(_same(one.flat(), other.flat()) for one, other in zip(*rows, strict=True))


class _Flipped(CountingModel):
    def transform(self, image: Image.Image) -> torch.Tensor:
        return super().transform(image).flip(2)


class _Coarse(CountingModel):
    """Differs from its base on large images alone."""

    def transform(self, image: Image.Image) -> torch.Tensor:
        return super().transform(image.resize((16, 16), Image.Resampling.NEAREST) if image.width > 500 else image)


class _Knows(OracleModel):
    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        return super().tokenize([text if text in self.colors else "one" for text in texts])


@pytest.mark.parametrize(
    ("what", "again"),
    [("weights", COUNT), ("transform", COUNT), ("antialias", COUNT), ("pixels", 1), ("keys", 0), ("order", 0)],
)
def test_a_change_of_model_or_images_misses_the_cache(tmp_path: Path, what: str, again: int) -> None:
    evaluate_task(CountingModel(), _task(), encoding=Encoding(cache=tmp_path))
    models = {"weights": CountingModel(seed=1), "transform": _Flipped(), "antialias": _Coarse()}
    model = models.get(what, CountingModel())
    samples = list(_task().samples)
    if what == "keys":
        samples[3] = replace(samples[3], key="another")
    if what == "pixels":
        samples[4] = replace(samples[4], images=(lambda: picture(99),))
    if what == "order":
        samples.reverse()
    with image_features(model, samples, encoding=Encoding(cache=tmp_path)) as features:
        found = features[torch.arange(COUNT)]
    assert model.images_seen == again
    with image_features(model, samples) as features:
        torch.testing.assert_close(found, features[torch.arange(COUNT)])


def _stored(form: str, folder: Path, numbers: list[int]) -> list[Sample]:
    """Pictures of these numbers under names that do not tell, all of one size and time."""
    folder.mkdir(exist_ok=True)
    members = {}
    for place, number in enumerate(numbers):
        stream = io.BytesIO()
        plain(number).save(stream, format="BMP")
        members[f"{place}.bmp"] = stream.getvalue()
    if form == "folder":
        paths = [folder / name for name in members]
        for path in paths:
            path.write_bytes(members[path.name])
        images: list[Any] = [LazyImage(path, path.name) for path in paths]
    elif form == "tar":
        paths = [folder / "images.tar"]
        with tarfile.open(paths[0], "w") as tar:
            for name, raw in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(raw)
                tar.addfile(info, io.BytesIO(raw))
        images = [member.image() for member in list_members(paths[0])]
    else:
        paths = [folder / "images.zip"]
        with zipfile.ZipFile(paths[0], "w", zipfile.ZIP_DEFLATED) as archive:
            for name, raw in members.items():
                archive.writestr(zipfile.ZipInfo(name), raw, zipfile.ZIP_DEFLATED)
        images = [member.image() for member in list_members(paths[0])]
    for path in paths:
        os.utime(path, (1e9, 1e9))
    return [Sample(f"{place}.bmp", (image,), {}) for place, image in enumerate(images)]


@pytest.mark.parametrize("form", ["folder", "tar", "zip"])
def test_an_image_that_was_replaced_under_its_old_name_is_encoded_again(tmp_path: Path, form: str) -> None:
    names: dict[str, Any] = {"en": [("one",), ("two",), ("three",), ("four",)]}
    model = _Knows({"one": 1, "two": 2, "three": 3, "four": 4})

    def accuracy(numbers: list[int]) -> float:
        task = ZeroShotTask("t", _stored(form, tmp_path / "data", numbers), names)
        cache = Encoding(cache=tmp_path / "cache")
        return evaluate_task(model, task, resume=tmp_path / "rows", encoding=cache)[0]["acc1"]

    assert accuracy([1, 2, 3, 4]) == 1
    assert accuracy([1, 3, 2, 4]) == 0.5  # neither the embeddings nor the row are those of before
    assert accuracy([1, 2, 3, 4]) == 1


def test_images_in_other_places_and_forms_are_the_same_images(tmp_path: Path) -> None:
    for form, expected in (("folder", 6), ("tar", 0), ("zip", 0)):
        model = CountingModel()
        samples = _stored(form, tmp_path / form, [5, 6, 7, 8, 9, 10, 5])
        with image_features(model, samples, encoding=Encoding(cache=tmp_path / "cache")) as features:
            rows = features[torch.arange(7)]
        assert model.images_seen == expected
        assert torch.equal(rows[0], rows[6]) and not torch.equal(rows[0], rows[1])


@pytest.mark.parametrize(("damage", "again"), [("cut", 3), ("flip", 5), ("header", COUNT), ("gone", COUNT)])
def test_what_was_damaged_is_encoded_again_and_nothing_else(tmp_path: Path, damage: str, again: int) -> None:
    encoding = Encoding(cache=tmp_path, batch_size=5)
    with image_features(CountingModel(), _task().samples, encoding=encoding) as features:
        whole = features[torch.arange(COUNT)]
    (path,) = tmp_path.rglob("*.safetensors")
    raw = path.read_bytes()
    {
        "cut": lambda: path.write_bytes(raw[:-4]),  # in the last batch, of three
        "flip": lambda: path.write_bytes(raw[:-700] + bytes([raw[-700] ^ 1]) + raw[-699:]),
        "header": lambda: path.write_bytes(raw[:9] + b"{" + raw[10:]),
        "gone": path.unlink,
    }[damage]()
    for expected in (again, 0):
        model = CountingModel()
        with image_features(model, _task().samples, encoding=encoding) as features:
            assert torch.equal(features[torch.arange(COUNT)], whole)
        assert model.images_seen == expected


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    looked = []

    def stop() -> Image.Image:
        if looked:
            raise KeyboardInterrupt
        looked.append(True)  # the look at what it holds comes before
        return picture(12)

    samples = list(_task().samples)
    task = _task(samples=[*samples[:12], replace(samples[12], images=(stop,)), *samples[13:]])
    with pytest.raises(KeyboardInterrupt):
        evaluate_task(CountingModel(), task, encoding=Encoding(cache=tmp_path, batch_size=5))
    model = CountingModel()
    evaluate_task(model, _task(), encoding=Encoding(cache=tmp_path, batch_size=5))
    assert model.images_seen == COUNT - 10  # two batches of five were done


def test_languages_that_are_done_are_not_scored_again(tmp_path: Path) -> None:
    first = CountingModel()
    german = evaluate_task(first, _task(), languages=["en", "de"], resume=tmp_path)
    model = CountingModel()
    rows = evaluate_task(model, _task(), languages=["en", "de"], resume=tmp_path)
    assert model.images_seen == 0
    assert set(model.texts_seen) == set(_PROBES)  # the tokenizer is looked at
    assert all(_same(one.flat(), other.flat()) for one, other in zip(german, rows, strict=True))
    model.languages_seen.clear()
    evaluate_task(model, _task(), resume=tmp_path)
    assert set(model.languages_seen) == {"en", "sw"}  # German is known; Swahili is compared with English
    for path in tmp_path.glob("*-de.json"):
        path.write_text(path.read_text()[:40])
    evaluate_task(model := CountingModel(), _task(), languages=["en", "de"], resume=tmp_path)
    assert set(model.languages_seen) == {"en", "de"}
    evaluate_task(model := CountingModel(), _task(), languages=["en", "de"], resume=tmp_path, seed=1)
    assert model.images_seen == COUNT  # another seed, another row


def test_features_of_what_is_no_module_cannot_be_kept(tmp_path: Path) -> None:
    class Functions:
        def __init__(self) -> None:
            for name in ("transform", "encode_image", "encode_text", "tokenize"):
                setattr(self, name, getattr(CountingModel().eval(), name))

    assert len(evaluate_task(Functions(), _task())) == 3  # without a cache it is as good as any
    with pytest.raises(VlkitError, match=r"the features of a Functions cannot be kept: .* leave cache out"):
        evaluate_task(Functions(), _task(), encoding=Encoding(cache=tmp_path))


def _shared(folder: str | None, resume: str | None) -> Any:
    scorer._CHUNK = 6
    model, ranks = CountingModel(), Ranks.world()
    encoding = Encoding(batch_size=3, ranks=ranks, cache=folder and Path(folder))
    rows = evaluate_task(model, _task(), resume=resume and Path(resume), encoding=encoding)
    with image_features(model, _task().samples, encoding=Encoding(batch_size=3, ranks=ranks)) as features:
        written = features[torch.arange(COUNT)].numpy().tobytes()
    return [row.flat() for row in rows], written, model.images_seen, len(model.texts_seen)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "_CHUNK", 6)


@pytest.mark.parametrize("size", [2, 4])
def test_one_process_or_several_write_the_same_and_share_the_work(size: int, tmp_path: Path) -> None:
    rows, written, images, _ = _shared(None, None)
    found = on_ranks(size, _shared, str(tmp_path / "cache"), str(tmp_path / "rows"))
    for other, bytes_there, _, _ in found:
        assert bytes_there == written
        assert all(_same(one, two) for one, two in zip(rows, other, strict=True))
    assert sum(seen for _, _, seen, _ in found) == images == 2 * COUNT  # two calls, each image once in each
    assert max(seen for _, _, seen, _ in found) < images
    assert len(list((tmp_path / "rows").iterdir())) == 3


class _FailsOnOne(BrokenModel):
    def encode_image(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        if Ranks.world().rank == 1:
            pixels_BCHW = torch.full_like(pixels_BCHW, -0.5)
        return super().encode_image(pixels_BCHW)


def _fails() -> None:
    evaluate_task(_FailsOnOne(), _task(), encoding=Encoding(batch_size=3, ranks=Ranks.world()))


def test_a_process_that_fails_ends_all_with_its_message() -> None:
    with pytest.raises(RankError, match=r"image key-3 is not finite"):
        on_ranks(2, _fails)


def test_a_broken_image_is_named_with_its_key(tmp_path: Path) -> None:
    task = _task(samples=[*_task().samples[:-1], sample(0)])
    with pytest.raises(VlkitError, match="image key-0 is not finite"):
        evaluate_task(BrokenModel(), task, encoding=Encoding(cache=tmp_path))


def test_equal_scores_keep_the_order_of_classes_in_best_answers_and_ranks() -> None:
    generator = torch.Generator().manual_seed(0)
    score_CK = torch.randint(0, 4, (200, 9), generator=generator).float()  # ties everywhere
    target_C, first_K = torch.randint(0, 9, (200,), generator=generator), torch.tensor([0, 1, 1, 3, 4, 5, 1, 7, 8])
    score_CK[:, 2] = score_CK[:, 6] = score_CK[:, 1]  # namesakes score alike
    order_CK = score_CK.sort(dim=1, descending=True, stable=True).indices
    assert torch.equal(scorer.best_places(score_CK, 5), order_CK[:, :5])
    rank_4C = scorer.ranks_of_right(score_CK, target_C, first_K)
    for row in range(200):
        order, target = order_CK[row].tolist(), int(target_C[row])
        strangers = [k for k in order if k == target or first_K[k] != first_K[target]]
        equal = sum(bool(score_CK[row, k] == score_CK[row, target]) for k in strangers) - 1
        assert rank_4C[:, row].tolist() == [order.index(target) + 1, strangers.index(target) + 1, equal, order[0]]
    distinct_CK = torch.rand(50, 9, generator=generator)
    assert torch.equal(scorer.best_places(distinct_CK, 9), distinct_CK.sort(dim=1, descending=True).indices)
