"""`vlkit generate "قارچ" --language fa -n 4 --out grid.png`: images of prompts, or images changed as prompts say."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlkit.cli.console import collector_off, say, write_json
from vlkit.cli.loading import find_model, loaded
from vlkit.cli.options import AsJson, Device
from vlkit.errors import VlkitError
from vlkit.obstacles import Obstacles
from vlkit.paths import local_path

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlkit.nn.code_sampler import SampledStep

DEFAULT_MODEL = Path("runs/t2i/openmoji/model")
_MADE_BY = "vlkit train t2i/openmoji"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


Guidance = Annotated[
    float | None,
    typer.Option(min=0.0, metavar="G", help="How far images are moved towards the prompt; 1 for not at all."),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        parser=local_path,
        metavar="FILE",
        help="An image file: several images become a grid, a row a prompt. Without an ending a folder of images.",
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, metavar="S", help="The share of --image that is to be made anew; 1 for all of it."),
]


def generate(
    prompts: list[str] = typer.Argument(metavar="PROMPT...", help="What images show, in any language."),
    language: str = typer.Option("", metavar="LANG", help="Language of the prompts, for models that are told it."),
    number: int = typer.Option(1, "-n", min=1, metavar="N", help="Images of each prompt."),
    target: Out = Path("generated.png"),
    model: str = typer.Option("", metavar="PATH", help=f"A model folder or name; without it {DEFAULT_MODEL}."),
    seed: int | None = typer.Option(None, min=0, metavar="N", help="Of the first image of each prompt."),
    steps: int | None = typer.Option(None, min=1, metavar="N", help="Steps of the sampler."),
    guidance: Guidance = None,
    temperature: float | None = typer.Option(None, min=0.0, metavar="T", help="0 takes the likeliest codes."),
    negative: str = typer.Option("", metavar="TEXT", help="What images shall not show."),
    image: str = typer.Option("", metavar="IMAGE", help="An image to change, with --mask or --strength."),
    mask: str = typer.Option("", metavar="IMAGE", help="White where --image is to be made anew."),
    strength: Strength = None,
    device: Device = "auto",
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace what is in --out."),
    as_json: AsJson = False,
) -> None:
    """Make images of prompts in any language."""
    from vlkit import languages as known

    obstacles, tag = Obstacles(), None
    with obstacles.met():
        if not all(prompt.strip() for prompt in prompts):
            raise VlkitError("a prompt is empty; say what the image shows")
    with obstacles.met():
        tag = known.normalize(language) if language else None
    with obstacles.met():
        _check_target(target, overwrite=overwrite)
    with obstacles.met():
        _check_edit(prompts, image, mask, strength)
    with obstacles.met():
        where = find_model(model, DEFAULT_MODEL, made_by=_MADE_BY)
    obstacles.refuse()
    given = {"steps": steps, "guidance": guidance, "temperature": temperature, "seed": seed}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    options |= {"language": tag, "num_images": number, **({"negative": negative} if negative.strip() else {})}
    with collector_off():
        from vlkit.types import Painter
    with loaded(where, device=device, expect=Painter) as (ready, _):
        found = _made(ready, prompts, options, image=image, mask=mask, strength=strength)
        first = seed if seed is not None else getattr(getattr(ready, "sampling", None), "seed", 0)
    files = _written(found, target, columns=number)
    if as_json:
        rows = [
            {"prompt": prompts[place // number], "seed": first + place % number, "file": files[place % len(files)]}
            for place in range(len(found))
        ]
        write_json({"model": where, "language": tag, "images": rows})
    else:
        last = f" to {first + number - 1}" if number > 1 else ""
        say(f"{len(found)} image{'s' * (len(found) > 1)} in {target}, seed{'s' * (number > 1)} {first}{last}")
    raise typer.Exit(0)


def _check_target(target: Path, *, overwrite: bool) -> None:
    from vlkit.outputs import check_folder

    if target.suffix and target.suffix.lower() not in _SUFFIXES:
        raise VlkitError(f"--out {target} is no image file; allowed: {', '.join(_SUFFIXES)}, or a folder")
    check_folder(target.parent if target.suffix else target)
    taken = target.exists() if target.suffix else target.is_dir() and any(target.iterdir())
    if taken and not overwrite:
        raise VlkitError(f"{target} is there already; replace it with --overwrite, or choose another place")


def _check_edit(prompts: list[str], image: str, mask: str, strength: float | None) -> None:
    if not image and (mask or strength is not None):
        raise VlkitError("--mask and --strength say how an image is changed; give it with --image")
    if image and bool(mask) == (strength is not None):
        raise VlkitError("--image is changed where --mask is white, or all over by --strength; give one of the two")
    if image and len(prompts) > 1:
        raise VlkitError(f"--image is changed as one prompt says, and there are {len(prompts)}")


def _made(
    model: Any, prompts: list[str], options: dict[str, Any], *, image: str, mask: str, strength: float | None
) -> list[Image]:
    from vlkit.progress import bar
    from vlkit.types import ChangesImages

    if image and not isinstance(model, ChangesImages):
        raise VlkitError(f"a {type(model).__name__} makes images and cannot change one; leave out --image")
    total = len(prompts) * options["num_images"]
    with bar("images", total=total, unit="images", quiet=total == 1) as shown:
        if "watch" in inspect.signature(model.generate).parameters:
            options = {**options, "watch": _counter(shown.advance)}
        if not image:
            found: list[Image] = model.generate(prompts, **options)
        elif mask:
            found = model.repaint(image, mask, prompts[0], **options)
        else:
            found = model.vary(image, prompts[0], strength=strength, **options)
    return found


def _counter(advance: Callable[[int], None]) -> Callable[[SampledStep], None]:
    def watch(done: SampledStep) -> None:
        if done.step == done.steps - 1:
            advance(len(done.codes_BN))

    return watch


def _written(images: list[Image], target: Path, *, columns: int) -> list[str]:
    """Writes images; says into which files."""
    from vlkit.files import disk_errors
    from vlkit.models.image_grid import image_grid

    with disk_errors(target):
        if target.suffix:
            target.parent.mkdir(parents=True, exist_ok=True)
            image = images[0] if len(images) == 1 else image_grid(images, max(columns, 1) if columns > 1 else 4)
            _save(image, target)
            return [str(target)]
        target.mkdir(parents=True, exist_ok=True)
        files = [target / f"{number:04d}.png" for number in range(len(images))]
        for file, image in zip(files, images, strict=True):
            _save(image, file)
    return [str(file) for file in files]


def _save(image: Image, file: Path) -> None:
    """Written aside and renamed, so that no half file is left."""
    scratch = file.with_name(f".{file.stem}-{os.getpid()}{file.suffix}")
    try:
        image.save(scratch)
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)
