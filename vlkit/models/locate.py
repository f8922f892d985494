"""From the name of a whole model to where it is and whose it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from vlkit.errors import AssetError, UnknownName, VlkitError
from vlkit.parts.assets import hub
from vlkit.paths import local_path

SPEC = "spec.yaml"
Kind = Literal["vlkit", "open_clip", "hf", "tiny"]
_FORMS = "Give a model folder, 'open_clip:MODEL/TAG', 'open_clip:MODEL/FILE', 'hf:ID', 'hf-hub:ORG/NAME' or 'tiny'."
_PREFIXES = ("open_clip", "hf", "hf-hub", "tiny")
_MARKS: dict[Kind, str] = {"vlkit": SPEC, "open_clip": "open_clip_config.json", "hf": "config.json"}
_SMALL = ["*.json", "*.yaml", "*.txt", "*.model", "*.jinja", "*.spm", "README.md"]


class Located(NamedTuple):
    """Whose loader takes the model, and what it is given: a folder or that library's own name."""

    kind: Kind
    where: str


def locate(name: str) -> Located:
    """Finds a model by folder or name; a hub model is downloaded.

    Raises:
        UnknownName: Nothing of this name, and no known form of one.
        AssetError: The hub does not have it or cannot be asked.
        VlkitError: The folder holds no model.
    """
    prefix, colon, rest = name.partition(":")
    if name == "tiny":
        return Located("tiny", "")
    if colon and prefix in _PREFIXES:
        if not rest:
            raise VlkitError(f"model {name!r} lacks a name after the colon. {_FORMS}")
        if prefix == "open_clip":
            return Located("open_clip", rest)
        folder = local_path(rest)
        return _folder(folder) if folder.is_dir() else _on_hub(rest)
    folder = local_path(name)
    try:
        is_folder = folder.is_dir()
    except OSError as error:  # too long for a name
        raise VlkitError(f"no model {name[:80]!r}…: {(error.strerror or str(error)).lower()}. {_FORMS}") from error
    if is_folder:
        return _folder(folder)
    if folder.is_file():
        raise VlkitError(
            f"{folder} is a file; give the model folder that holds it, or 'open_clip:MODEL/{folder}' for open_clip's"
        )
    if colon and "/" not in prefix:
        raise UnknownName("kind of model", prefix, allowed=_PREFIXES, hint=_FORMS)
    beside = [path for path in folder.parent.glob("*") if (path / SPEC).is_file()] if folder.parent.is_dir() else []
    raise UnknownName("model", name, allowed=[str(path) for path in beside], hint=_FORMS)


def kind_of(folder: Path) -> Kind | None:
    """Whose model a folder holds, told by its files; None when it is nobody's."""
    for kind, mark in _MARKS.items():
        if (folder / mark).is_file():
            return kind
    return None


def _folder(folder: Path) -> Located:
    if kind := kind_of(folder):
        return Located(kind, str(folder))
    inside = next((path for path in (folder / "model", *sorted(folder.glob("*"))) if (path / SPEC).is_file()), None)
    if inside is not None:
        raise VlkitError(f"{folder} is not a model folder; did you mean {str(inside)!r}?")
    held = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(held[:5]) + (", ..." if len(held) > 5 else "") if held else "nothing"
    marks = f"{SPEC} (vlkit), open_clip_config.json (open_clip) or config.json (transformers)"
    raise VlkitError(f"{folder} is not a model folder: it has no {marks}; it holds {shown}")


def _on_hub(repo: str) -> Located:
    if repo.startswith((".", "/", "~")) or repo.count("/") > 1:
        raise VlkitError(f"no folder {repo}; a hub name reads 'hf:ORG/NAME'")
    folder = _snapshot(repo, _SMALL)
    kind = kind_of(folder)
    if kind is None:
        raise AssetError(
            f"{repo} on the hub is no model that vlkit can load: it has none of {', '.join(_MARKS.values())}"
        )
    # The two libraries fetch their own weights by name, and so their specs keep the name.
    if kind == "vlkit":
        return Located(kind, str(_snapshot(repo, [*_SMALL, "model*.safetensors"])))
    return Located(kind, f"hf-hub:{repo}" if kind == "open_clip" else repo)


def _snapshot(repo: str, patterns: Sequence[str]) -> Path:
    barred = f"{forbidden} is set" if (forbidden := hub.offline()) else hub.unreachable(hub.endpoint())
    try:
        return hub.snapshot(repo, list(patterns), local_only=barred is not None)
    except AssetError as error:
        missing = f"it is not in the hub's cache, and {hub.endpoint()} was not asked ({barred})"
        why = missing if barred else f"{hub.endpoint()} says {error}"
        raise AssetError(
            f"no model {repo!r}: {why}; give a local folder, or set HF_ENDPOINT to a hub that can be reached"
        ) from error
