"""Models, languages and benchmarks compared: pairs, groups, equal numbers of classes, correlation, published tables."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.evaluation.results.test_results import row
from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.compare.comparison import compare
from vlkit.evaluation.compare.reference import read_babel_scores, reference, references
from vlkit.evaluation.metrics.correlation import correlate
from vlkit.evaluation.metrics.intervals import bootstrap_mean, paired_comparison, subset_accuracy
from vlkit.evaluation.report.breakdown import group_means, group_of
from vlkit.evaluation.results.results_file import ResultRow


def _row(language: str, num_classes: int, acc1: float) -> ResultRow:
    return row("m", language, acc1, num_classes=num_classes)


def test_groups_have_the_published_sizes() -> None:
    table = reference("babel_imagenet")
    counts = {code: n for code, n in table.num_classes.items() if code != "EN"}
    hundred = [table.classes_of(tag) for tag in table.scores if tag != "en"]
    added = ("WUU", "NV", "CV", "DIQ", "CHR", "CE", "HAK", "NAH")  # not in the first version
    first = [table.num_classes[code] for tag, code in table.codes.items() if code not in added and tag != "en"]
    sizes = {
        "v1": Counter(group_of(n, definition="v1") for n in first),
        "v2": Counter(group_of(n, definition="v2") for n in hundred),
        "all": Counter(group_of(n, definition="all") for n in counts.values()),
    }
    assert sizes["v1"] == {"low": 41, "mid": 35, "high": 16}
    assert sizes["v2"] == {"very-low": 17, "low": 32, "mid": 35, "high": 16}
    assert sizes["all"] == {"super-low": 104, "very-low": 84, "low": 55, "mid": 38, "high": 16}
    with pytest.raises(UnknownName, match="definition of language groups 'v3'"):
        group_of(1, definition="v3")


def test_group_means_reproduce_the_published_ones() -> None:
    table = reference("babel_imagenet")
    scores = table.of("NLLBS-l")
    rows = [_row(tag, table.classes_of(tag), score) for tag, score in scores.items()]
    means = {one.group: one for one in group_means(rows)}
    published = {"very-low": 0.4061, "low": 0.4322, "mid": 0.4278, "high": 0.3975, "mean": 0.4207}
    for name, mean in published.items():
        assert means[name].mean == pytest.approx(mean, abs=2e-4)  # the table is rounded
        assert means[name].low < mean < means[name].high
    assert list(means) == list(published) and "en" not in means["mean"].languages


def test_one_language_in_a_group_has_no_interval() -> None:
    (group, mean) = group_means([_row("de", 50, 0.5), _row("en", 50, 0.9)])
    assert (group.group, group.mean, group.languages) == ("very-low", 0.5, ("de",)) and math.isnan(group.low)
    assert mean.mean == 0.5


def test_bootstrap_of_a_mean_does_not_depend_on_the_order() -> None:
    values = np.random.default_rng(0).normal(size=14)
    assert bootstrap_mean(values) == bootstrap_mean(values[::-1])


def test_bootstrap_of_a_mean_agrees_with_theory() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_mean(values, replicates=4000)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_accuracy_among_fewer_classes_is_the_mean_over_all_subsets() -> None:
    from itertools import combinations

    rng = np.random.default_rng(1)
    score_NK = rng.normal(size=(40, 6))
    target_N = np.concatenate([np.arange(6), rng.integers(6, size=34)])
    rank_N = (score_NK > score_NK[np.arange(40), target_N][:, None]).sum(1) + 1
    for size in (1, 2, 4, 6):
        by_class = []
        for k in range(6):
            hits = [
                score_NK[n, list(subset)].argmax() == subset.index(k)
                for n in np.flatnonzero(target_N == k)
                for subset in combinations(range(6), size)
                if k in subset
            ]
            by_class.append(np.mean(hits))
        got = subset_accuracy(rank_N, target_N, num_classes=6, size=size)
        assert got == pytest.approx(np.mean(by_class), abs=1e-12)
    assert subset_accuracy(rank_N, target_N, num_classes=6, size=1) == 1.0


def test_pairs_of_models_agree_with_resampling_one_by_one() -> None:
    rng = np.random.default_rng(2)
    classes = np.repeat(np.arange(20), 6)
    easy = rng.beta(1, 1, size=20)[classes]
    hits, others = rng.random(120) < easy * 0.7 + 0.3, rng.random(120) < easy
    found = paired_comparison(hits, others, classes, replicates=4000)
    means = []
    for _ in range(2000):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(classes == k), 6) for k in rng.integers(20, size=20)]  # classes, then images
        )
        means.append(hits[rows].mean() - others[rows].mean())
    assert found.difference == pytest.approx(hits.mean() - others.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.02)
    share = min(np.mean(np.array(means) <= 0), np.mean(np.array(means) >= 0))
    assert found.p_value == pytest.approx(2 * share, abs=0.05)  # about 0.25; one-sided it would be half
    back = paired_comparison(others, hits, classes, replicates=4000)
    assert back.difference == -found.difference and back.p_value == pytest.approx(found.p_value, abs=0.02)
    assert paired_comparison(hits, others, classes, seed=1) == paired_comparison(hits, others, classes, seed=1)


def test_pairs_that_do_not_differ_are_rarely_called_different() -> None:
    rng = np.random.default_rng(3)
    classes, wrong = np.repeat(np.arange(60), 5), 0
    for trial in range(300):
        easy = rng.beta(1, 1, size=60)[classes]
        hits, others = rng.random(300) < easy, rng.random(300) < easy
        found = paired_comparison(hits, others, classes, seed=trial, replicates=300)
        wrong += found.p_value < 0.05
        assert (found.p_value < 0.04) <= (not found.low <= 0 <= found.high)
    assert wrong / 300 < 0.09
    same = np.random.default_rng(0).random(300) < 0.5
    assert paired_comparison(same, same, classes) == (0.0, 0.0, 0.0, 1.0)
    assert paired_comparison(np.ones(300), np.zeros(300), classes).p_value < 0.01


def _ranks(values: npt.NDArray[np.float64]) -> list[float]:
    """Equal values share the mean of theirs."""
    return [float(np.mean(np.flatnonzero(np.sort(values) == value))) for value in values]


def test_ranks_and_coefficients_by_definition() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.integers(6, size=40).astype(float), rng.normal(size=40)
    y += 0.4 * x
    found = correlate(x, y, replicates=0)
    assert found.pearson.value == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found.spearman.value == pytest.approx(np.corrcoef(_ranks(x), _ranks(y))[0, 1])
    pairs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i in range(40) for j in range(i)]
    tau = sum(a * b for a, b in pairs) / math.sqrt(sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs))
    assert found.kendall.value == pytest.approx(tau)
    assert found.n == 40 and math.isnan(found.pearson.low)


def test_what_is_held_fixed_explains_nothing_any_more() -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(size=500)
    x, y = z + 0.3 * rng.normal(size=500), -2 * z + 0.3 * rng.normal(size=500)
    plain, partial = correlate(x, y, replicates=20), correlate(x, y, given=z, replicates=20)
    assert plain.pearson.value < -0.9 and plain.spearman.value < -0.9 and plain.kendall.value < -0.7
    for estimate in (partial.pearson, partial.spearman, partial.kendall):
        assert abs(estimate.value) < 0.1
    # the textbook's formula for one thing held fixed
    r = np.corrcoef([x, y, z])
    formula = (r[0, 1] - r[0, 2] * r[1, 2]) / math.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    assert partial.pearson.value == pytest.approx(formula)


def test_intervals_resample_clusters_together() -> None:
    rng = np.random.default_rng(6)
    shared = np.repeat(rng.normal(size=12), 20)
    x, y = shared + 0.1 * rng.normal(size=240), shared + rng.normal(size=12).repeat(20)
    single = correlate(x, y, replicates=200)
    together = correlate(x, y, clusters=np.repeat(np.arange(12), 20), replicates=200)
    assert together.pearson.high - together.pearson.low > 2 * (single.pearson.high - single.pearson.low)
    assert together == correlate(x, y, clusters=np.repeat(np.arange(12), 20), replicates=200)
    assert together.pearson.low < together.pearson.value < together.pearson.high


def _pooled() -> tuple[list[float], list[float], list[str], list[str]]:
    """Babel-ImageNet accuracy and Crossmodal-3600 text-to-image recall of all models in all languages both have."""
    accuracy, recall = reference("babel_imagenet"), reference("xm3600")
    tags = [tag for tag in recall.scores if tag in accuracy.scores and recall.codes[tag] not in ("mi", "quz")]
    points = [(tag, model) for tag in tags for model in accuracy.models]
    return (
        [accuracy.scores[tag][model] for tag, model in points],
        [recall.scores[tag][model] for tag, model in points],
        [tag for tag, _ in points],
        [model for _, model in points],
    )


def test_the_published_correlation_with_retrieval_is_found_again() -> None:
    x, y, tags, models = _pooled()
    found = correlate(x, y, replicates=20, clusters=tags)
    assert found.n == 408
    assert found.pearson.value == pytest.approx(0.649, abs=0.001)
    assert found.spearman.value == pytest.approx(0.640, abs=0.001)
    for model, r in (("AltCLIP", 0.938), ("OC-B32", 0.857), ("mSigLIP", 0.837), ("MC-mBERT", 0.12)):
        rows = [n for n, name in enumerate(models) if name == model]
        one = correlate([x[n] for n in rows], [y[n] for n in rows], replicates=0)
        assert one.n == 34 and one.pearson.value == pytest.approx(r, abs=0.005)


def test_with_the_number_of_classes_held_fixed_nllb_models_no_longer_seem_to_go_against_retrieval() -> None:
    x, y, tags, models = _pooled()
    table = reference("babel_imagenet")
    rows = [n for n, name in enumerate(models) if name == "NLLBS-l" and tags[n] != "en"]
    a, b = [x[n] for n in rows], [y[n] for n in rows]
    sizes = np.log([table.classes_of(tags[n]) for n in rows])
    plain, partial = correlate(a, b, replicates=0), correlate(a, b, given=sizes, replicates=0)
    assert plain.pearson.value < -0.2 < partial.pearson.value


def test_tables_are_named_and_read() -> None:
    assert references() == ("babel_imagenet", "xm3600")
    table = reference("babel_imagenet")
    assert table.of("OC-B32")["fi"] == 0.25 and table.classes_of("fi") == 973 and table.codes["nb"] == "NO"
    assert len(table.scores) == 101 and len(table.models) == 12
    with pytest.raises(UnknownName, match="reference table 'babel'"):
        reference("babel")
    with pytest.raises(UnknownName, match="model in the table babel_imagenet 'OC-B16'"):
        table.of("OC-B16")


def test_a_comparison_is_a_sequence_of_its_rows_and_a_data_frame() -> None:
    found = compare("reference:babel_imagenet/OC-B32", "reference:babel_imagenet/OC-H14")
    assert len(found) == len(found.rows) == 101 and list(found) == list(found.rows)
    assert found[-1] is found.rows[-1] and found[:2] == found.rows[:2]
    page = found._repr_html_()
    assert "<p>50 of 101 rows</p>" in page and ">OC-H14</th>" in page and found.summary()[0] in page
    assert page.count("<tr>") == 51 and "<bdi>" in page and f"{100 * found[0].difference:+.1f}" in page
    pytest.importorskip("pandas")
    frame = found.to_pandas()
    assert list(frame)[:5] == ["model", "other_model", "task", "language", "metric"]
    assert frame[["language", "one", "other", "difference"]].to_numpy().tolist() == [
        [row.language, row.one, row.other, row.difference] for row in found
    ]
    assert frame["p_value"].isna().all()  # of published scores no answers are known


def test_result_files_of_babel_imagenet_are_read(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    entries = [
        {"lang": "NO", "prompt": "label", "num_classes": 599, "accuracy": 42.0},
        {"lang": "NV", "prompt": "label", "num_classes": 257, "accuracy": 0.4},  # less than one percent, not 40
    ]
    path.write_text(json.dumps({"meta": {}, "results": entries}))
    assert [(one.language, one.prompt, one.accuracy) for one in read_babel_scores(path)] == [
        ("nb", "label", 0.42),
        ("nv", "label", 0.004),
    ]
    path.write_text(json.dumps({"results": [{**entry, "accuracy": 0.25} for entry in entries]}))
    assert [one.accuracy for one in read_babel_scores(path)] == [0.25, 0.25]
    path.write_text("{}")
    with pytest.raises(DataError, match="is not a result file of Babel-ImageNet: KeyError"):
        read_babel_scores(path)
    with pytest.raises(DataError, match="no result file"):
        read_babel_scores(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correlate([1, 2], [1, 2]), "have 2, 2, 2 and 2 entries; need equally many, at least three"),
        (lambda: correlate([1, 2, 3], [1, 2]), "have 3, 2, 3 and 3 entries"),
        (lambda: correlate([1, 2, math.nan], [1, 2, 3]), "not finite"),
        (lambda: paired_comparison([1], [1, 0], [1]), r"hits \(1,\), others \(2,\)"),
        (lambda: paired_comparison([1], [1], [1], replicates=0), "replicates = 0"),
        (lambda: subset_accuracy([1], [0], num_classes=3, size=4), "size = 4: a subset of 3 classes has 1 to 3"),
        (lambda: subset_accuracy([4], [0], num_classes=3, size=2), r"need one rank in 1\.\.3"),
        (lambda: bootstrap_mean([]), "no values"),
    ],
)
def test_bad_input(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(VlkitError, match=message):
        call()
