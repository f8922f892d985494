from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.compare.model_scores import is_released
from vlkit.evaluation.compare.reference import read_babel_scores
from vlkit.evaluation.results.results_file import ResultRow, Results
from vlkit.evaluation.results.terminal_table import task_table
from vlkit.evaluation.tasks.zero_shot_task import MEASURES
from vlkit.languages import all_languages
from vlkit.provenance import provenance


def row(variant: str, language: str, acc1: float, **changes: object) -> ResultRow:
    task = changes.pop("task", "things")
    values = {
        "prompt": "label",
        "num_classes": 300,
        "n_images": 300,
        "acc1": acc1,
        "acc5": min(1.0, 2 * acc1),
        "ci_low": acc1 - 0.04,
        "ci_high": acc1 + 0.05,
        "chance": 1 / 300,
        "chance_corrected": (acc1 - 1 / 300) / (1 - 1 / 300),
        "n_ambiguous": 0,
        **dict.fromkeys(("acc1_tolerant", "acc1_en_subset", "mean_per_class_recall", "mean_reciprocal_rank"), math.nan),
        "n_tied": 0,
        "median_rank": math.nan,
        "subset_size": 0,
        "acc1_subset": math.nan,
    }
    assert set(changes) <= set(values)
    return ResultRow(task, variant, language, values | changes, MEASURES)


@pytest.fixture
def results() -> Results:
    meta = provenance(
        models={"one": "abc"},
        seed=3,
        languages=["de", "zh"],
        prompts="label",
        data_digest="d",
        seconds=1.23,
        device="cpu",
    )
    rows = (row("one", "de", 0.1), row("one", "zh", 0.3), row("two", "de", 0.25), row("two", "zh", 0.2))
    return Results(meta, rows)


def test_save_and_load_give_the_same_up_to_six_digits(results, tmp_path):
    path = results.save(tmp_path / "deep" / "results.json")
    loaded = Results.load(path)
    assert loaded.meta == results.meta
    for ours, theirs in zip(results.rows, loaded.rows, strict=True):
        assert theirs.measures == ours.measures and theirs.flat().keys() == ours.flat().keys()
        for name, value in ours.flat().items():
            assert theirs.flat()[name] == (
                pytest.approx(value, abs=5e-7, nan_ok=True) if isinstance(value, float) else value
            )
    again = loaded.save(tmp_path / "again.json")
    assert again.read_bytes() == path.read_bytes()


def test_file_has_the_form_others_read(results, tmp_path):
    content = json.loads(results.save(tmp_path / "results.json").read_text())
    assert set(content) == {"format", "meta", "tasks", "results"}
    assert content["results"][0]["chance"] == 0.003333
    assert list(content["results"][0])[:6] == ["task", "variant", "language", "prompt", "num_classes", "n_images"]
    wanted = {
        "vlkit",
        "date",
        "models",
        "seed",
        "languages",
        "prompts",
        "data_digest",
        "seconds",
        "platform",
        "libraries",
    }
    assert wanted <= set(content["meta"])
    assert "torch" in content["meta"]["libraries"]


def test_csv_holds_the_same_rows(results, tmp_path):
    results.save(tmp_path / "results.json")
    lines = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [(line["variant"], line["language"], line["acc1"]) for line in lines] == [
        ("one", "de", "0.1"),
        ("one", "zh", "0.3"),
        ("two", "de", "0.25"),
        ("two", "zh", "0.2"),
    ]


def test_nan_is_null_in_the_file_and_comes_back(tmp_path):
    results = Results({}, (row("one", "de", 1.0, chance_corrected=math.nan),))
    path = results.save(tmp_path / "r.json")
    assert json.loads(path.read_text())["results"][0]["chance_corrected"] is None
    assert math.isnan(Results.load(path).rows[0]["chance_corrected"])


def test_means_are_unweighted_over_languages(results):
    mean = results.mean("one")
    assert (mean["acc1"], mean["acc5"], mean.languages) == (pytest.approx(0.2), pytest.approx(0.4), 2)
    assert mean.lowest.language == "de"
    assert results.of("two")["zh"]["acc1"] == 0.2


def test_table_shows_every_language_and_the_means(results):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(task_table(results))
    text = console.export_text()
    for wanted in ("de  German", "zh  Chinese", "10.0 [6.0-15.0]", "mean of 2", "22.5", "0.33"):
        assert wanted in text


