"""What the zero-shot bench evaluates: made photos in class folders, names in many languages, one file of weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlkit.bench.reading import made_photo
from vlkit.data.build.cldr import territory_names
from vlkit.errors import DataError
from vlkit.parts.open_clip_files import OpenClipName

_FIRST = ("en", "de", "fr", "es", "ru", "zh", "ja", "ar", "hi", "sw", "tr", "th")
_REGIONS = [chr(one) + chr(other) for one in range(65, 91) for other in range(65, 91)]
_WIDTH, _HEIGHT = 320, 240
TEMPLATES = ("a photo of a {}.", "{}", "a drawing of the {}.", "{}")
"""Of the check with several templates; one occurs twice."""


def make_images(root: Path, *, count: int, classes: int, seed: int = 0) -> Path:
    """JPEGs ``root/test/CLASS/NUMBER.jpg`` of 320 x 240 pixels, dealt out to the classes by turns; ``root`` itself.

    They are the same on every machine for one Pillow.

    Raises:
        DataError: Fewer images than classes.
    """
    if not 1 <= classes <= count:
        raise DataError(f"{count} images of {classes} classes: every class needs an image; lower --classes")
    random = np.random.default_rng(seed)
    for number in range(count):
        path = root / "test" / f"{number % classes:04d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made_photo(random, width=_WIDTH, height=_HEIGHT))
    return root


def named_languages(classes: int) -> tuple[str, ...]:
    """Languages in which CLDR names at least so many countries and territories; twelve in several scripts come first.

    Raises:
        MissingPackage: babel is not installed.
    """
    found = territory_names(_REGIONS, min_names=classes)
    return tuple(dict.fromkeys(tag for tag in (*_FIRST, *found) if tag in found))


def make_names(languages: Sequence[str], *, classes: int) -> dict[str, list[str]]:
    """Names of the same countries and territories (Unicode CLDR) by language; none occurs twice in a language.

    Raises:
        MissingPackage: babel is not installed.
        DataError: CLDR names fewer in all of these languages.
    """
    found = territory_names(_REGIONS, min_names=1)
    names: dict[str, list[str]] = {tag: [] for tag in languages}
    count = 0
    for region in _REGIONS:
        here = {tag: found[tag].get(region, "") for tag in names}
        if count < classes and all(name and name not in names[tag] for tag, name in here.items()):
            count += 1
            for tag, name in here.items():
                names[tag].append(name)
    if count < classes:
        raise DataError(f"{classes} classes: only {count} countries have names in all of {', '.join(languages)}")
    return names


def make_model(name: str, folder: Path) -> OpenClipName:
    """The weights that both sides load: those the name asks for (``MODEL/TAG``, ``MODEL/FILE``), else random ones.

    Raises:
        UnknownName: open_clip has no such model or weights.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    parsed = OpenClipName.parse(name)
    if parsed.weights is not None:
        return parsed
    torch.manual_seed(0)
    quiet = logging.root.manager.disable
    logging.disable(logging.WARNING)  # open_clip warns that no weights are loaded, which is the aim
    try:
        model = open_clip.create_model(parsed.model)
    finally:
        logging.disable(quiet)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "random.safetensors"
    save_file({key: tensor.clone().contiguous() for key, tensor in model.state_dict().items()}, path)
    return OpenClipName(parsed.model, str(path))


def write_names(folder: Path, dataset: str, names: dict[str, list[str]], templates: tuple[str, ...]) -> None:
    """``LANGUAGE.json`` and ``templates.json`` as CLIP_benchmark reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for tag, listed in names.items():
        (folder / f"{tag}.json").write_text(json.dumps({dataset: listed}), encoding="utf-8")
    slots = [template.replace("{}", "{c}") for template in templates]
    (folder / "templates.json").write_text(json.dumps({dataset: slots}), encoding="utf-8")
