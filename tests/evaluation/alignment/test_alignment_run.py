"""From a model and texts to rows, files, images as the pivot, correlations, and the command."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.evaluation.results.test_results import row as result_row
from tests.helpers import alignment_fakes as fakes
from tests.helpers import encoder_factory as factory
from tests.helpers.evaluate_fakes import BrokenModel, CountingModel, OracleModel, plain
from vlkit.cli.app import app
from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.alignment.hidden_states import from_model, open_text
from vlkit.evaluation.alignment.image_pivot import ImageScores, open_images
from vlkit.evaluation.alignment.layer_embeddings import embed_layers
from vlkit.evaluation.alignment.outcome import Alignment, correlate_with
from vlkit.evaluation.alignment.parallel_texts import ParallelTexts, open_texts
from vlkit.evaluation.alignment.runner import align
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.results.results_file import ResultRow, Results
from vlkit.types import Sample

QUIET = Encoding(text_batch_size=32)


@pytest.fixture
def texts(tmp_path: Path) -> ParallelTexts:
    return open_texts(str(fakes.write_lines(tmp_path / "texts")))


def result(language: str, acc1: float, *, variant: str = "mine") -> ResultRow:
    return result_row(variant, language, acc1, task="task")


def test_rows_of_a_language_model_equal_plain_scores(tmp_path: Path, texts: ParallelTexts) -> None:
    text = open_text(str(factory.llama(tmp_path / "llama")))
    found = align(text, texts, name="llama", encoding=QUIET)
    one = embed_layers(text, fakes.LINES["en"], wanted={"weighted": text.layers, "last": text.layers})
    two = embed_layers(text, fakes.LINES["de"], wanted={"weighted": text.layers, "last": text.layers})
    by_layer = {}
    for row in found.layers:
        if row.language == "de":
            pair = [side.layers[row.pooling, row.layer] for side in (one, two)]  # type: ignore[index]
            expected = fakes.plain_scores(*pair)
            assert {name: getattr(row.scores, name) for name in expected} == pytest.approx(expected, abs=1e-6)
            by_layer[row.pooling, row.layer] = row.scores
    assert list(by_layer) == [*(("weighted", str(n)) for n in range(3)), ("last", "1"), ("last", "2")]
    row = found.languages[0]
    mexa = [by_layer["weighted", str(n)].mexa for n in range(3)]
    assert (row.language, row.n, row.mexa_mean, row.mexa_max) == ("de", 6, pytest.approx(np.mean(mexa)), max(mexa))
    assert row.mexa_max_layer == str(int(np.argmax(mexa))) and math.isnan(row.projected_mexa)
    assert row.langrank == pytest.approx(np.mean([by_layer["last", n].cosine for n in ("1", "2")]))
    assert row.langrank_centred == pytest.approx(np.mean([by_layer["last", n].centred_cosine for n in ("1", "2")]))
    assert found.meta["langrank_layers"] == ["1", "2"] and found.meta["models"] == {
        "llama": found.meta["models"]["llama"]
    }


def test_a_score_alone_is_the_same_as_among_all(tmp_path: Path, texts: ParallelTexts) -> None:
    text = open_text(str(factory.bert(tmp_path / "bert")))
    both = align(text, texts, encoding=QUIET).languages[0]
    ranked = align(text, texts, score="langrank", encoding=Encoding(text_batch_size=2))
    assert ranked.languages[0].langrank == pytest.approx(both.langrank, abs=1e-6)
    assert math.isnan(ranked.languages[0].mexa_mean) and {row.pooling for row in ranked.layers} == {"last"}
    mexa = align(text, texts, score="mexa", languages=["ger"], encoding=QUIET)
    assert [row.language for row in mexa.languages] == ["de"] and mexa.languages[0].mexa_mean == both.mexa_mean
    assert math.isnan(mexa.languages[0].langrank)
    last = align(text, texts, pooling="last", encoding=QUIET)
    assert {row.pooling for row in last.layers} == {"last"} and len(last.layers) == 2 * len(text.layers)
    with pytest.raises(UnknownName, match="no score 'best'"):
        align(text, texts, score="best", encoding=QUIET)  # type: ignore[arg-type]
    with pytest.raises(VlkitError, match="Language Ranker needs the states of all layers"):
        align(open_text("tiny"), texts, score="langrank", encoding=QUIET)


def test_blank_and_repeated_lines_and_broken_embeddings_are_counted() -> None:
    lines = {"en": ("a", "b", "b", "c", "d"), "de": ("x", "y", "z", "", "w!")}
    texts = ParallelTexts("made", "en", lines, tuple("12345"))
    row = align(from_model(BrokenModel()), texts, encoding=QUIET).languages[0]
    assert (row.n, row.n_blank, row.n_repeated, row.n_excluded) == (4, 1, 2, 1)
    layer = align(from_model(BrokenModel()), texts, encoding=QUIET).layers[0]
    assert (layer.layer, layer.scores.n) == ("projected", 3)
    broken = ParallelTexts("made", "en", {"en": ("!", "!!", "a"), "de": ("x", "y", "z")}, tuple("123"))
    with pytest.raises(VlkitError, match="1 of 3 pairs have embeddings; need at least two"):
        align(from_model(BrokenModel()), broken, encoding=QUIET)


def test_a_blank_line_is_as_if_it_were_not_there(texts: ParallelTexts) -> None:
    text = open_text("tiny")
    blank = {**texts.lines, "de": (*texts.lines["de"][:2], "", *texts.lines["de"][3:])}
    short = {tag: (*lines[:2], *lines[3:]) for tag, lines in texts.lines.items()}
    one = align(text, replace(texts, lines=blank), languages=["de"], encoding=QUIET)
    two = align(text, replace(texts, lines=short, keys=texts.keys[1:]), languages=["de"], encoding=QUIET)
    assert [row.layer for row in one.layers] == ["last block", "projected"] and one.languages[0].n_blank == 1
    for a, b in zip(one.layers, two.layers, strict=True):
        assert asdict(a.scores) == pytest.approx(asdict(b.scores), abs=1e-6)


def oracle() -> tuple[OracleModel, ParallelTexts, list[Sample]]:
    """Knows English and German, mixes up two French words."""
    names = {"en": ["black", "gray", "white", "dim"], "de": ["schwarz", "grau", "weiß", "matt"]}
    names["fr"] = ["noir", "gris", "blanc", "faible"]
    colors = (10, 100, 200, 50)
    known = {name: color for each in names.values() for name, color in zip(each, colors, strict=True)}
    known |= {"noir": 100, "gris": 10}
    texts = ParallelTexts("made", "en", {tag: tuple(each) for tag, each in names.items()}, tuple("1234"))
    samples = [Sample(str(color), (lambda color=color: plain(color),), {}) for color in colors]  # type: ignore[misc]
    return OracleModel(known), texts, samples


def test_images_take_the_place_of_the_pivot() -> None:
    model, texts, samples = oracle()
    found = align(from_model(model), texts, images=samples, encoding=QUIET)
    rows = {row.language: row for row in found.images}
    assert list(rows) == ["en", "de", "fr"] and model.images_seen == 4
    assert (rows["de"].mexa, rows["de"].p1_image_to_text, rows["de"].english_swap) == (1, 1, 1)
    assert (rows["fr"].mexa, rows["fr"].p1_image_to_text, rows["fr"].english_swap) == (0.5, 0.5, 0.5)
    assert found.languages[1].projected_mexa == 0.5 and rows["fr"].n == 4
    with pytest.raises(VlkitError, match="3 images for 4 lines"):
        align(from_model(model), texts, images=samples[:3], encoding=QUIET)


def test_lines_without_a_text_take_their_image_along() -> None:
    model, texts, samples = oracle()
    lines = {**texts.lines, "fr": ("", *texts.lines["fr"][1:])}
    found = align(from_model(model), replace(texts, lines=lines), images=samples, encoding=QUIET)
    row = {row.language: row for row in found.images}["fr"]
    # "gris" is now the nearest of no image but black, whose own line is gone
    assert (row.n, row.n_excluded, row.p1_image_to_text) == (3, 1, pytest.approx(2 / 3))
    assert row.english_swap == pytest.approx(2 / 3)


def test_the_swap_asks_for_the_pivot_text_nearest_to_a_text() -> None:
    model, texts, samples = oracle()
    model.colors |= {"noir": 10, "gris": 10}  # two texts that are both black
    row = align(from_model(model), texts, images=samples, encoding=QUIET).images[-1]
    assert (row.language, row.english_swap, row.p1_text_to_image, row.p1_image_to_text) == ("fr", 0.75, 0.75, 0.5)


def test_images_are_zero_shot_classes() -> None:
    from vlkit.evaluation.tasks.task_rows import evaluate_task
    from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask

    model, lines = CountingModel(seed=4), fakes.LINES
    samples = [Sample(str(n), (lambda n=n: factory.random_image(n),), {}) for n in range(6)]  # type: ignore[misc]
    texts = ParallelTexts("made", "en", {tag: tuple(each) for tag, each in lines.items()}, tuple("123456"))
    task = ZeroShotTask("made", samples, {tag: [(one,) for one in each] for tag, each in lines.items()})
    rows = {row.language: row["acc1"] for row in evaluate_task(model, task)}
    found = align(from_model(model), texts, images=samples, encoding=QUIET)
    assert {row.language: row.p1_image_to_text for row in found.images} == pytest.approx(rows)


def test_images_by_file(tmp_path: Path, texts: ParallelTexts) -> None:
    for number in range(6):
        factory.random_image(number).save(tmp_path / f"{number}.png")
    listed = tmp_path / "images.txt"
    listed.write_text("\n".join(f"{number}.png" for number in range(6)))
    samples = open_images(str(listed), texts)
    assert [sample.key for sample in samples] == [f"{number}.png" for number in range(6)]
    assert samples[2].image().size == factory.random_image(2).size
    listed.write_text("0.png\n")
    with pytest.raises(DataError, match=r"images.txt names 1 images for the 6 lines"):
        open_images(str(listed), texts)
    listed.write_text("0.png\n" * 5 + "gone.png")
    with pytest.raises(DataError, match=r"1 \(gone.png\) of 6 images are not there"):
        open_images(str(listed), texts)
    with pytest.raises(DataError, match="images openmoji go with texts emoji-names"):
        open_images("openmoji", texts)


def test_correlation_uses_the_languages_that_both_have(texts: ParallelTexts) -> None:
    lines = {**texts.lines, "it": texts.lines["fr"][::-1], "es": texts.lines["de"][::-1], "sv": texts.lines["de"]}
    found = align(from_model(CountingModel()), replace(texts, lines=lines), encoding=QUIET)
    accuracy = {row.language: 0.3 + 0.5 * row.projected_centred for row in found.languages}
    rows = [result(tag, value) for tag, value in accuracy.items() if tag != "sv"]
    rows += [result("en", 0.9), result("zh", 0.1), *(result(tag, 0.2, variant="other") for tag in ("de", "fr"))]
    shares = {tag: number / 10 for number, tag in enumerate(("en", "de", "fr", "it", "es", "sv"))}
    pictured = tuple(ImageScores(tag, 6, 0, share, 0.1, share, share, share) for tag, share in shares.items())
    found = replace(found, images=pictured)
    compared = {row.score: row for row in correlate_with(found, Results({}, tuple(rows)))}
    assert (compared["projected_centred"].n, compared["projected_centred"].variant) == (4, "mine")
    assert compared["projected_centred"].pearson == pytest.approx(1) and compared["projected_centred"].kendall == 1
    # against images the pivot language is a point of its own; in the others it would be compared with itself
    assert compared["p1_text_to_image"].n == compared["image_mexa"].n == 5 and compared["english_swap"].n == 4
    points = np.corrcoef([shares[row.language] for row in rows[:5]], [row["acc1"] for row in rows[:5]])
    assert compared["image_mexa"].pearson == pytest.approx(points[0, 1])
    assert "unknown_share" not in compared  # the same in all languages
    with pytest.raises(DataError, match="have 2 languages in common, and three are needed"):
        correlate_with(replace(found, images=()), Results({}, tuple(rows[:2])))


def saved(found: Alignment, folder: Path) -> dict[str, Any]:
    found.save(folder)
    content: dict[str, Any] = json.loads((folder / "alignment.json").read_text())
    return content


def test_files_hold_what_was_found(tmp_path: Path, texts: ParallelTexts) -> None:
    found = align(open_text(str(factory.llama(tmp_path / "llama"))), texts, encoding=QUIET)
    content = saved(found, tmp_path / "out")
    assert set(content) == {"meta", "languages", "layers", "images", "correlations"}
    assert content["meta"]["data_digest"] == texts.digest and content["meta"]["libraries"]["transformers"]
    assert content["languages"][0]["projected_mexa"] is None
    with (tmp_path / "out" / "alignment-layers.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["mexa"]) for row in rows] == pytest.approx([row.scores.mexa for row in found.layers], abs=1e-6)
    assert (tmp_path / "out" / "alignment.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "out" / "alignment-images.csv").exists()


def test_an_alignment_is_a_sequence_of_its_languages_and_data_frames(tmp_path: Path, texts: ParallelTexts) -> None:
    found = align(open_text(str(factory.llama(tmp_path / "llama"))), texts, encoding=QUIET)
    assert len(found) == len(found.languages) > 1 and list(found) == list(found.languages)
    assert found[0] is found.languages[0] and found[1:] == found.languages[1:]
    page = found._repr_html_()
    assert page.count("<tr>") == 1 + len(found) and f">{found[0].language}</td>" in page
    assert "mexa_mean" in page and "projected_mexa" not in page  # not known of a language model
    pytest.importorskip("pandas")
    frame = found.to_pandas()
    assert frame["language"].tolist() == [row.language for row in found]
    assert frame["mexa_mean"].tolist() == [row.mexa_mean for row in found] and frame["projected_mexa"].isna().all()
    layers = found.to_pandas("layers")
    assert layers[["language", "layer", "mexa"]].to_numpy().tolist() == [
        [row.language, row.layer, row.scores.mexa] for row in found.layers
    ]


def test_the_command(tmp_path: Path, texts: ParallelTexts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    factory.llama(tmp_path / "llama")
    for number in range(6):
        factory.random_image(number).save(tmp_path / f"{number}.png")
    (tmp_path / "images.txt").write_text("\n".join(f"{number}.png" for number in range(6)))
    Results({}, tuple(result(tag, acc) for tag, acc in (("en", 0.9), ("de", 0.5), ("fr", 0.4)))).save("r/results.json")

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["align", *arguments])

    plainly = run("hf:./llama", "--texts", "texts", "--languages", "de,fr")
    assert plainly.exit_code == 0, plainly.stderr
    assert "llama on texts, pivot en" in plainly.stdout and "ranker" in plainly.stdout
    assert "written to runs/align/llama: alignment.json" in plainly.stderr and "texts of 2 languages" in plainly.stderr
    as_json = run("llama", "--texts", "texts", "--score", "langrank", "--limit", "4", "--out", "o", "--json")
    content = json.loads(as_json.stdout)
    assert content == json.loads(Path("o/alignment.json").read_text()) and content["languages"][0]["n"] == 4
    pictured = run("tiny", "--texts", "texts", "--images", "images.txt", "--against", "r", "--out", "t")
    assert pictured.exit_code == 0, pictured.stderr
    assert "note: TinyTextEncoder gives the states of its last block alone" in pictured.stderr
    assert "images as the pivot, in %" in pictured.stdout
    assert len(Path("t/alignment-images.csv").read_text().splitlines()) == 4
    for arguments, message in (
        (("none", "--texts", "none"), "error: no folder of texts none"),
        (("none", "--texts", "texts", "--languages", "de,qq"), "error: no language 'qq'"),
        (("none", "--texts", "texts", "--against", "none"), "error: no results file none"),
        (("none", "--texts", "texts"), "error: no model 'none'"),
        (("llama", "--texts", "texts", "--images", "images.txt"), "error: a text model has no images"),
    ):
        failed = run(*arguments)
        assert failed.exit_code == 2 and message in failed.stderr, failed.stderr
