"""`vlkit classify IMAGE... --labels "chat,chien" --language fr`: images against labels in any language."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vlkit.cli.console import collector_off, headed, message, out, write
from vlkit.cli.options import AsJson
from vlkit.errors import DataError, VlkitError
from vlkit.paths import local_path

if TYPE_CHECKING:
    from vlkit.evaluation.classify.zero_shot import Predictions, ZeroShotClassifier

DEFAULT_MODEL = Path("runs/quickstart/model")
_AT_ONCE = 32  # images held decoded in memory
_PIPE_WIDTH = 200


def classify(
    images: list[str] = typer.Argument(metavar="IMAGE...", help="One or more image files."),
    labels: str = typer.Option(
        "", metavar="A,B,...", help="What to choose from; several names for one thing: 'cat|kitten,dog'."
    ),
    labels_file: Path | None = typer.Option(
        None, parser=local_path, metavar="FILE", help="More labels, one a line, names split at '|'."
    ),
    language: str = typer.Option("en", metavar="LANG", help="Language of the labels (see vlkit list languages)."),
    model: str = typer.Option("", metavar="PATH", help=f"A model folder or name; without it {DEFAULT_MODEL}."),
    top: int = typer.Option(5, min=1, metavar="K", help="Answers shown for each image."),
    as_json: AsJson = False,
) -> None:
    """Sort images by labels in any language, without training."""
    from vlkit import languages

    # what can be wrong is looked at before anything slow is loaded
    names = _read_labels(labels, labels_file)
    tag = languages.normalize(language)
    where = _find_model(model)

    with collector_off():  # 4000 modules and a model are made, nothing is thrown away
        from vlkit.evaluation.classify.zero_shot import ZeroShotClassifier
        from vlkit.models.folder import load
        from vlkit.types import ImageTextModel

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # look-alike labels were named once already
            classifier = ZeroShotClassifier(load(where, expect=ImageTextModel), names, language=tag)  # type: ignore[type-abstract]
    predictions, problems = _classify(classifier, images)
    if as_json:
        write(_as_json(predictions, problems, model=where, language=tag, top=top))
    elif predictions:
        out(width=None if out().is_terminal else _PIPE_WIDTH).print(predictions.table(top))
    for problem in problems.values():
        headed("error", problem, color="red")
    raise typer.Exit(2 if problems else 0)  # an exception keeps this frame, so that the model is not taken apart


def _read_labels(labels: str, labels_file: Path | None) -> dict[str, tuple[str, ...]]:
    from vlkit.evaluation.classify.label_lists import load_labels, read_labels, split_labels

    listed = (split_labels(labels) if labels.strip() else []) + (load_labels(labels_file) if labels_file else [])
    if not listed:
        raise VlkitError("no labels; give --labels 'cat,dog' or --labels-file FILE (one label a line)")
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        names = read_labels(listed)
    for note in notes:
        headed("note", str(note.message))
    return names


def _find_model(model: str) -> str:
    if model:
        return model
    if not DEFAULT_MODEL.is_dir():
        raise VlkitError(
            f"there is no model in {DEFAULT_MODEL}; run `vlkit quickstart` here first, or give --model PATH"
        )
    return str(DEFAULT_MODEL)


def _classify(classifier: ZeroShotClassifier, images: list[str]) -> tuple[Predictions | None, dict[str, str]]:
    """Answers for the images that can be read, and what is wrong with the others."""
    from vlkit.data.formats.images import open_image
    from vlkit.evaluation.classify.zero_shot import Predictions

    parts: list[Predictions] = []
    problems: dict[str, str] = {}
    for start in range(0, len(images), _AT_ONCE):
        opened = {}
        for path in images[start : start + _AT_ONCE]:
            try:
                opened[path] = open_image(path)
            except DataError as error:
                problems[path] = message(error)
        if opened:
            parts.append(classifier.classify(list(opened.values()), names=list(opened)))
    return (Predictions.join(parts) if parts else None), problems


def _as_json(predictions: Predictions | None, problems: dict[str, str], *, model: str, language: str, top: int) -> str:
    answers = zip(predictions.images, predictions.top(top), strict=True) if predictions else ()
    found = [
        {
            "image": image,
            "predictions": [
                {"label": one.label, "probability": round(one.probability, 6), "score": round(one.score, 6)}
                for one in best
            ],
        }
        for image, best in answers
    ]
    errors = [{"image": image, "error": problem} for image, problem in problems.items()]
    return json.dumps(
        {"model": model, "language": language, "images": found, "errors": errors}, ensure_ascii=False, indent=1
    )
