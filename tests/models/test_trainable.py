"""Freezing, the table of what trains, and the check that it was so."""

from __future__ import annotations

import pytest
import torch
from rich.console import Console
from torch import nn

from vlkit.errors import UnknownName, VlkitError
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.trainable import (
    check_moved,
    freeze,
    part_names,
    set_trainable,
    snapshot,
    trainable_report,
    unfreeze,
)


def trains(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_parts_are_children_and_the_scale(model) -> None:
    assert part_names(model) == ("image", "text", "image_head", "text_head", "scale")
    assert part_names(nn.Sequential(nn.Linear(2, 2))) == ("0",)


def test_freeze_and_unfreeze_are_each_others_inverse(model) -> None:
    before = trains(model)
    freeze(model, "image", "scale")
    assert trains(model) == {
        name for name in before if not name.startswith("image.") and name not in ("log_scale", "bias")
    }
    unfreeze(model, "image", "scale")
    assert trains(model) == before


def test_dotted_names_reach_inside(model) -> None:
    freeze(model, "image", "text", "image_head", "text_head", "scale")
    unfreeze(model, "image.blocks.1")
    assert trains(model) and all(name.startswith("image.blocks.1.") for name in trains(model))


def test_a_compiled_model_is_the_model_that_was_compiled(model) -> None:
    compiled = torch.compile(model)
    freeze(compiled, "image", "text", "image_head")
    assert {name.partition(".")[0] for name in trains(model)} == {"text_head", "log_scale", "bias"}
    assert str(trainable_report(compiled)) == str(trainable_report(model))
    unfreeze(compiled, "image_head")
    assert "image_head" in {name.partition(".")[0] for name in trains(model)}
    set_trainable(compiled, ["scale"])
    assert trains(model) == {"log_scale", "bias"}


def test_set_trainable_is_exact_and_forgets_what_was(model) -> None:
    freeze(model, "text_head")
    set_trainable(model, ["text_head", "scale"])
    assert trains(model) == {"text_head.map.weight", "text_head.map.bias", "log_scale", "bias"}


def test_parts_go_to_eval_when_frozen_and_come_back_with_the_models_mode(model) -> None:
    model.train()
    freeze(model, "image")
    assert not model.image.training and model.text.training
    unfreeze(model, "image")
    assert model.image.training
    model.eval()
    unfreeze(model, "image")
    assert not model.image.training


def test_other_frozen_parts_of_any_module_stay_in_eval_when_one_is_unfrozen() -> None:
    plain = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    freeze(plain, "0", "1")
    unfreeze(plain, "0")
    assert plain[0].training and not plain[1].training


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("imag", "no part 'imag'; did you mean 'image'?"),
        ("llm", "no part 'llm'; there are: image, image_head, scale, text, text_head"),
        ("image.blokcs", "no part of image 'blokcs'; did you mean 'blocks'?"),
        ("log_scale", "no part 'log_scale'; did you mean 'scale'?"),
    ],
)
@pytest.mark.parametrize("change", [freeze, unfreeze, lambda model, *parts: set_trainable(model, parts)])
def test_an_unknown_part_changes_nothing(model, part, message, change) -> None:
    before = trains(model)
    with pytest.raises(UnknownName) as error:
        change(model, "text", part)
    assert str(error.value) == message
    assert trains(model) == before


def test_a_part_without_parameters_cannot_train(model) -> None:
    bare = DualEncoder(model.image, model.text, embed_dim=16, image_head=nn.Identity())
    with pytest.raises(VlkitError, match=r"^part 'image_head' has no parameters, so it cannot train; leave it out$"):
        set_trainable(bare, ["image_head", "text_head"])
    with pytest.raises(VlkitError, match=r"^no part is named, so nothing would train; there are: image, text"):
        set_trainable(bare, [])
    freeze(bare, "image_head")


