"""`vlkit classify IMAGE... --labels "chat,chien" --language fr`: images against labels in any language."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vlkit.cli.console import collector_off, headed, message, out, tell, write_json
from vlkit.cli.loading import find_model, loaded
from vlkit.cli.options import AsJson, Device
from vlkit.errors import DataError, VlkitError
from vlkit.obstacles import Obstacles
from vlkit.paths import local_path

if TYPE_CHECKING:
    from vlkit.cli.images import NamedImage
    from vlkit.evaluation.classify.zero_shot import Predictions, ZeroShotClassifier

DEFAULT_MODEL = Path("runs/quickstart/model")
_AT_ONCE = 32  # images held decoded in memory
_PIPE_WIDTH = 200
_TOP, _MOST = 5, 50  # answers of an image, and images, that a terminal shows


def classify(
    images: list[str] = typer.Argument(
        metavar="IMAGE...", help="Image files, folders or archives of them, patterns such as 'photos/*.jpg', URLs."
    ),
    labels: str = typer.Option(
        "", metavar="A,B,...", help="What to choose from; several names for one thing: 'cat|kitten,dog'."
    ),
    labels_file: Path | None = typer.Option(
        None, parser=local_path, metavar="FILE", help="More labels, one a line, names split at '|'."
    ),
    language: str = typer.Option("en", metavar="LANG", help="Language of the labels (see vlkit list languages)."),
    templates: list[str] | None = typer.Option(
        None,
        "--templates",
        metavar="TEXT",
        help="What stands around a label, as in 'a photo of a {}.'; may be given several times; '{}' is the label "
        "alone. Default: those of the language.",
    ),
    model: str = typer.Option("", metavar="PATH", help=f"A model folder or name; without it {DEFAULT_MODEL}."),
    device: Device = "auto",
    top: int | None = typer.Option(
        None, min=1, metavar="K", help=f"Answers shown for each image; default: {_TOP}, in JSON all."
    ),
    as_json: AsJson = False,
) -> None:
    """Sort images by labels in any language, without training."""
    from vlkit import languages
    from vlkit.cli.images import find_images
    from vlkit.prompts import check_template

    # what can be wrong is looked at before anything slow is loaded, and told at once
    obstacles = Obstacles()
    with obstacles.met():
        names = _read_labels(labels, labels_file)
    with obstacles.met():
        tag = languages.normalize(language)
    for template in templates or ():
        with obstacles.met():
            check_template(template)
    with obstacles.met():
        where = find_model(model, DEFAULT_MODEL, made_by="vlkit quickstart")
    obstacles.refuse()
    found, problems = find_images(images)

    with collector_off():  # 4000 modules and a model are made, nothing is thrown away
        from vlkit.evaluation.classify.zero_shot import ZeroShotClassifier
        from vlkit.types import ImageTextModel

    with loaded(where, device=device, expect=ImageTextModel) as (ready, _), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # look-alike labels were named once already
        classifier = ZeroShotClassifier(ready, names, language=tag, templates=templates or None)
        predictions = _classify(classifier, found, problems)
    if as_json:
        write_json(_plain(predictions, problems, model=where, classifier=classifier, top=top))
    elif predictions is not None:
        _show(predictions, top or _TOP)
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


def _classify(
    classifier: ZeroShotClassifier, images: Sequence[NamedImage], problems: dict[str, str]
) -> Predictions | None:
    """Answers for the images that can be read; what is wrong with the others is added to ``problems``."""
    from vlkit.evaluation.classify.zero_shot import Predictions
    from vlkit.progress import bar

    parts: list[Predictions] = []
    with bar("images", total=len(images), unit="images", quiet=len(images) <= _AT_ONCE) as shown:
        for start in range(0, len(images), _AT_ONCE):
            opened = []
            for image in images[start : start + _AT_ONCE]:
                try:
                    opened.append((image.name, image.open()))
                except DataError as error:
                    problems[image.name] = message(error)
            if opened:
                names, decoded = zip(*opened, strict=True)
                parts.append(classifier.classify(decoded, names=names))
            shown.advance(len(images[start : start + _AT_ONCE]))
    return Predictions.join(parts) if parts else None


def _show(predictions: Predictions, top: int) -> None:
    out(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(predictions[:_MOST].table(top))
    if len(predictions) > _MOST:
        tell(f"the first {_MOST} of {len(predictions):,} images; --json prints all")


def _plain(
    predictions: Predictions | None,
    problems: dict[str, str],
    *,
    model: str,
    classifier: ZeroShotClassifier,
    top: int | None,
) -> dict[str, Any]:
    """What ``--json`` prints: for each image all labels, best first, with probability and cosine."""
    found = [
        {
            "image": one.image,
            "predictions": [
                {"label": answer.label, "probability": round(answer.probability, 6), "cosine": round(answer.score, 6)}
                for answer in one.answers[:top]
            ],
        }
        for one in predictions or ()
    ]
    errors = [{"image": image, "error": problem} for image, problem in problems.items()]
    settings = {"model": model, "language": classifier.language, "templates": list(classifier.templates)}
    return {**settings, "images": found, "errors": errors}
