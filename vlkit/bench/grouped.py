"""The grouped contrastive loss on a slow link: what crosses it, and the time of a step, beside exact losses."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from vlkit.bench.contrastive import Found, measured, paired, peer_name, summary, write_reference
from vlkit.bench.figures import Figures
from vlkit.bench.links import slow_link
from vlkit.bench.losses import Setting
from vlkit.errors import VlkitError

_SIDES = _GROUPED, _EXACT, _PEER = ["vlkit grouped", "vlkit", "open_clip"]


def bench_grouped(
    *,
    ranks: int = 4,
    batch: int = 1024,
    dim: int = 512,
    megabits: float = 1000.0,
    repeats: int = 5,
    tell: Callable[[str], object] = str,
) -> Figures:
    """Measures a step of the grouped loss and of two exact ones by turns; the groups are two halves of the processes.

    Negatives come from the own group, so this is a different loss from its peers. ``batch`` is pairs a process,
    ``megabits`` the rate of the link between the halves in 10^6 bits a second.

    Returns:
        Ratios of a step's time, bytes that a process receives from the other group in a step (of exact losses as a ring
        sends them), and the largest relative errors of gradients against float64: the grouped ones of the mean of the
        two groups' losses.

    Raises:
        VlkitError: An odd number of processes, or one of them failed.
    """
    if ranks < 2 or ranks % 2:
        raise VlkitError(f"two groups need an even number of ranks, not {ranks}")
    setting = Setting(batch=batch, dim=dim, group_size=ranks // 2)
    found, link = _measured(setting, ranks, megabits, repeats, tell)
    grouped, exact, peer = (summary(found, side) for side in _SIDES)
    return Figures(
        time_ratio=paired(found, "seconds", _GROUPED, _PEER),  # over open_clip's loss over all processes
        exact_time_ratio=paired(found, "seconds", _GROUPED, _EXACT),  # over vlkit's
        crossing_bytes=grouped.crossing,
        exact_crossing_bytes=exact.crossing,
        peer_crossing_bytes=peer.crossing,
        gradient_error=grouped.error,
        exact_gradient_error=exact.error,
        negatives_per_anchor=setting.group_size * batch - 1,  # other texts that an image meets
        grouped_s=grouped.seconds,
        exact_s=exact.seconds,
        peer_s=peer.seconds,
        link=link,  # a real one, or a model and its numbers
        peer=peer_name(setting),
        ranks=ranks,
        group_size=setting.group_size,
        batch=batch,
        dim=dim,
        scale=setting.scale,
        repeats=repeats,
    )


def _measured(
    setting: Setting, ranks: int, megabits: float, repeats: int, tell: Callable[[str], object]
) -> tuple[Found, str]:
    """What ``losses.measure`` found on each process, a modelled link added to its seconds; and the link in words."""
    with tempfile.TemporaryDirectory(prefix="vlkit-bench-") as name, slow_link(ranks, megabits=megabits) as link:
        tell("gradients in float64")
        reference = {}
        for side, groups in ((_GROUPED, 2), (_EXACT, 1)):
            folder = Path(name) / str(groups)
            folder.mkdir()
            write_reference(setting, folder, ranks=ranks, groups=groups)
            reference[side] = str(folder)
        tell(f"time ({link})")
        found = measured(
            "measure", setting, ranks=ranks, places=link.places, sides=_SIDES, repeats=repeats, reference=reference
        )
    for rank in found:
        for side in _SIDES:
            here = rank["sides"][side]
            more = link.seconds(here["crossing"], here["crossing_calls"])
            here["seconds"] = [seconds + more for seconds in here["seconds"]]
    return found, str(link)
