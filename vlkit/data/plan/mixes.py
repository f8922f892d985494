"""Which share of the rows each language gets: what `data.mixing` says, worked out for the languages that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlkit.data.formats.caption_forms import tag
from vlkit.data.plan.sampling import wanted_of
from vlkit.errors import DataError, some
from vlkit.files import packaged
from vlkit.spec.dataset import (
    EnglishShareMixing,
    MixingSpec,
    ProportionalMixing,
    TemperatureMixing,
    TieredMixing,
    UniformMixing,
    WeightsMixing,
)

_OTHERS = "others"
_ENGLISH = "en"


def settled(mixing: MixingSpec, counts: Mapping[str, int], languages: Sequence[str] | None) -> MixingSpec:
    """A mixing that gives languages shares as plain weights of the languages that are there; others as they are.

    Rows are then dealt to languages first and to their samples next, so that the shares are met also where samples are
    in one language each, as machine-translated ones are.

    Args:
        mixing: What the recipe says.
        counts: Captions or answers of each language of the data, by BCP 47 tag.
        languages: Those to learn from; None for all.

    Raises:
        DataError: A language of ``languages`` is not there or has no share; none is left; limits that leave too little.
    """
    if isinstance(mixing, UniformMixing | WeightsMixing):
        return mixing
    here = tuple(sorted(counts)) if languages is None else wanted_of(languages, counts)
    shares: Mapping[str, float]
    if isinstance(mixing, TemperatureMixing):
        shares = _tempered(mixing, {language: counts[language] for language in here})
    elif isinstance(mixing, EnglishShareMixing):
        shares = with_english(dict.fromkeys(here, 1.0), mixing.share)
    elif isinstance(mixing, ProportionalMixing):
        shares = _proportional(mixing, here)
    else:
        shares = _tiered(mixing, here)
    if languages is not None and (without := [language for language in here if language not in shares]):
        raise DataError(
            f"data.mixing.kind = {mixing.kind} has no share for {', '.join(without)} of data.languages; leave out what "
            "it lacks, or use kind weights"
        )
    positive = {language: share for language, share in shares.items() if share > 0}
    if not positive:
        raise DataError(
            f"data.mixing.kind = {mixing.kind} leaves nothing to learn from; the data has: "
            f"{some(here, most=20) or 'none'}"
        )
    return WeightsMixing(weights=positive)


def with_english(shares: Mapping[str, float], english: float | None) -> dict[str, float]:
    """The shares with that of English set and the others scaled to the rest; unchanged where one of both is missing."""
    rest = sum(share for language, share in shares.items() if language != _ENGLISH)
    if english is None or _ENGLISH not in shares or rest <= 0:
        return dict(shares)
    return {
        language: english if language == _ENGLISH else share / rest * (1 - english)
        for language, share in shares.items()
    }


def tiers_of(mixing: TieredMixing) -> dict[str, tuple[str, ...]]:
    """The tiers, as BCP 47 tags.

    Raises:
        DataError: A language stands in two tiers.
    """
    given = _published()["tiers"]["centurio"] if mixing.tiers is None else mixing.tiers
    tiers = {name: tuple(tag(code) for code in codes) for name, codes in given.items()}
    place: dict[str, str] = {}
    for name, languages in tiers.items():
        for language in languages:
            if (first := place.setdefault(language, name)) != name:
                raise DataError(f"data.mixing.tiers: {language} stands in {first} and in {name}; keep one of them")
    return tiers


def _proportional(mixing: ProportionalMixing, here: Sequence[str]) -> dict[str, float]:
    given = _published()["proportional"][mixing.table]
    table = {tag(code): float(share) for code, share in given.items() if code != _OTHERS}
    others = float(given.get(_OTHERS, 0.0))
    known = {language: table.get(language, others) for language in here if language in table or others}
    return with_english(known, mixing.english)


def _tiered(mixing: TieredMixing, here: Sequence[str]) -> dict[str, float]:
    tiers = {name: [one for one in languages if one in here] for name, languages in tiers_of(mixing).items()}
    chosen = tiers if mixing.shares is None else {name: tiers[name] for name in mixing.shares}
    apart = mixing.english is not None and any(_ENGLISH in languages for languages in chosen.values())
    if apart:  # English has a share of its own: it takes nothing of its tier
        chosen = {name: [one for one in languages if one != _ENGLISH] for name, languages in chosen.items()}
    shares = _within(chosen, mixing.shares or {name: float(len(languages)) for name, languages in chosen.items()})
    return with_english({**shares, _ENGLISH: 1.0}, mixing.english) if apart else shares


def _within(tiers: Mapping[str, Sequence[str]], shares: Mapping[str, float]) -> dict[str, float]:
    return {language: shares[name] / len(languages) for name, languages in tiers.items() for language in languages}


def _tempered(mixing: TemperatureMixing, counts: Mapping[str, int]) -> dict[str, float]:
    amounts = np.array(list(counts.values()), dtype=np.float64)
    if not amounts.sum():
        return {}
    limits = np.full(len(amounts), 1.0 if mixing.max_share is None else mixing.max_share)
    if mixing.max_repeats is not None:
        limits = np.minimum(limits, mixing.max_repeats * amounts / amounts.sum())
    if limits.sum() < 1 - 1e-9:
        raise DataError(
            f"data.mixing: the limits leave {limits.sum():.3g} of all rows to {len(amounts)} languages; raise "
            f"max_share (now {mixing.max_share}) to at least {1 / len(amounts):.3g}"
        )
    return dict(zip(counts, _limited(amounts**mixing.alpha, limits).tolist(), strict=True))


def _limited(weights: NDArray[np.float64], limits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares in proportion to weights, none above its limit: what is cut off goes to the others in proportion."""
    shares: NDArray[np.float64] = weights / weights.sum()
    full = np.zeros(len(weights), dtype=bool)
    while (over := ~full & (shares > limits + 1e-12)).any():
        full |= over
        rest = ~full
        shares = np.where(full, limits, 0.0)
        if rest.any():
            shares[rest] = weights[rest] / weights[rest].sum() * (1 - limits[full].sum())
    return shares


@lru_cache(maxsize=1)
def _published() -> dict[str, Any]:
    from ruamel.yaml import YAML  # YAML 1.2, where `no` is a string

    found: dict[str, Any] = YAML(typ="safe", pure=True).load(packaged("data") / "language_mixes.yaml")
    return found
