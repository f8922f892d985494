"""vlkit models in mteb: every kind of image task, the language of each subset, and mteb's own wrapper beside ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vlkit
from tests.helpers import encoder_factory as factory
from tests.helpers.evaluate_fakes import BrokenModel, CountingModel, picture, plain
from tests.helpers.mteb_fakes import COUNT, LANGUAGES, NllbModel, caption, keep_data_set, retrieval_task
from vlkit import languages
from vlkit.errors import DataError, MissingPackage, UnknownName, VlkitError
from vlkit.evaluation.embed.encode import embed_images
from vlkit.evaluation.embed.texts import embed_texts
from vlkit.evaluation.metrics.recall import retrieval
from vlkit.evaluation.mteb.mteb_model import MtebModel, subset_language
from vlkit.evaluation.mteb.mteb_run import choose_tasks, evaluate_mteb
from vlkit.models.digest import weights_digest

pytestmark = pytest.mark.filterwarnings("ignore")  # mteb's mock tasks are too small for some of its metrics
COSINE = {
    "MockAny2AnyRetrievalI2T", "MockAny2AnyRetrievalT2I", "MockImageTextPairClassification", "MockVisualSTS",
    "MockZeroShotClassification", "MockMultilingualImageTextPairClassification",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def quiet_progress() -> Iterator[None]:
    import datasets

    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def mteb() -> Any:
    return pytest.importorskip("mteb")


@pytest.fixture(scope="module")
def image_tasks(mteb: Any) -> list[Any]:
    grid = pytest.importorskip("mteb.mocks").MOCK_MIEB_TASK_GRID
    return [task for task in grid if task.metadata.name != "MockImageClusteringFastTask"]  # seconds of clustering alone


def loader(**columns: list[Any]) -> Iterator[dict[str, Any]]:
    """Batches of five, as mteb's data loader gives them."""
    length = len(next(iter(columns.values())))
    for start in range(0, length, 5):
        yield {name: values[start : start + 5] for name, values in columns.items()}


def encode(model: MtebModel, task: Any, subset: str = "de", **columns: list[Any]) -> torch.Tensor:
    return model.encode(loader(**columns), task_metadata=task.metadata, hf_split="test", hf_subset=subset)


def scores(mteb: Any, model: Any, task: Any) -> dict[str, Any]:
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    assert not result.exceptions
    return result.task_results[0].scores


def assert_same_scores(mteb: Any, ours: MtebModel, theirs: Any, task: Any) -> None:
    """All numbers that mteb computes; a metric of two examples may be NaN, which equals itself as text."""
    task.load_data()  # once: mteb's mock tasks draw new images each time
    one, two = (json.dumps(scores(mteb, model, task), sort_keys=True, default=float) for model in (ours, theirs))
    task.unload_data()
    assert one == two, task.metadata.name


def test_the_protocol_and_what_the_result_files_say(mteb: Any) -> None:
    from mteb.models.models_protocols import CrossEncoderProtocol, EncoderProtocol, SearchProtocol

    model = vlkit.load("tiny")
    wrapped = MtebModel(model, "mine", languages=["de", "zh", "sw"])
    assert isinstance(wrapped, EncoderProtocol)
    assert not isinstance(wrapped, CrossEncoderProtocol | SearchProtocol)
    meta = wrapped.mteb_model_meta
    assert (meta.name, meta.revision, meta.embed_dim) == ("vlkit/mine", weights_digest(model), model.embed_dim)
    assert meta.languages == ["deu-Latn", "zho-Hans", "swa-Latn"]
    assert sorted(meta.modalities) == ["image", "text"]
    assert MtebModel(CountingModel(), "org/other").mteb_model_meta.name == "org/other"


def test_embeddings_are_those_of_vlkit_in_any_order_and_mixture(mteb: Any) -> None:
    task = retrieval_task()
    images, texts = [picture(n % 7) for n in range(13)], [f"text {n % 9}" for n in range(13)]
    for keep in (0, 3, 1000):
        wrapped = MtebModel(CountingModel(), keep_images=keep)
        image_NE, text_NE = embed_images(wrapped.model, images), embed_texts(wrapped.model, texts)
        for _ in range(2):
            torch.testing.assert_close(encode(wrapped, task, image=images), image_NE)
        torch.testing.assert_close(encode(wrapped, task, text=texts), text_NE)
        torch.testing.assert_close(encode(wrapped, task, text=texts, image=images), image_NE + text_NE)
        assert len(wrapped._kept) <= keep
    cosine_NN = wrapped.similarity(image_NE, text_NE)
    torch.testing.assert_close(cosine_NN, image_NE @ text_NE.T)
    torch.testing.assert_close(wrapped.similarity_pairwise(image_NE, text_NE), cosine_NN.diagonal())


