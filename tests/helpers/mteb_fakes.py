"""Tasks for mteb that need no data set, and a data set where its readers look for one; mteb is imported when used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.helpers.evaluate_fakes import CountingModel, picture
from vlkit.parts.language_marks import set_language
from vlkit.types import TextBatch

LANGUAGES = {"de": ["deu-Latn"], "af": ["afr-Latn"], "en": ["eng-Latn"]}
COUNT = 12


class NllbModel(CountingModel):
    """Its tokenizer must be told the language, as NLLB's; remembers what each text was marked as."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.nllb = tokenizer
        self.marked: dict[str, str] = {}

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        set_language(self.nllb, language, where="nllb")
        self.marked |= dict.fromkeys(texts, self.nllb.src_lang)
        return super().tokenize(texts, language=language)


def caption(subset: str, number: int) -> str:
    return f"{subset} caption {number * 7919 % 101}"


def retrieval_task(
    category: str = "t2i",
    *,
    languages: Mapping[str, list[str]] | None = None,
    name: str = "",
    modalities: Sequence[str] = ("text", "image"),
    problem: Exception | None = None,
) -> Any:
    """COUNT images, the same for each subset, with a caption each; or a task whose data cannot be had."""
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata

    class Task(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=name or f"Pictures{category.upper()}",
            description="Pictures and captions.",
            reference="https://example.org",
            dataset={"path": "nobody/pictures", "revision": "1"},
            type="Any2AnyMultilingualRetrieval",
            category=category,
            eval_splits=["test"],
            eval_langs=dict(languages or LANGUAGES),
            main_score="ndcg_at_10",
            date=("2022-01-01", "2022-12-31"),
            domains=["Written"],
            task_subtypes=[],
            license="cc0-1.0",
            annotations_creators="derived",
            dialect=[],
            modalities=list(modalities),
            sample_creation="found",
            bibtex_citation="",
        )

        def load_data(self, *_: Any, **__: Any) -> None:
            if problem is not None:
                raise problem
            self.dataset = {}
            for subset in self.hf_subsets:
                images = Dataset.from_dict({"id": ids("i"), "image": [picture(n) for n in range(COUNT)]})
                texts = Dataset.from_dict({"id": ids("t"), "text": [caption(subset, n) for n in range(COUNT)]})
                queries, corpus = (texts, images) if category == "t2i" else (images, texts)
                right = {query: {document: 1} for query, document in zip(queries["id"], corpus["id"], strict=True)}
                split = RetrievalSplitData(corpus=corpus, queries=queries, relevant_docs=right, top_ranked=None)
                self.dataset[subset] = {"test": split}
            self.data_loaded = True

    return Task()


def ids(letter: str) -> list[str]:
    return [f"{letter}{n}" for n in range(COUNT)]


def keep_data_set(root: Path, path: str, splits: Sequence[str], *, count: int = 4) -> None:
    """Writes a data set of images with two captions each where the ``datasets`` library keeps what it once fetched."""
    from datasets import Dataset, DatasetInfo, SplitDict
    from datasets.arrow_writer import ArrowWriter

    owner, name = path.split("/")
    folder = root / f"{owner}___{name}" / "default" / "0.0.0" / "abc"
    folder.mkdir(parents=True)
    found = []
    for split in splits:
        captions = [[f"{split} {n}", f"{split} again {n}"] for n in range(count)]
        images = [picture(n) for n in range(count)]
        table = Dataset.from_dict({"image": images, "image_id": list(map(str, range(count))), "captions": captions})
        writer = ArrowWriter(features=table.features, path=str(folder / f"{name}-{split}.arrow"))
        for row in table:
            writer.write(row)
        examples, size = writer.finalize()
        found.append({"name": split, "num_bytes": size, "num_examples": examples, "dataset_name": name})
    DatasetInfo(
        features=table.features,
        splits=SplitDict.from_split_dict(found),
        builder_name="parquet",
        dataset_name=name,
        config_name="default",
        version="0.0.0",
    ).write_to_directory(str(folder))
