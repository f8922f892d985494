"""The benches of evaluation: what they count, what they would notice, what they print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from typer.testing import CliRunner

from vlkit.bench import prompt_texts as prompts
from vlkit.bench import zeroshot, zeroshot_sides
from vlkit.bench.memory import PeakMemory, _status
from vlkit.bench.prompt_texts import bench_prompts
from vlkit.bench.scoring import Tables, bench_scoring
from vlkit.bench.zeroshot import bench_zeroshot
from vlkit.bench.zeroshot_data import make_images, make_names, named_languages
from vlkit.bench.zeroshot_sides import ScoredRun
from vlkit.cli.bench import app
from vlkit.errors import DataError, MissingPackage, UnknownName, VlkitError
from vlkit.evaluation.embed.texts import class_embeddings
from vlkit.parts.open_clip_parts import OpenClipName

_TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model that open_clip knows by name, so that both sides can be given the name."""
    (tmp_path / "Bench-Tiny.json").write_text(json.dumps(_TINY))
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIG_PATHS", [tmp_path / "Bench-Tiny.json"])
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIGS", {})
    open_clip.factory._rescan_model_configs()
    return "Bench-Tiny"


# -- beside CLIP_benchmark


def test_every_image_is_encoded_once_and_by_the_peer_once_a_language(tiny: str) -> None:
    found = bench_zeroshot(tiny, images=14, languages=3, classes=6, batch_size=4, workers=0, repeats=2)
    assert (found.image_forwards, found.peer_image_forwards, found.n_images) == (14, 3 * 14, 14)
    assert found.text_rows <= found.peer_text_rows == 3 * 6
    assert (found.agreement, found.template_agreement, found.accuracy_difference) == (1.0, 1.0, 0.0)
    assert found.smallest_margin is not None and 0 < found.smallest_margin < 2
    assert found.languages[0] == "en" and len(set(found.languages)) == 3
    assert found.peer_s is not None and 0 < (found.peer_reload_s or 0) < found.peer_s
    assert found.time_ratio_without_reload is not None and found.time_ratio is not None
    assert found.time_ratio < found.time_ratio_without_reload
    assert found.repeats == 2 and found.weights == "random" and "1.6" in (found.peer or "")


def test_command_prints_one_json_object_and_without_a_peer_only_our_side(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "clip_benchmark.cli", None)  # not even imported
    sizes = ["--images", "4", "--languages", "2", "--classes", "2", "--batch-size", "3", "--repeats", "1"]
    result = CliRunner().invoke(app, ["zeroshot", "--peer", "none", "--model", tiny, *sizes, "--json"])
    value = json.loads(result.stdout)
    assert (value["image_forwards"], value["n_images"]) == (4, 4)
    assert value["text_rows"] == 3  # of two names in two languages, one is the same in both
    assert [key for key in value if value[key] is None] == [
        "time_ratio", "cpu_ratio", "time_ratio_without_reload", "one_language_ratio", "one_language_cpu_ratio",
        "peer_image_forwards", "peer_text_rows", "agreement", "template_agreement", "accuracy_difference",
        "smallest_margin", "peer_s", "peer_one_language_s", "peer_reload_s", "peer",
    ]  # fmt: skip
    with pytest.raises(MissingPackage, match=r"run: pip install .*'clip-benchmark>=1\.6\.2'"):
        bench_zeroshot(tiny)


def test_ratios_are_ours_over_the_peers_and_medians_over_neighbours() -> None:
    def repeat(ours: float, peer: float, reload: float) -> Any:
        runs = [ScoredRun(seconds=s, cpu_seconds=2 * s, image_rows=4) for s in (ours / 2, ours, peer / 4, peer)]
        for run in runs:
            run.best_N, run.target_N, run.accuracy = {"en": torch.tensor([0, 1])}, torch.tensor([0, 0]), {"en": 0.5}
        runs[3].reload_seconds = reload
        return zeroshot._Repeat(*runs)

    setting: Any = zeroshot.ZeroShotSetting(OpenClipName("m", "w"), Path(), batch_size=2, workers=0)
    repeats = [repeat(1, 10, 2), repeat(40, 100, 20), repeat(3, 10, 4)]  # the machine was slow in the second
    found = zeroshot._result(repeats, setting, ("en", "de"), 1.0, model="m", weights="w", classes=2)
    assert found.time_ratio == found.cpu_ratio == pytest.approx(0.3)
    assert found.time_ratio_without_reload == pytest.approx(0.5)
    assert found.one_language_ratio == found.one_language_cpu_ratio == pytest.approx(0.6)
    assert (found.ours_s, found.peer_s, found.peer_reload_s) == (3, 10, 4)


