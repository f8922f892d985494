"""The 1000 classes of ImageNet-1k: their order, their English names, and the classes of data sets made after it."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from vlkit.errors import MissingPackage, UnknownName

_ALL: tuple[str, ...] = ("imagenet-1k", "imagenet-v2", "imagenet-sketch")
_SOME = {"imagenet-a": "imagenet_a_synsets.txt", "imagenet-r": "imagenet_r_synsets.txt"}


@lru_cache(maxsize=1)
def wordnet_ids() -> tuple[str, ...]:
    """The 1000 WordNet 3.0 ids (``n01440764``) in the order of the classes, which is the alphabetical one."""
    return tuple(_lines("imagenet_synsets.txt"))


@lru_cache(maxsize=1)
def class_numbers() -> dict[str, int]:
    """The class of each WordNet id."""
    return {wnid: number for number, wnid in enumerate(wordnet_ids())}


@lru_cache(maxsize=1)
def english_lemmas() -> tuple[tuple[str, ...], ...]:
    """WordNet's English lemmas of each class."""
    by_id = dict(line.split("\t", 1) for line in _lines("imagenet_synset_to_lemma.txt"))
    return tuple(tuple(name.strip() for name in by_id[wnid].split(",")) for wnid in wordnet_ids())


@lru_cache(maxsize=1)
def english_names() -> tuple[str, ...]:
    """The cleaned English names that OpenAI's CLIP was evaluated with, as open_clip ships them."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


@lru_cache(maxsize=1)
def openai_templates() -> tuple[str, ...]:
    """OpenAI's 80 English templates, as open_clip ships them."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def class_indices(variant: str) -> tuple[int, ...]:
    """The ImageNet-1k classes that a data set made after it has images of, ascending.

    Raises:
        UnknownName: No such data set.
    """
    if variant in _ALL:
        return tuple(range(len(wordnet_ids())))
    if variant not in _SOME:
        raise UnknownName("data set", variant, allowed=[*_ALL, *_SOME])
    place = class_numbers()
    return tuple(sorted(place[wnid] for wnid in _lines(_SOME[variant])))


def _lines(name: str) -> list[str]:
    spec = find_spec("timm")  # does not import it
    if spec is None or spec.origin is None:
        raise MissingPackage("timm", purpose="the list of ImageNet classes", extra="timm")
    path = Path(spec.origin).parent / "data" / "_info" / name
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