def test_images_of_any_mode_and_of_equal_bytes(mteb: Any) -> None:
    """Kept embeddings are not mixed up between images that differ in mode, size or palette alone."""
    gray = picture(1).convert("L")
    palettes = [Image.frombytes("P", gray.size, gray.tobytes()) for _ in range(2)]
    for step, image in zip((7, 31), palettes, strict=True):
        image.putpalette([value * step % 256 for value in range(768)])
    turned = Image.frombytes("L", (gray.height, gray.width), gray.tobytes())
    clear = gray.convert("RGBA")
    printed = Image.frombytes("CMYK", clear.size, clear.tobytes())
    images = [gray, *palettes, turned, clear, printed, gray.convert("RGB")]
    wrapped = MtebModel(CountingModel())
    wanted_NE = embed_images(wrapped.model, [image.convert("RGB") for image in images])
    assert torch.pdist(wanted_NE[[0, 1, 2, 3, 5]]).min() > 1e-3
    torch.testing.assert_close(encode(wrapped, retrieval_task(), image=images), wanted_NE)


def test_all_kinds_of_image_tasks_run_and_texts_are_told_their_language(mteb: Any, image_tasks: list[Any]) -> None:
    kinds = set()
    for task in image_tasks:
        model = CountingModel()
        found = scores(mteb, MtebModel(model), task)
        subsets = {score["hf_subset"] for split in found.values() for score in split}
        assert subsets == set(task.hf_subsets)
        if "STS" not in task.metadata.type:  # two pairs give no correlation
            assert all(np.isfinite(score["main_score"]) for split in found.values() for score in split)
        if "text" in task.metadata.modalities:
            assert set(model.languages_seen) == {{"fra": "fr"}.get(subset, "en") for subset in subsets}
        kinds.add(task.metadata.type)
    assert kinds >= {"Any2AnyRetrieval", "ZeroShotClassification", "ImageClassification", "Compositionality"}


def test_each_image_is_encoded_once_whatever_the_number_of_languages(mteb: Any) -> None:
    model = CountingModel()
    for category in ("t2i", "i2t"):
        scores(mteb, MtebModel(model), retrieval_task(category))
        assert model.images_seen == COUNT
        assert sorted(set(model.languages_seen)) == ["af", "de", "en"]
        model.images_seen, model.languages_seen = 0, []


def test_recall_is_that_of_vlkit(mteb: Any) -> None:
    model = CountingModel()
    image_NE = embed_images(model, [picture(n) for n in range(COUNT)])
    mine = {}
    for subset in LANGUAGES:
        text_NE = embed_texts(model, [caption(subset, n) for n in range(COUNT)])
        mine[subset] = retrieval(image_NE, text_NE, image_of_text_M=range(COUNT))
    for category, side in (("t2i", "text_to_image"), ("i2t", "image_to_text")):
        for score in scores(mteb, MtebModel(model), retrieval_task(category))["test"]:
            for k in (1, 5, 10):
                recall = getattr(mine[score["hf_subset"]], side).recall[k]
                assert score[f"recall_at_{k}"] == pytest.approx(recall, abs=1e-5)


@pytest.fixture(scope="module")
def pair(mteb: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[MtebModel, Any]:
    """One small open_clip model of random weights in our wrapper and in mteb's, which asks for one of the hub's."""
    import open_clip
    from mteb.models.model_implementations import openclip_models

    folder = factory.open_clip_folder(tmp_path_factory.mktemp("clip") / "open_clip")
    here, make, tokenizer = f"local-dir:{folder}", open_clip.create_model_and_transforms, open_clip.get_tokenizer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip, "create_model_and_transforms", lambda _, **more: make(here, **more))
        patch.setattr(open_clip, "get_tokenizer", lambda _: tokenizer(here))
        theirs = openclip_models.openclip_loader("laion/any", revision="1", device="cpu")
    theirs.mteb_model_meta = openclip_models.CLIP_ViT_B_32_DataComp_XL_s13B_b90K
    return MtebModel(vlkit.load(str(folder))), theirs