def test_agreement_is_the_share_of_equal_answers_to_the_same_images() -> None:
    ours = ScoredRun(
        best_N={"en": torch.tensor([0, 1, 2, 0]), "de": torch.tensor([0, 1, 2, 1])}, target_N=torch.arange(4)
    )
    peer = ScoredRun(
        best_N={"en": torch.tensor([0, 1, 2, 1]), "de": torch.tensor([1, 1, 2, 1])}, target_N=torch.arange(4)
    )
    assert zeroshot._agreement(ours, peer) == 0.75
    peer.target_N = torch.tensor([0, 1, 3, 2])
    with pytest.raises(VlkitError, match="the images in another order"):
        zeroshot._agreement(ours, peer)


def test_accuracy_stands_in_where_the_peers_fails_and_only_there() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [3.0, 1.0, 2.0]])

    def fails(*_: Any, **__: Any) -> list[float]:
        raise TypeError("only 0-dimensional arrays can be converted to Python scalars")

    target = torch.tensor([0, 1, 1, 1])
    assert zeroshot_sides._accuracy(fails, logits, target, topk=(1, 2)) == [0.5, 0.75]
    assert zeroshot_sides._accuracy(lambda *_, **__: [7.0], logits, target) == [7.0]


def test_made_images_and_names_are_the_same_again_and_told_apart(tmp_path: Path) -> None:
    one, other = (make_images(tmp_path / name, count=5, classes=3) for name in ("one", "other"))
    files = [sorted((made / "test").rglob("*.jpg")) for made in (one, other)]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    assert len({path.read_bytes() for path in files[0]}) == 5
    assert [path.parent.name for path in files[0]] == ["0000", "0000", "0001", "0001", "0002"]
    tags = named_languages(200)[:12]
    assert tags == ("en", "de", "fr", "es", "ru", "zh", "ja", "ar", "hi", "sw", "tr", "th")
    names = make_names(tags, classes=200)
    assert all(len(set(listed)) == 200 for listed in names.values())
    place = names["en"].index("Germany")
    assert (names["de"][place], names["zh"][place]) == ("Deutschland", "德国")


def test_what_cannot_be_made_is_refused(tmp_path: Path, tiny: str) -> None:
    with pytest.raises(DataError, match="2 images of 3 classes"):
        make_images(tmp_path, count=2, classes=3)
    with pytest.raises(DataError, match="--languages 400: CLDR names 2 countries in "):
        bench_zeroshot(tiny, languages=400, classes=2, peer="none")
    with pytest.raises(DataError, match="300 classes: only "):
        make_names(["en", "de"], classes=300)
    with pytest.raises(UnknownName, match="no open_clip model 'Bench-Tinny'; did you mean 'Bench-Tiny'"):
        bench_zeroshot("Bench-Tinny", images=2, languages=1, classes=2, peer="none")


# -- prompts


def _templates(path: Path) -> Path:
    content = {
        "EN": ["a {}"] * 3,
        "FI": ["kuva: {}", "kuva: {}", "kuva: {}", "{} kuvassa"],
        "DE": ["ein {}", "das Foto {}"],
        "GOT": ["{}", "{}"],  # in no table of numbers of classes
    }
    path.write_text(json.dumps(content))
    return path