def test_report_counts_right(model) -> None:
    freeze(model, "image", "text")
    model.image.half()
    model.text.embedding.half()
    report = trainable_report(model, {"text_head": 1e-3, "image": 5e-5})
    rows = {row.part: row for row in report.rows}
    assert rows["text_head"].parameters == rows["text_head"].trainable == 24 * 12 + 12
    assert rows["image_head"].parameters == 16 * 12 + 16 * 20 + 20 + 20 * 12 + 12
    assert rows["scale"].trainable == 2
    assert rows["image"].trainable == 0 and rows["image"].lr is None, "a frozen part has no learning rate"
    assert (rows["image"].dtype, rows["text"].dtype) == ("float16", "float16+float32")
    assert rows["text_head"].lr == 1e-3 and rows["scale"].lr is None
    assert report.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert report.trainable == sum(row.trainable for row in report.rows)


def test_shared_parameters_count_once_in_the_totals() -> None:
    shared = nn.Linear(3, 3, bias=False)
    report = trainable_report(nn.ModuleDict({"a": shared, "b": shared, "c": nn.Linear(1, 1, bias=False)}))
    tied = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    tied["b"].weight = tied["a"].weight
    assert report.parameters == 10
    assert trainable_report(tied).parameters == 9


def test_report_prints_aligned_and_in_colour(model) -> None:
    freeze(model, "image", "text")
    report = trainable_report(model, {"scale": 1e-3})
    lines = str(report).splitlines()
    assert lines[0].split() == ["part", "parameters", "trainable", "dtype", "lr"]
    assert lines[-2].split() == ["scale", "2", "2", "float32", "0.001"]
    assert lines[-1].split() == ["total", f"{report.parameters:,}", f"{report.trainable:,}"]
    end = lines[0].index("parameters") + len("parameters")
    assert all(line[end - 1] != " " and line[end] == " " for line in lines), "numbers end in one column"
    console = Console(width=100, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(report)
    shown = console.export_text()
    assert all(row.part in shown for row in report.rows) and f"{report.parameters:,}" in shown


def test_report_refuses_a_rate_for_no_part(model) -> None:
    with pytest.raises(UnknownName, match=r"no part 'text_haed'; did you mean 'text_head'"):
        trainable_report(model, {"text_haed": 1.0})


def test_what_moved_is_checked_both_ways(model) -> None:
    before = snapshot(model)
    check_moved(before, snapshot(model), [])
    with torch.no_grad():
        model.text_head.map.weight[0, 0] += 1e-6
    after = snapshot(model)
    check_moved(before, after, ["text_head"])
    check_moved(before, after, ["text_head.map"])
    with pytest.raises(VlkitError) as error:
        check_moved(before, after, ["text_head", "scale", "image"])
    assert str(error.value) == (
        "scale, image should have trained and did not move (is it in the loss, and its learning rate above 0?)"
    )
    with pytest.raises(VlkitError) as error:
        check_moved(before, after, ["image_head"])
    assert str(error.value) == (
        "image_head should have trained and did not move (is it in the loss, and its learning rate above 0?); "
        "text_head.map.weight moved and should not have (only image_head trains)"
    )


def test_moved_buffers_count_against_a_frozen_part_only(model) -> None:
    before = snapshot(model)
    model.image_head.fit_mean(torch.randn(9, 16))
    with pytest.raises(VlkitError, match=r"image_head.mean_D moved and should not have"):
        check_moved(before, snapshot(model), [])
    with pytest.raises(VlkitError, match=r"^image_head should have trained and did not move"):
        check_moved(before, snapshot(model), ["image_head"])
    with torch.no_grad():
        model.image_head.up.bias += 1
    check_moved(before, snapshot(model), ["image_head"])


def test_a_changed_model_is_not_compared(model) -> None:
    before = snapshot(model)
    model.text_head.map.bias = None
    with pytest.raises(VlkitError, match=r"the model itself changed between the two snapshots: text_head.map.bias"):
        check_moved(before, snapshot(model), [])


def test_scale_is_a_part_of_what_moves(model) -> None:
    before = snapshot(model)
    with torch.no_grad():
        model.bias += 1
    check_moved(before, snapshot(model), ["scale"])
    with pytest.raises(VlkitError, match=r"^bias moved and should not have"):
        check_moved(before, snapshot(model), [])
