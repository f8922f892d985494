"""One stream of texts over all languages: each encoded once, kept on disk, whatever the windows and the kills."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import vlkit.evaluation.embed.texts as texts_module
from tests.helpers.evaluate_fakes import CountingModel, picture
from tests.helpers.ranks import on_ranks
from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.evaluation.embed.encoding import Encoding, EncodingCounts
from vlkit.evaluation.embed.texts import ClassTexts, class_embeddings, embed_texts, stream_class_embeddings
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask
from vlkit.models.feature_store import FeatureStore, key_of
from vlkit.types import Sample, TextBatch


class Unmarked(CountingModel):
    marks_language = False


NAMES = {
    "en": [("crane",), ("radio", "wireless"), ("tench",)],
    "de": [("Kran",), ("radio", "Funk"), ("Schleie",)],
    "sw": [("winchi",), ("radio",), ("samaki",)],
}
WANTED = [ClassTexts(tag, names, ("{}", "a {}!", "{}")) for tag, names in NAMES.items()]


def _all(model: CountingModel, wanted: Sequence[ClassTexts] = WANTED, **how: object) -> list[Tensor]:
    return list(stream_class_embeddings(model, wanted, encoding=Encoding(**how)))


def test_the_stream_gives_what_each_language_gives_alone() -> None:
    for found, one in zip(_all(Unmarked()), WANTED, strict=True):
        alone = class_embeddings(CountingModel(), one.names, language=one.language, templates=one.templates)
        assert torch.allclose(found, alone, atol=1e-6)


def test_a_name_of_several_languages_is_encoded_once_where_tokens_do_not_depend_on_the_language() -> None:
    model, work = Unmarked(), EncodingCounts()
    _all(model, counts=work)
    names = {name for classes in NAMES.values() for one in classes for name in one}
    assert sorted(model.texts_seen) == sorted({*names, *(f"a {name}!" for name in names)})
    assert (work.texts, work.texts_asked) == (len(model.texts_seen), 3 * (4 + 4 + 3))
    assert set(model.languages_seen) == {None}
    marked = CountingModel()  # says nothing of itself: the language may matter
    _all(marked)
    assert marked.texts_seen.count("radio") == 3 and set(marked.languages_seen) == set(NAMES)


def test_no_batch_mixes_languages_where_tokens_depend_on_them() -> None:
    class Strict(CountingModel):
        def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
            known = {name for one in NAMES[language or ""] for name in one}
            if not {text.removeprefix("a ").removesuffix("!") for text in texts} <= known:
                raise AssertionError(f"{texts} are not all {language}")
            return super().tokenize(texts, language=language)

    _all(Strict(), text_batch_size=3)


@pytest.mark.parametrize("window", [1, 7, 10**6])
def test_windows_do_not_matter(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_module, "_WINDOW", window)
    monkeypatch.setattr(texts_module, "_ROWS", 2)
    for found, one in zip(_all(CountingModel()), WANTED, strict=True):
        alone = class_embeddings(CountingModel(), one.names, language=one.language, templates=one.templates)
        assert torch.allclose(found, alone, atol=1e-6)


def test_few_texts_are_held_at_once_whatever_the_number_of_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_module, "_WINDOW", 20)
    model, most = Unmarked(), 0
    stream = stream_class_embeddings(
        model, (ClassTexts("en", [(f"name {n} {k}",) for k in range(6)]) for n in range(9))
    )
    for number, _ in enumerate(stream, 1):
        most = max(most, len(model.texts_seen) - 6 * number)
    assert most <= 18


def test_what_is_kept_is_not_encoded_again(tmp_path: Path) -> None:
    cold, warm = EncodingCounts(), EncodingCounts()
    first = _all(Unmarked(), cache=tmp_path, counts=cold)
    again = _all(Unmarked(), cache=tmp_path, counts=warm)
    assert (cold.texts, warm.texts) == (18, 0)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    more = [one._replace(templates=("{}", "the {}")) for one in WANTED]
    _all(Unmarked(), more, cache=tmp_path, counts=warm)
    assert warm.texts == 9  # the bare names are known


def test_another_model_or_tokenizer_finds_nothing(tmp_path: Path) -> None:
    class Louder(Unmarked):
        def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
            return super().tokenize([text.upper() for text in texts], language=language)

    _all(Unmarked(), cache=tmp_path)
    for model in (Unmarked(seed=1), Louder()):
        kept = _all(model, cache=tmp_path)
        assert all(torch.equal(one, two) for one, two in zip(kept, _all(model), strict=True))


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "empty"])
def test_damaged_files_are_encoded_again_and_mended(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = _all(Unmarked(), cache=tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    raw = path.read_bytes()
    {
        "cut": lambda: path.write_bytes(raw[:-4]),
        "flip": lambda: path.write_bytes(raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:]),
        "gone": path.unlink,
        "empty": lambda: path.write_bytes(b""),
    }[damage]()
    with caplog.at_level(logging.WARNING):
        again = _all(Unmarked(), cache=tmp_path)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert ("are damaged" in caplog.text) == (damage != "gone")
    assert path.read_bytes() == raw


def test_a_damaged_file_does_not_hide_what_is_encoded_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _all(Unmarked(), cache=tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9] + b"!" + path.read_bytes()[-8:])
    monkeypatch.setattr(texts_module, "_FILE", 4)  # other files than before, under other names
    for expected in (18, 0):
        work = EncodingCounts()
        _all(Unmarked(), text_batch_size=2, cache=tmp_path, counts=work)
        assert work.texts == expected


def _half_blind(folder: str) -> list[np.ndarray]:
    ranks = Ranks.world()
    find = FeatureStore.find
    if ranks.rank == 1:  # as where this process does not see the disk
        FeatureStore.find = lambda self, keys: np.full(len(keys), -1, dtype=np.int64)
    try:
        return [class_KE.numpy() for class_KE in _all(Unmarked(), text_batch_size=2, cache=Path(folder), ranks=ranks)]
    finally:
        FeatureStore.find = find


def test_what_one_process_cannot_read_is_encoded_by_all(tmp_path: Path) -> None:
    whole = _all(Unmarked(), text_batch_size=2, cache=tmp_path)
    for found in on_ranks(2, _half_blind, str(tmp_path)):
        assert all(np.array_equal(one, two.numpy()) for one, two in zip(found, whole, strict=True))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_a_stopped_stream_goes_on_where_it_was_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stops(Unmarked):
        calls = 0

        def encode_text(self, tokens: TextBatch) -> Tensor:
            self.calls += 1
            if self.calls == 4:
                raise KeyboardInterrupt
            return super().encode_text(tokens)

    monkeypatch.setattr(texts_module, "_FILE", 4)
    whole = _all(Unmarked(), text_batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        _all(Stops(), text_batch_size=2, cache=tmp_path)
    work = EncodingCounts()
    rest = _all(Unmarked(), text_batch_size=2, cache=tmp_path, counts=work)
    assert work.texts == 2 * 9 - 4  # the two batches that were written
    assert all(torch.equal(one, two) for one, two in zip(whole, rest, strict=True))


def test_keys_tell_languages_and_texts_apart() -> None:
    keys = [key_of(*pair) for pair in (("", "a"), ("a", ""), ("de", "a"), ("", "dea"), ("", "b"))]
    assert len(set(keys)) == 5
    assert keys[0] == key_of("", "a")


def test_a_class_without_a_name_and_counts_below_one_are_refused() -> None:
    with pytest.raises(VlkitError, match="class 1 has no name or no template"):
        _all(Unmarked(), [ClassTexts("en", [("a",), ()])])
    with pytest.raises(VlkitError, match="class 0 has no name or no template"):
        _all(Unmarked(), [ClassTexts("en", [("a",)], ())])
    with pytest.raises(VlkitError, match="workers = 0: must be at least 1"):
        Encoding(workers=0)
    with pytest.raises(VlkitError, match="text_batch_size = 0: must be at least 1"):
        embed_texts(Unmarked(), ["a"], encoding=Encoding(text_batch_size=0))


class Marks(CountingModel):
    """Knows marks of two languages, as NLLB's tokenizer knows some."""

    marks_language = True

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        if language not in ("en", "de"):
            raise VlkitError(f"the tokenizer has no language token for {language!r}")
        return super().tokenize([f"{language} {text}" for text in texts])


def _task(**changes: object) -> ZeroShotTask:
    samples = [Sample(str(n), (lambda n=n: picture(n),), {}, split="test") for n in range(3)]
    return ZeroShotTask("t", samples, NAMES, **changes)


def test_languages_without_a_mark_are_told_all_at_once_before_an_image_is_encoded() -> None:
    model = Marks()
    with pytest.raises(VlkitError, match=r"no mark for 1 of the languages: sw; .* tokenizer_languages=\{sw: en\}"):
        evaluate_task(model, _task())
    assert model.images_seen == 0


def test_another_mark_can_stand_for_a_language() -> None:
    model = Marks()
    rows = evaluate_task(model, _task(tokenizer_languages={"sw": "en"}))
    assert [row.language for row in rows] == ["en", "de", "sw"]
    assert "en samaki" in model.texts_seen and not any(text.startswith("sw ") for text in model.texts_seen)
    assert _task().digest != _task(tokenizer_languages={"sw": "en"}).digest
