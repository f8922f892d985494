"""The figures of generated images in one language, from one number a prompt: means, shares of what is possible.

P prompts, C columns, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vlkit.evaluation.metrics.intervals import Interval, percentiles, resampled_sums, wilson_interval
from vlkit.evaluation.results.measures import Measure, Measures
from vlkit.evaluation.results.results_file import Value

Floats = npt.NDArray[np.float64]
RATIOS = {
    "ratio_acc1": ("acc1", "real_acc1"),
    "ratio_acc5": ("acc5", "real_acc5"),
    "acc1_of_english": ("acc1", "english_acc1"),
    "acc5_of_english": ("acc5", "english_acc5"),
}
"""A figure to the two that it is the ratio of."""
WAYS = {
    "clc_way": ("clc", "clc_floor", "clc_ceiling"),
    "css_way": ("css", "css_floor", "css_ceiling"),
    "clipscore_way": ("clipscore", "clipscore_floor", "real_clipscore"),
}
"""A figure to those that it is (first - second) / (third - second) of."""
_SURE = ("acc1", "acc5", "real_acc1", "real_acc5", "clc", "css", "clipscore", "clipscore_english", *RATIOS, *WAYS)


def _measure(name: str, title: str, short: str = "", *, share: bool = True) -> Measure:
    ends = (f"{name}_ci_low", f"{name}_ci_high") if name in _SURE or name == "kid" else ("", "")
    return Measure(title, short, *ends, share=share)


MEASURES = Measures(
    kind="generation",
    headline="acc1",
    bars=("acc1", "acc5", "real_acc5"),
    chance="chance",
    metrics={
        "acc1": _measure("acc1", "judged top-1", "top-1"),
        "acc5": _measure("acc5", "judged top-5", "top-5"),
        "real_acc1": _measure("real_acc1", "top-1 of real images"),
        "real_acc5": _measure("real_acc5", "top-5 of real images", "real top-5"),
        "ratio_acc1": _measure("ratio_acc1", "top-1 to real", share=False),
        "ratio_acc5": _measure("ratio_acc5", "top-5 to real", "to real", share=False),
        "acc1_of_english": _measure("acc1_of_english", "top-1 to English", share=False),
        "acc5_of_english": _measure("acc5_of_english", "top-5 to English", "to English", share=False),
        "image_acc1": _measure("image_acc1", "top-1 among real images"),
        "image_acc5": _measure("image_acc5", "top-5 among real images"),
        "color_acc": _measure("color_acc", "color right"),
        "object_acc": _measure("object_acc", "object right"),
        "clc": _measure("clc", "CLC", share=False),
        "clc_floor": _measure("clc_floor", "CLC, floor", share=False),
        "clc_ceiling": _measure("clc_ceiling", "CLC, ceiling", share=False),
        "clc_way": _measure("clc_way", "CLC between them", "CLC way", share=False),
        "css": _measure("css", "CSS", share=False),
        "css_english_first": _measure("css_english_first", "CSS, English first", share=False),
        "css_english_second": _measure("css_english_second", "CSS, English second", share=False),
        "css_floor": _measure("css_floor", "CSS, floor", share=False),
        "css_ceiling": _measure("css_ceiling", "CSS, ceiling", share=False),
        "css_way": _measure("css_way", "CSS between them", share=False),
        "clipscore": _measure("clipscore", "CLIPScore", "CLIPScore", share=False),
        "clipscore_floor": _measure("clipscore_floor", "CLIPScore, floor", share=False),
        "real_clipscore": _measure("real_clipscore", "CLIPScore of real images", share=False),
        "clipscore_way": _measure("clipscore_way", "CLIPScore between them", share=False),
        "clipscore_english": _measure("clipscore_english", "CLIPScore, English text", share=False),
        "kid": _measure("kid", "KID", share=False),
    },
    alike={"n_prompts": "prompts", "n_candidates": "candidates"},
    table="generation",
    explained="The judge looks at each image and ranks the English names of all candidates. Real images are of the "
    "same concepts, with the same judge. CLC and CSS are mean cosines of images of one prompt and seed in two "
    "languages, or half in English and all in it; the floor are other prompts, the ceiling other seeds in one "
    "language, and the figure between them is 0 at the floor and 1 at the ceiling. CLIPScore is 2.5 max(cosine, 0), "
    "its floor the texts of other prompts. KID is over the judge's features. Intervals resample prompts.",
)


def generation_values(each: Mapping[str, npt.ArrayLike], *, seed: int) -> dict[str, Value]:
    """Means over prompts, their ratios and ways, and 95 % intervals of the leading ones; all from one draw.

    Args:
        each: By the name of a figure, one number a prompt; of the parts of ratios and ways those that are known.
        seed: Of the resampling.
    """
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in each.items()}
    count = len(next(iter(columns.values())))
    names = list(columns)
    drawn_RC = resampled_sums(np.column_stack([*columns.values(), np.ones(count)]), np.arange(count), seed=seed)
    mean_R = dict(zip(names, (drawn_RC[:, :-1] / drawn_RC[:, -1:]).T, strict=True))
    mean = {name: np.asarray(values.mean()) for name, values in columns.items()}
    figures: dict[str, tuple[float, Interval]] = {
        name: (float(mean[name]), _interval(columns[name], mean_R[name])) for name in names
    }
    for name, (one, other) in RATIOS.items():
        if one in mean and other in mean:
            figures[name] = float(_over(mean[one], mean[other])), percentiles(_over(mean_R[one], mean_R[other]))
    for name, (one, floor, ceiling) in WAYS.items():
        if {one, floor, ceiling} <= set(mean):
            value, value_R = (
                _over(where[one] - where[floor], where[ceiling] - where[floor]) for where in (mean, mean_R)
            )
            figures[name] = float(value), percentiles(value_R)
    values: dict[str, Value] = {}
    for name in MEASURES.metrics:
        if name in figures:
            values[name] = figures[name][0]
            if name in _SURE:
                values |= dict(zip((f"{name}_ci_low", f"{name}_ci_high"), figures[name][1], strict=True))
    return values


def _over(one: Floats, other: Floats) -> Floats:
    """The ratio; NaN where what it is of is not above 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.where(other > 0, one / other, np.nan)
    return ratio


def _interval(values_P: Floats, drawn_R: Floats) -> Interval:
    if values_P.min() == values_P.max() and values_P[0] in (0, 1):
        return wilson_interval(int(values_P.sum()), len(values_P))
    return percentiles(drawn_R)
