"""What a model is made of, told without its weights: parts, sizes, precision, languages, and what it stands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlkit.errors import VlkitError
from vlkit.foreign import parse_yaml
from vlkit.models.assembly import part_kind
from vlkit.models.digest import weights_digest
from vlkit.models.folder import load, load_meta, read_base
from vlkit.models.locate import locate
from vlkit.models.registry import module_of
from vlkit.models.trainable import ADAPTER, Report, trainable_report
from vlkit.parts.assets import ASSETS
from vlkit.spec.model import BaseModelSpec
from vlkit.types import Model, as_module

_MOST_BASES = 16


@dataclass(frozen=True)
class PartFacts:
    """One part: what it is (``timm: NAME``, ``qformer``), how large, in which precision, and whose work it is.

    ``digest`` is that of its weights where they were read; "" where not.
    """

    part: str
    what: str
    parameters: int
    dtype: str
    license: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Base:
    """A model that adapters stand on, and the digest of the weights that they were trained on, where it is known."""

    name: str
    digest: str | None


@dataclass(frozen=True)
class Inspection:
    """What a model is made of. ``facts`` are its kind's own; ``languages`` BCP 47 tags, where its card tells them."""

    kind: str
    spec: BaseModelSpec
    parts: tuple[PartFacts, ...]
    parameters: int
    facts: Mapping[str, int | str]
    languages: tuple[str, ...] = ()
    bases: tuple[Base, ...] = ()

    def plain(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        return {
            "kind": self.kind,
            "parameters": self.parameters,
            "parts": [asdict(part) for part in self.parts],
            "facts": dict(self.facts),
            "languages": list(self.languages),
            "bases": [asdict(base) for base in self.bases],
            "spec": self.spec.model_dump(mode="json"),
        }


def inspect_folder(name: str, *, digests: bool = False) -> Inspection:
    """A model by the name that ``vlkit.load`` takes, on the meta device; with ``digests`` its weights are read, too.

    Raises:
        UnknownName: Nothing of this name.
        VlkitError: Files are missing or damaged.
    """
    model: Model = load(name) if digests else load_meta(name)
    found = locate(name)
    folder = Path(found.where) if found.kind == "vlkit" else None
    return inspect_model(
        model,
        digests=digests,
        languages=() if folder is None else _card_languages(folder),
        bases=() if folder is None else _bases(folder),
    )


def inspect_model(
    model: Model, *, digests: bool = False, languages: tuple[str, ...] = (), bases: tuple[Base, ...] = ()
) -> Inspection:
    """A model that is built already; ``digests`` are of weights that are not on the meta device."""
    module, report = as_module(model), trainable_report(as_module(model))
    home = module_of(model.spec.kind, "facts")
    return Inspection(
        kind=model.spec.kind,
        spec=model.spec,
        parts=tuple(_parts(model, report, digests=digests)),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        facts={} if home is None else home.facts(model),
        languages=languages,
        bases=bases,
    )


def _parts(model: Model, report: Report, *, digests: bool) -> list[PartFacts]:
    found = []
    for row in report.rows:
        whole = model.parts().get(row.part.removesuffix(ADAPTER))
        adapted = row.part.endswith(ADAPTER) and whole is not None
        kind, name = part_kind(whole, adapter=adapted)
        digest = weights_digest(whole) if digests and whole is not None and not adapted else ""
        what = f"{kind}: {name}" if name else kind
        found.append(PartFacts(row.part, what, row.parameters, row.dtype, _license(kind, name), digest))
    return found


def _license(kind: str, name: str | None) -> str:
    return next((one.license for one in ASSETS if one.library == kind and name in (one.name, *one.aliases)), "")


def _bases(folder: Path) -> tuple[Base, ...]:
    """The models below adapters, the next one first."""
    found: list[Base] = []
    while len(found) < _MOST_BASES and (base := read_base(folder)) is not None:
        found.append(Base(*base))
        try:
            below = locate(base[0])
        except VlkitError:
            break  # it is not there; what was recorded of it is told all the same
        if below.kind != "vlkit":
            break
        folder = Path(below.where)
    return tuple(found)


def _card_languages(folder: Path) -> tuple[str, ...]:
    """Of the front matter of README.md, as model hubs read it."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    _, start, rest = text.partition("---\n")
    matter, end, _ = rest.partition("\n---")
    try:
        plain = parse_yaml(matter, where=str(path)) if start and end and text.startswith("---") else {}
    except VlkitError:
        return ()  # people write cards, too
    told = plain.get("language") if isinstance(plain, dict) else None
    return tuple(str(one) for one in ([] if told is None else told if isinstance(told, list) else [told]))