def test_table_with_a_language_that_one_variant_lacks(results):
    partial = Results(results.meta, results.rows[:3])
    assert task_table(partial).row_count == 2


def test_unknown_names(results):
    with pytest.raises(UnknownName, match="no variant 'tow'; did you mean 'two'"):
        results.of("tow")
    with pytest.raises(UnknownName, match="no task 'thing'; did you mean 'things'"):
        results.mean("one", task="thing")
    both = Results(results.meta, (*results.rows, row("one", "de", 0.1, task="other")))
    with pytest.raises(VlkitError, match="these results hold 2 tasks; name one: things, other"):
        task_table(both)
    with pytest.raises(VlkitError, match="these results have no rows"):
        task_table(Results({}, ()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a results file: JSONDecodeError"),
        ("[]", "is not a results file: TypeError"),
        ('{"meta": {}}', "is not a results file: KeyError: 'results'"),
        (
            '{"format": 1, "meta": {}, "tasks": {}, "results": [{"task": "t"}]}',
            "not a results file: TypeError: .*missing",
        ),
        ('{"meta": {}, "results": []}', "of another version of vlkit .*: evaluate again"),
        (
            '{"format": 1, "meta": {}, "tasks": {"t": {"kind": "k", "headline": "acc1", "metrics": {"acc1": {}}}}, '
            '"results": [{"task": "t", "variant": "v", "language": "de", "acc1": "high"}]}',
            "is not a results file: TypeError: acc1 is 'high', not a number",
        ),
    ],
)
def test_broken_files(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match=message):
        Results.load(tmp_path / "r.json")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"no results file .*none\.json"):
        Results.load(tmp_path / "none.json")


def test_a_place_that_cannot_be_written_to(results, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VlkitError, match=r"cannot write .*: .*file is no folder; free some space"):
        results.save(tmp_path / "file" / "results.json")


def test_results_are_a_sequence_of_rows(results: Results) -> None:
    assert len(results) == 4 and list(results) == list(results.rows) and results[-1] is results.rows[3]
    assert isinstance(results[1:3], Results) and results[1:3].rows == results.rows[1:3]
    assert results[1:3].meta == results.meta
    assert list(results[0])[:3] == ["task", "variant", "language"] and "acc1" in list(results[0])
    assert repr(results) == "Results(4 rows; tasks: things; models: one, two; 2 languages)"


def test_results_are_a_data_frame_and_a_table_of_a_notebook(results: Results) -> None:
    pytest.importorskip("pandas")
    frame = results.to_pandas()
    assert frame[["variant", "language", "acc1"]].to_numpy().tolist() == [
        ["one", "de", 0.1], ["one", "zh", 0.3], ["two", "de", 0.25], ["two", "zh", 0.2]
    ]  # fmt: skip
    assert frame["median_rank"].isna().all()
    page = replace(results, rows=(row("<b>", "de", 0.1234), *results.rows))._repr_html_()
    assert "&lt;b&gt;</th>" in page and " 12.3 " in page and page.count("<tr>") == 1 + 2 + 1
    assert page.index("Chinese") < page.index("German")  # the best one first
    assert "Deutsch" in page and "mean of 2" in page and "no results" in replace(results, rows=())._repr_html_()


def test_a_table_of_many_languages_shows_the_best_the_worst_and_means_over_all() -> None:
    tags = [one.tag for one in all_languages()[:60]]
    rows = [row("mine", tag, number / 100) for number, tag in enumerate(tags)]
    results = Results({}, tuple(rows))
    console = Console(width=120)
    with console.capture() as text:
        console.print(task_table(results, most=4))
    lines = text.get().splitlines()
    shown = [line.split()[1] for line in lines if line.startswith("│") and "%" not in line]
    assert shown == [tags[59], tags[58], "...", tags[1], tags[0], "mean"]
    assert "... 56 more ..." in text.get() and "mean of 60" in text.get() and "29.5" in text.get()
    with console.capture() as whole:
        console.print(task_table(results, most=60))
    assert whole.get().count("\n") == len(lines) + 55


def test_a_results_file_that_is_nested_without_end_is_told(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"results":' * 100_000)
    with pytest.raises(DataError, match=r"results\.json is not a results file: RecursionError"):
        Results.load(path)
    assert not is_released(path)
    with pytest.raises(DataError, match="nested too deeply"):
        read_babel_scores(path)