def test_prompts_count_repeated_templates_once_for_all_classes_of_the_table(tmp_path: Path) -> None:
    found = bench_prompts(_templates(tmp_path / "t.json"), encoder="tiny", classes=3)
    assert (found.naive_rows, found.rows, found.languages) == (973 * 4 + 738 * 2, 973 * 2 + 738 * 2, 2)
    assert found.rows_ratio == found.rows / found.naive_rows
    assert found.checked == ("fi", "de")
    assert (found.checked_naive_rows, found.checked_rows) == (3 * 4 + 3 * 2, 3 * 2 + 3 * 2)
    assert found.embedding_difference < 1e-6


def test_prompts_notice_templates_that_do_not_weigh_as_often_as_they_occur(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(*args: Any, templates: tuple[str, ...], **options: Any) -> torch.Tensor:
        return class_embeddings(*args, templates=tuple(dict.fromkeys(templates)), **options)

    monkeypatch.setattr(prompts, "class_embeddings", once)
    assert bench_prompts(_templates(tmp_path / "t.json"), encoder="tiny").embedding_difference > 1e-3


def test_prompts_command(tmp_path: Path) -> None:
    path = str(_templates(tmp_path / "t.json"))
    result = CliRunner().invoke(app, ["prompts", "--templates", path, "--encoder", "tiny", "--check", "deu", "--json"])
    assert json.loads(result.stdout)["checked"] == ["de"]
    with pytest.raises(UnknownName, match="no language with templates and names of countries 'sw'"):
        bench_prompts(path, encoder="tiny", check=["sw"])
    (tmp_path / "got.json").write_text(json.dumps({"GOT": ["{}"]}))
    with pytest.raises(DataError, match="none of its languages is in the table babel_imagenet"):
        bench_prompts(tmp_path / "got.json", encoder="tiny")


# -- scoring


def test_scoring_runs_in_a_process_of_its_own_and_tells_time_and_memory() -> None:
    result = CliRunner().invoke(
        app, ["scoring", "--images", "300", "--dim", "16", "--languages", "2", "--classes", "10", "--json"]
    )
    value = json.loads(result.stdout)
    assert (value["images"], value["languages"], value["features_mb"]) == (300, 2, 300 * 16 * 4 / 1e6)
    assert value["score_s"] == pytest.approx(2 * value["language_s"], rel=1e-3) and value["row_s"] > 0
    assert 0 < value["peak_anonymous_mb"] < value["peak_rss_mb"] and value["start_rss_mb"] < value["peak_rss_mb"]
    for options, message in (
        ({"languages": 5000}, "--languages 5000: must be 1 to "),
        ({"images": 9, "classes": 10}, "images must be 1 to .*, classes 1 to images"),
    ):
        with pytest.raises(VlkitError, match=message):
            bench_scoring(**options)


def test_made_embeddings_do_not_depend_on_the_batch_and_all_differ() -> None:
    model = Tables(8)
    numbers = torch.tensor([0, 1, 4092, 4093, 4094, 70_000, 2**24 - 5000])
    image_BE = model.encode_image(numbers)
    assert torch.equal(torch.cat([model.encode_image(numbers[n : n + 1]) for n in range(len(numbers))]), image_BE)
    assert (torch.cdist(image_BE, image_BE) + torch.eye(len(numbers)) > 1e-3).all()
    text_BE = model.encode_text(model.tokenize(["de 1", "sw 1", "de 2"]))
    assert (torch.pdist(text_BE) > 1e-3).all()


def test_peak_memory_leaves_pages_of_files_out_of_the_anonymous_part(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells")
    size = 100_000_000
    path = tmp_path / "zeros"
    path.write_bytes(bytes(size))
    before = _status("RssAnon") / 1e6
    with PeakMemory(interval=0.001) as mapped:
        assert np.memmap(path, dtype=np.uint8, mode="r").sum() == 0
    with PeakMemory(interval=0.001) as held:
        assert bytes(size)[-1] == 0 and np.ones(size, dtype=np.uint8).sum() == size
    assert mapped.peak_rss_mb is not None and mapped.start_rss_mb is not None
    assert mapped.peak_rss_mb - mapped.start_rss_mb > 90
    assert mapped.peak_anonymous_mb is not None and mapped.peak_anonymous_mb < before + 50
    assert held.peak_anonymous_mb is not None and held.peak_anonymous_mb > before + 90
