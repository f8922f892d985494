"""`vlkit caption IMAGE... --language sw` and `vlkit ask QUESTION [IMAGE...]`: what a vision-language model writes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlkit.cli.answer_text import LiveAnswer, write_answer, write_line
from vlkit.cli.console import collector_off, headed, listed, message, write_json
from vlkit.cli.loading import find_model, loaded
from vlkit.cli.options import AsJson, Device
from vlkit.errors import DataError, VlkitError
from vlkit.obstacles import Obstacles

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlkit.cli.images import NamedImage
    from vlkit.types import AnsweringModel

DEFAULT_MODEL = Path("runs/pictures/model")
_MADE_BY = "vlkit train vlm/pictures"
_AT_ONCE = 16  # images that are held decoded and answered together

ModelOption = Annotated[
    str, typer.Option("--model", metavar="PATH", help=f"A model folder or name; without it {DEFAULT_MODEL}.")
]
Prefix = Annotated[str, typer.Option(metavar="TEXT", help="Words that the answer begins with.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, metavar="N", help="Most tokens of an answer.")]
Beams = Annotated[int | None, typer.Option(min=1, metavar="N", help="Answers that are followed at a time.")]
Temperature = Annotated[
    float | None,
    typer.Option(min=0.0, metavar="T", help="Above 0, words are drawn, the more freely the higher; default: not."),
]
Seed = Annotated[int | None, typer.Option(min=0, metavar="N", help="Of what is drawn.")]


def caption(
    images: list[str] = typer.Argument(
        metavar="IMAGE...", help="Image files, folders or archives of them, patterns such as 'photos/*.jpg', URLs."
    ),
    languages: str = typer.Option(
        "en", "--language", metavar="LANG,...", help="One or several languages (see vlkit list languages)."
    ),
    prompt: str = typer.Option("", metavar="TEXT", help="What to ask; without it a prompt that the model learned."),
    prefix: Prefix = "",
    model: ModelOption = "",
    device: Device = "auto",
    max_tokens: MaxTokens = None,
    beams: Beams = None,
    temperature: Temperature = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Put images into words, in any language that the model knows."""
    from vlkit import languages as known
    from vlkit.cli.images import find_images

    obstacles, tags = Obstacles(), list[str]()
    for one in listed(languages):
        with obstacles.met():
            tags.append(known.normalize(one))
    with obstacles.met():
        if not listed(languages):
            raise VlkitError("no language; give --language de, or several with commas between")
    with obstacles.met():
        where = find_model(model, DEFAULT_MODEL, made_by=_MADE_BY)
    with obstacles.met():
        options = _options(max_tokens=max_tokens, beams=beams, temperature=temperature, seed=seed)
    obstacles.refuse()
    found, problems = find_images(images)
    with collector_off():
        from vlkit.types import AnsweringModel
    rows: list[dict[str, str]] = []
    with loaded(where, device=device, expect=AnsweringModel) as (ready, _):
        told = {"prompt": prompt or None, "prefix": prefix, **options}
        for row in _captions(ready, found, tags, problems=problems, told=told):
            rows.append(row)
            if not as_json:
                write_line(row["image"], row["language"], row["caption"])
    if as_json:
        errors = [{"image": image, "error": problem} for image, problem in problems.items()]
        write_json({"model": where, "captions": rows, "errors": errors})
    for problem in problems.values():
        headed("error", problem, color="red")
    raise typer.Exit(2 if problems else 0)  # an exception keeps this frame, so that the model is not taken apart


def ask(
    question: str = typer.Argument(metavar="QUESTION", help="In any language; <image> says where an image stands."),
    images: list[str] | None = typer.Argument(None, metavar="[IMAGE...]", help="The images that it is about, if any."),
    language: str = typer.Option("", metavar="LANG", help="To be answered in; without it as the model likes."),
    prefix: Prefix = "",
    model: ModelOption = "",
    device: Device = "auto",
    max_tokens: MaxTokens = None,
    beams: Beams = None,
    temperature: Temperature = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Ask about an image, about several, or about none."""
    from vlkit import languages as known
    from vlkit.cli.images import find_images

    obstacles, tag = Obstacles(), None
    with obstacles.met():
        if not question.strip():
            raise VlkitError("the question is empty; write what you want to know, or use vlkit caption")
    with obstacles.met():
        tag = known.normalize(language) if language else None
    with obstacles.met():
        where = find_model(model, DEFAULT_MODEL, made_by=_MADE_BY)
    with obstacles.met():
        options = _options(max_tokens=max_tokens, beams=beams, temperature=temperature, seed=seed)
    found, problems = find_images(images or ())
    pictures: list[Image] = []
    for image in found:
        with obstacles.met():
            pictures.append(image.open())
    obstacles.found += problems.values()
    obstacles.refuse()
    with collector_off():
        from vlkit.types import AnsweringModel
    live = LiveAnswer() if sys.stdout.isatty() and not as_json else None
    with loaded(where, device=device, expect=AnsweringModel) as (ready, _):
        text = ready.ask(pictures, question, language=tag, prefix=prefix, stream=live, **options)
    if as_json:
        names = [image.name for image in found]
        write_json({"model": where, "question": question, "images": names, "language": tag, "answer": text})
    elif live is not None:
        live.end()
    else:
        write_answer(text)
    raise typer.Exit(0)


def _options(**given: float | None) -> dict[str, Any]:
    """What was said of how answers are written; the rest is as its spec says.

    Raises:
        VlkitError: Values that do not go together.
    """
    found = {name: value for name, value in given.items() if value is not None}
    if found.get("beams", 1) > 1 and found.get("temperature", 0) > 0:
        raise VlkitError("--beams follows the likeliest answers and --temperature draws one; leave one of them out")
    return found


def _captions(
    model: AnsweringModel,
    images: Sequence[NamedImage],
    languages: Sequence[str],
    *,
    problems: dict[str, str],
    told: dict[str, Any],
) -> Iterator[dict[str, str]]:
    """A row for each image and language; each image goes through the encoder once.

    What is wrong with images that cannot be read is added to ``problems``.
    """
    for start in range(0, len(images), _AT_ONCE):
        names: list[str] = []
        opened: list[Image] = []
        for image in images[start : start + _AT_ONCE]:
            try:
                opened.append(image.open())
                names.append(image.name)
            except DataError as error:
                problems[image.name] = message(error)
        tokens = model.image_features(opened)
        texts = [model.caption(tokens, language=language, **told) for language in languages] if tokens else []
        for name, *captions in zip(names, *texts, strict=True):
            for language, text in zip(languages, captions, strict=True):
                yield {"image": name, "language": language, "caption": text}