def test_scores_are_those_of_the_open_clip_wrapper_of_mteb(mteb: Any, pair: tuple[MtebModel, Any]) -> None:
    for category in ("t2i", "i2t"):
        assert_same_scores(mteb, *pair, retrieval_task(category))


def test_so_they_are_on_all_mock_tasks_that_rest_on_cosines(
    mteb: Any, pair: tuple[MtebModel, Any], image_tasks: list[Any]
) -> None:
    cosine = [task for task in image_tasks if task.metadata.name in COSINE]
    assert len(cosine) == len(COSINE)
    for task in cosine:
        assert_same_scores(mteb, *pair, task)


def test_only_the_length_of_embeddings_differs_from_the_wrapper_of_mteb(
    mteb: Any, pair: tuple[MtebModel, Any], image_tasks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair
    for side in ("get_text_embeddings", "get_image_embeddings"):
        raw = getattr(theirs, side)
        monkeypatch.setattr(
            theirs, side, lambda inputs, raw=raw, **more: torch.nn.functional.normalize(raw(inputs, **more), dim=1)
        )
    rest = [task for task in image_tasks if task.metadata.name not in COSINE and "Clustering" not in task.metadata.name]
    assert len(rest) > 5
    for task in rest:
        assert_same_scores(mteb, ours, theirs, task)


def test_an_nllb_tokenizer_is_told_the_language_of_each_subset(mteb: Any) -> None:
    model = NllbModel(factory.nllb_tokenizer())
    scores(mteb, MtebModel(model), retrieval_task())
    codes = {"de": "deu_Latn", "af": "afr_Latn", "en": "eng_Latn"}
    assert model.marked == {caption(subset, n): codes[subset] for subset in LANGUAGES for n in range(COUNT)}


def test_a_language_that_cannot_be_known_is_an_error_where_the_tokenizer_needs_it(mteb: Any) -> None:
    task = retrieval_task(languages={"en-de": ["eng-Latn", "deu-Latn"]})
    with pytest.raises(VlkitError) as caught:
        scores(mteb, MtebModel(NllbModel(factory.nllb_tokenizer())), task)
    assert str(caught.value) == (
        "PicturesT2I, subset 'en-de' is of eng-Latn, deu-Latn: the one language of its texts is not known, so the "
        "tokenizer was told none. nllb: the tokenizer marks the language of its input; pass language=, for example "
        "language='de'"
    )
    model = CountingModel()
    scores(mteb, MtebModel(model), task)
    assert set(model.languages_seen) == {None}


def test_the_language_of_every_subset_of_image_tasks_of_mteb(mteb: Any) -> None:
    """Crossmodal-3600's Norwegian has three codes, cross-lingual pairs have no one language."""
    xm3600 = mteb.get_task("XM3600T2IRetrieval").metadata
    assert len(xm3600.hf_subsets) == 36
    for subset in xm3600.hf_subsets:
        assert subset_language(xm3600, subset) == languages.get(subset, system="xm3600").tag
    wit = mteb.get_task("WITT2IRetrieval").metadata
    assert all(subset_language(wit, subset) == languages.normalize(subset) for subset in wit.hf_subsets)
    pairs = mteb.get_task("STS17MultilingualVisualSTS").metadata
    assert {subset: subset_language(pairs, subset) for subset in ("en-en", "es-en", "en-ar")} == {
        "en-en": "en", "es-en": None, "en-ar": None
    }  # fmt: skip
    assert subset_language(retrieval_task(languages={"aqz": ["aqz-Latn"]}).metadata, "aqz") is None


def test_bad_embeddings_and_inputs_are_named(mteb: Any) -> None:
    task, wrapped = retrieval_task(), MtebModel(BrokenModel())
    images = [picture(n) for n in range(7)] + [plain(0)]
    with pytest.raises(VlkitError, match=r"embedding of image 8 of PicturesT2I, subset 'de' is not finite"):
        encode(wrapped, task, image=images)
    with pytest.raises(VlkitError, match=r"embedding of text 'loud!' is not finite"):
        encode(wrapped, task, text=["calm", "loud!"])
    with pytest.raises(DataError, match=r"subset 'de': inputs of audio; this model takes text and images alone"):
        encode(wrapped, task, audio=[1])
    with pytest.raises(DataError, match=r"image 2 is a NoneType, not a PIL image"):
        encode(wrapped, task, image=[picture(1), None])


def test_results_are_kept_resumed_and_replaced_when_told_so(mteb: Any, tmp_path: Path) -> None:
    model, tasks = CountingModel(), [retrieval_task("t2i"), retrieval_task("i2t")]

    def run(**settings: Any) -> list[tuple[str, str | None, float | None]]:
        model.images_seen = 0
        rows = evaluate_mteb(model, tasks, name="mine", folder=tmp_path, **settings)
        return [(row.task, row.language, row.score) for row in rows]

    first = run(languages=["de", "afr"])
    assert [row[0] for row in first] == ["PicturesT2I"] * 2 + ["PicturesI2T"] * 2
    assert [row[1] for row in first] == ["de", "af"] * 2
    path = tmp_path / "results" / "vlkit__mine" / weights_digest(model) / "PicturesT2I.json"
    assert path.is_file()
    with pytest.raises(VlkitError, match=r"holds results of vlkit/mine on PicturesT2I; --resume runs what is missing"):
        run()
    assert model.images_seen == 0
    resumed = run(resume=True)
    assert set(first) < set(resumed) and {row[1] for row in resumed} == {"de", "af", "en"}
    assert model.images_seen == COUNT
    assert run(resume=True, languages=["de"]) == [row for row in resumed if row[1] == "de"]
    assert model.images_seen == 0
    assert sorted(run(overwrite=True)) == sorted(resumed)
    assert model.images_seen == COUNT
    with torch.no_grad():
        model.pixels_DE.neg_()
    assert sorted(run()) != sorted(resumed)  # other weights have a place of their own


def test_the_data_of_a_task_is_let_go_after_it(mteb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = retrieval_task("t2i"), retrieval_task("i2t")
    events: list[str] = []
    for task in (first, second):
        monkeypatch.setattr(type(task), "unload_data", lambda self: events.append(self.metadata.category))
    evaluate_mteb(CountingModel(), [first, second])
    assert events == ["t2i", "i2t"]


def test_a_finished_task_needs_no_data(mteb: Any, tmp_path: Path) -> None:
    model = CountingModel()
    first = evaluate_mteb(model, [retrieval_task()], folder=tmp_path)
    gone = retrieval_task(problem=ConnectionError("gone"))
    assert evaluate_mteb(model, [gone], folder=tmp_path, resume=True) == first
    with pytest.raises(DataError, match="gone"):
        evaluate_mteb(model, [gone], folder=tmp_path, overwrite=True)


def test_subsets_are_chosen_by_all_their_languages(mteb: Any) -> None:
    mixed = retrieval_task(languages=LANGUAGES | {"en-de": ["eng-Latn", "deu-Latn"], "no": ["nor-Latn", "nno-Latn"]})

    def chosen(*tags: str) -> list[str]:
        (task,) = choose_tasks([mixed], tags)
        return sorted(task.hf_subsets)

    assert chosen("de") == ["de"]
    assert chosen("de", "en") == ["de", "en", "en-de"]
    assert chosen("German", "no") == ["de", "no"]
    assert len(choose_tasks([mixed])[0].hf_subsets) == len(mixed.hf_subsets) == 5
    named = choose_tasks(["XM3600T2IRetrieval", "WITT2IRetrieval"], ["sw", "jpn_Jpan", "no", "ko"])
    assert [sorted(task.hf_subsets) for task in named] == [["ja", "ko", "no", "sw"], ["ja", "ko"]]


def test_of_a_benchmark_the_tasks_in_these_languages(mteb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [mteb.get_task(name) for name in ("XM3600T2IRetrieval", "WITT2IRetrieval", "CIFAR10ZeroShot")]
    monkeypatch.setattr(mteb, "get_benchmark", {"MIEB": SimpleNamespace(tasks=parts)}.__getitem__)
    assert [task.metadata.name for task in choose_tasks(["MIEB"], ["sw"])] == ["XM3600T2IRetrieval"]
    assert len(choose_tasks(["MIEB"], ["sw", "en"])) == len(choose_tasks(["MIEB"])) == 3
    assert len(parts[0].hf_subsets) == 36  # mteb's own objects stay as they are


def test_wrong_tasks_and_languages_are_told(mteb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mteb, "get_benchmark", {}.__getitem__)  # mteb's own makes 2000 tasks first
    monkeypatch.setattr(mteb, "get_benchmarks", lambda: [SimpleNamespace(name="MIEB(Multilingual)")])
    with pytest.raises(UnknownName, match=r"'MIEB\(multilang\)'; did you mean 'MIEB\(Multilingual\)'"):
        choose_tasks(["MIEB(multilang)"])
    with pytest.raises(UnknownName, match=r"no mteb task or benchmark 'XM3600Retrieval'; did you mean 'XM3600T2IR"):
        choose_tasks(["XM3600Retrieval"])
    with pytest.raises(VlkitError, match=r"WITT2IRetrieval has no subset .* among de, sw; it has: ar, bg, da"):
        choose_tasks(["WITT2IRetrieval"], ["sw", "de"])
    with pytest.raises(VlkitError, match=r"no task has a subset for sw with no other language than de, sw"):
        choose_tasks([retrieval_task()], ["sw", "de"])
    with pytest.raises(VlkitError, match=r"task Sounds has inputs of text, audio; an image-text model takes text and"):
        choose_tasks([retrieval_task(name="Sounds", modalities=("text", "audio"))])
    with pytest.raises(UnknownName, match="no language 'xx'"):
        choose_tasks([retrieval_task()], ["xx"])
    with pytest.raises(VlkitError, match="give a list of names"):
        choose_tasks("XM3600T2IRetrieval")


def test_data_sets_that_are_not_here_are_named_at_once_and_nothing_is_evaluated(mteb: Any) -> None:
    model = CountingModel()
    with pytest.raises(DataError) as caught:
        evaluate_mteb(model, [retrieval_task(), "XM3600T2IRetrieval", "WITT2IRetrieval"], languages=["en"])
    lines = str(caught.value).split("\n")
    assert lines[0].startswith("task XM3600T2IRetrieval needs the data set mteb/xm3600: ")
    assert lines[1].startswith("task WITT2IRetrieval needs the data set mteb/wit: ")
    assert "(the hub was not asked: HF_HUB_OFFLINE=1 is set)" in lines[2] and "load_data()" in lines[2]
    assert model.images_seen == 0 and model.languages_seen == []


def test_a_hub_that_does_not_answer_is_asked_no_more(mteb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from huggingface_hub import constants

    from vlkit.parts.assets import hub

    def flags() -> tuple[bool, bool]:
        return constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE

    class AskedError(ConnectionError):
        def __str__(self) -> str:
            return f"offline={flags()}"

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "unreachable", lambda address: f"{address} is silent")
    with pytest.raises(DataError, match=r"offline=\(True, True\)\n.*hub was not asked: https://hub.invalid: .*silent"):
        evaluate_mteb(CountingModel(), [retrieval_task(problem=AskedError())])
    assert flags() == (False, False)
    monkeypatch.setattr(hub, "unreachable", lambda address: None)
    with pytest.raises(DataError, match=r"offline=\(False, False\)\nThe data cannot be had\. Where"):
        evaluate_mteb(CountingModel(), [retrieval_task(problem=AskedError())])


def test_a_published_task_runs_on_its_data_set_without_the_hub(
    mteb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    keep_data_set(tmp_path, "mteb/wit", ["ko", "ar"])
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    model = CountingModel()
    rows = evaluate_mteb(model, ["WITT2IRetrieval"], languages=["ar", "ko"])
    assert [(row.subset, row.language, row.split, row.metric) for row in rows] == [
        ("ar", "ar", "test", "ndcg_at_10"), ("ko", "ko", "test", "ndcg_at_10")
    ]  # fmt: skip
    assert all(row.score == row.metrics["ndcg_at_10"] for row in rows)
    assert model.images_seen == 4 and model.languages_seen == ["ar", "ko"]


def test_without_mteb_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(MissingPackage, match=r"evaluation with mteb needs .* pip install 'mteb<3,>=2\.12\.30'"):
        MtebModel(CountingModel())


def test_results_of_a_model_without_known_weights_are_not_kept(mteb: Any, tmp_path: Path) -> None:
    class Plain:
        """No torch module."""

        def __init__(self, inner: CountingModel) -> None:
            self.transform, self.encode_image = inner.transform, inner.encode_image
            self.tokenize, self.encode_text = inner.tokenize, inner.encode_text

    model = Plain(CountingModel().eval())
    assert len(evaluate_mteb(model, [retrieval_task()])) == 3
    with pytest.raises(VlkitError, match="results of a Plain cannot be kept"):
        evaluate_mteb(model, [retrieval_task()], folder=tmp_path)
