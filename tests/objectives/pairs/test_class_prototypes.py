"""Class-prototype distillation on an encoder with a small classifier."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.dual_encoder.start import KnownClasses
from vlkit.models.feature_cache import encode_frozen
from vlkit.models.registry import build
from vlkit.objectives.pairs.class_prototypes import ClassPrototypes
from vlkit.objectives.pairs.pair_losses import PairLosses
from vlkit.objectives.weighted_sum import build_objective
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.objectives import ClassPrototypeObjective
from vlkit.spec.parts import HeadSpec, LinearHeadSpec, MlpHeadSpec, PrototypeHeadSpec, TinyImage, TinyText
from vlkit.types import ClassRows

NAMES = (("cat", "house cat"), ("dog",), ("fish", "cod", "herring"), ("oak",), ("elm", "elm tree"))
EMPTY = PairBatch(None, None, None, None, (), ())
HEADS: list[HeadSpec] = [
    LinearHeadSpec(),
    MlpHeadSpec(hidden=8, center=True),
    PrototypeHeadSpec(hidden=8, known_dim=4, num_classes=len(NAMES)),
]


def make(head: HeadSpec) -> DualEncoder:
    torch.manual_seed(0)
    image, text = TinyImage(image_size=16, width=16), TinyText(width=16)
    spec = DualEncoderSpec(image=image, text=text, embed_dim=12, image_head=head, text_head=LinearHeadSpec())
    model = build(spec)
    rows = ClassRows(torch.randn(5, 16), torch.randn(5), NAMES)
    model.image.class_rows = lambda: rows
    if isinstance(head, PrototypeHeadSpec):
        model.image_head.set_classes(rows, normalize(torch.randn(5, 4), dim=-1))
    return model.eval()


def features(model: DualEncoder, names: tuple[str, ...]) -> torch.Tensor:
    return encode_frozen(model.text, model.tokenize(names, language="en"))


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)
def test_it_tells_each_name_from_all_classes(head: HeadSpec) -> None:
    model = make(head)
    spec = ClassPrototypeObjective(names_per_step=5, temperature=0.2)
    objective = ClassPrototypes(spec, model, text_features=lambda names: features(model, tuple(names)))
    torch.manual_seed(3)
    loss = PairLosses([(1.0, objective)])(model, EMPTY)
    torch.manual_seed(3)  # the same draws: classes, then a name of each
    classes = torch.randperm(5)
    numbers = [int(draw * len(NAMES[row])) for draw, row in zip(torch.rand(5).tolist(), classes.tolist(), strict=True)]
    texts = [NAMES[row][number] for row, number in zip(classes.tolist(), numbers, strict=True)]
    text_BE = model.encode_text(model.tokenize(texts))
    class_KE = normalize(model.image_head.class_prototypes(model.image.class_rows()), dim=-1)
    logits = text_BE @ class_KE.T / 0.2
    torch.testing.assert_close(loss.total, cross_entropy(logits, classes))
    assert loss.parts["class_acc1"].item() == pytest.approx((logits.argmax(1) == classes).float().mean().item())
    assert not loss.parts["class_prototypes"].requires_grad and loss.total.requires_grad


def test_names_are_of_the_right_classes_and_all_of_them_come_up() -> None:
    model = make(HEADS[0])
    objective = ClassPrototypes(ClassPrototypeObjective(names_per_step=3), model, text_features=None)
    shown: list[list[str]] = []

    def tokenize(texts: list[str], *, language: str) -> None:
        assert language == "en" and len({owner(text) for text in texts}) == 3 == len(texts)
        shown.append(texts)

    # Both sides know every class: were a name given to a wrong class, it would not be told right.
    class_KE = normalize(torch.randn(5, 12), dim=-1)
    model.image_head.class_prototypes = lambda rows: class_KE  # type: ignore[method-assign]
    model.tokenize = tokenize  # type: ignore[method-assign, assignment]
    model.encode_text = lambda _: class_KE[[owner(text) for text in shown[-1]]]  # type: ignore[method-assign]
    for _ in range(60):
        assert PairLosses([(1.0, objective)])(model, EMPTY).parts["class_acc1"].item() == 1
    assert {name for texts in shown for name in texts} == {name for names in NAMES for name in names}


def owner(name: str) -> int:
    return next(row for row, names in enumerate(NAMES) if name in names)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)
def test_from_features_equals_from_tokens(head: HeadSpec) -> None:
    model, totals, grads = make(head), [], []
    spec = ClassPrototypeObjective(names_per_step=4)
    for text_features in (None, lambda names: features(model, tuple(names))):
        objective = ClassPrototypes(spec, model, text_features=text_features)
        torch.manual_seed(1)
        model.zero_grad()
        loss = PairLosses([(1.0, objective)])(model, EMPTY)
        loss.total.backward()
        totals.append(loss.total)
        grads.append(model.text_head.map.weight.grad.clone())
    torch.testing.assert_close(totals[0], totals[1])
    torch.testing.assert_close(grads[0], grads[1])


def test_class_features_are_the_means_of_the_names() -> None:
    model = make(HEADS[0])
    known = KnownClasses(model)
    expected = torch.stack([features(model, names).mean(0) for names in NAMES])
    torch.testing.assert_close(known.mean_features(features(model, known.names)), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rows", [None, lambda: None])
def test_an_encoder_without_a_classifier_is_refused(rows: object) -> None:
    model = make(HEADS[0])
    if rows is None:
        del model.image.class_rows
    else:
        model.image.class_rows = rows
    with pytest.raises(VlkitError, match=r"^the class_prototypes objective needs an image encoder with an ImageNet-1k"):
        build_objective([ClassPrototypeObjective()], model)


def test_a_head_that_is_not_ours_is_refused() -> None:
    model = make(HEADS[0])
    model.image_head = nn.Linear(16, 12)
    with pytest.raises(VlkitError, match=r"^the class_prototypes objective needs an image head of vlkit's own"):
        build_objective([ClassPrototypeObjective()], model)
