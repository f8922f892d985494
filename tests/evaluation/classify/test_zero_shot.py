from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.evaluate_fakes import BrokenModel, CountingModel, picture, plain
from vlkit import prompts
from vlkit.data.names.imagenet import english_names
from vlkit.errors import DataError, MissingPackage, UnknownName, VlkitError
from vlkit.evaluation.classify.label_lists import load_labels, read_labels, split_labels
from vlkit.evaluation.classify.zero_shot import Predictions, ZeroShotClassifier
from vlkit.evaluation.embed.texts import class_embeddings

LABELS = ["Katze", "Hund", "Auto", "Haus"]


@pytest.fixture
def classifier() -> ZeroShotClassifier:
    return ZeroShotClassifier(CountingModel(scale=20.0), LABELS, language="de")


def test_every_form_of_an_image_gives_the_same_answer(classifier, tmp_path):
    image = picture(0)
    array = np.asarray(image)
    image.save(tmp_path / "one.png")
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    forms = [
        tmp_path / "one.png",
        str(tmp_path / "one.png"),
        (tmp_path / "one.png").read_bytes(),
        image,
        array,
        array / 255,
    ]
    forms += [tensor, tensor.float() / 255]
    scores = classifier.classify(forms).scores
    assert torch.allclose(scores, scores[:1].expand_as(scores), atol=1e-6)
    for form in forms:
        assert torch.allclose(classifier.classify(form).scores, scores[:1], atol=1e-6)
    batch = torch.stack([tensor, tensor])
    assert classifier.classify(batch).scores.shape == (2, 4)
    assert classifier.classify(batch.permute(0, 2, 3, 1).numpy()).scores.shape == (2, 4)


def test_batches_do_not_matter(classifier):
    images = [picture(i) for i in range(5)]
    whole = classifier.classify(images).scores
    assert torch.allclose(classifier.classify(iter(images), batch_size=1).scores, whole, atol=1e-6)
    small = ZeroShotClassifier(classifier.model, LABELS, language="de", batch_size=1)
    assert torch.allclose(small.classify(images).scores, whole, atol=1e-6)


def test_permuted_labels_permute_scores(classifier):
    order = [2, 0, 3, 1]
    other = ZeroShotClassifier(classifier.model, [LABELS[i] for i in order], language="de")
    image = picture(3)
    assert torch.allclose(other.classify(image).scores, classifier.classify(image).scores[:, order], atol=1e-6)
    ranked = [[answer.label for answer in one.classify(image).top(4)[0]] for one in (classifier, other)]
    assert ranked[0] == ranked[1]


def test_several_names_are_averaged_and_shown_as_asked():
    model = CountingModel()
    expected = class_embeddings(model, [("cat", "kitten"), ("dog",)], templates=["a {}"])
    for labels in ([("cat", "kitten"), "dog"], {"cat": ["cat", "kitten"], "dog": "dog"}):
        classifier = ZeroShotClassifier(model, labels, templates="a {}")
        assert classifier.labels == ("cat", "dog")
        assert torch.equal(classifier.class_KE, expected)
    assert ZeroShotClassifier(model, {"🐱": "cat"}, templates="a {}").labels == ("🐱",)


def test_templates_default_to_those_of_the_language(classifier):
    assert classifier.language == "de"
    assert classifier.templates == prompts.templates("de")
    assert set(classifier.model.texts_seen) == {t.replace("{}", name) for t in classifier.templates for name in LABELS}
    assert set(classifier.model.languages_seen) == {"de"}


def test_probabilities_are_the_softmax_at_the_models_scale(classifier):
    predictions = classifier.classify([picture(0), picture(1)])
    assert torch.allclose(predictions.probabilities, (20.0 * predictions.scores).softmax(1))
    assert torch.allclose(predictions.probabilities.sum(1), torch.ones(2))


def test_top_is_sorted_ties_keep_the_order_of_labels_and_k_is_cut():
    # two labels with the same names are the same point: a tie
    classifier = ZeroShotClassifier(CountingModel(), {"first": "dog", "second": "dog", "third": "cat"}, templates="{}")
    answers = classifier.classify(picture(0)).top(9)[0]
    assert len(answers) == 3
    assert [a.score for a in answers] == sorted((a.score for a in answers), reverse=True)
    labels = [a.label for a in answers]
    assert labels.index("second") == labels.index("first") + 1
    with pytest.raises(VlkitError, match=r"k = 0: must be at least 1"):
        classifier.classify(picture(0)).top(0)


def test_predictions_print_as_a_table(classifier, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(0).save("a.png")
    predictions = classifier.classify(["a.png", picture(1)])
    shown = str(predictions)
    assert "a.png" in shown and "image 2" in shown and "%" in shown
    assert predictions.top(1)[0][0].label in shown
    assert repr(predictions).startswith("Predictions(2 images, 4 labels; '")
    assert repr(classifier).startswith("ZeroShotClassifier(4 labels, language='de', ")


def test_model_keeps_its_mode():
    model = CountingModel().train()
    ZeroShotClassifier(model, LABELS).classify(picture(0))
    assert model.training


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], r"no labels; give at least one, e.g. labels=\['cat', 'dog'\]"),
        ("cat", r"labels = 'cat' is one string; give a list, e.g. labels=\['cat', ...\]"),
        (["cat", " "], "label number 2 is blank; give it a name or leave it out"),
        (["cat", ("dog", "")], "label number 2 is blank"),
        (["cat", ()], "label number 2 has no name; give one or leave it out"),
        (["cat", "dog", " cat "], "label 'cat' is given twice, as number 1 and 3; leave one out"),
        (["e\u0301t\u00e9", "\u00e9t\u00e9"], "label 'été' is given twice"),
        (["cat", 3], "label number 2 is a int, 3; labels are strings or tuples of strings"),
        ({"cat": []}, "label number 1 has no name"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(VlkitError, match=message):
        ZeroShotClassifier(CountingModel(), labels)


def test_labels_that_differ_in_case_alone_are_kept_with_a_warning():
    with pytest.warns(UserWarning, match=r"labels 'arm' and 'Arm' differ in case alone"):
        assert tuple(read_labels(["arm", "Arm"])) == ("arm", "Arm")


def test_labels_from_a_line_and_from_a_file(tmp_path):
    assert split_labels("chat|matou, chien") == [("chat", "matou"), (" chien",)]
    assert split_labels("猫，狗、车") == [("猫",), ("狗",), ("车",)]
    assert split_labels("قطة، كلب") == [("قطة",), (" كلب",)]
    path = tmp_path / "labels.txt"
    path.write_text("# animals\nchat | matou\n\n \u200f\nchien\u2028noir\n#1\n", encoding="utf-8-sig")
    assert read_labels(load_labels(path)) == {"chat": ("chat", "matou"), "chien noir": ("chien noir",), "#1": ("#1",)}
    path.write_bytes("café".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"cannot read labels file .*labels\.txt: not UTF-8 text \(byte 3\); save it as UTF-8"
    ):
        load_labels(path)
    with pytest.raises(DataError, match=r"cannot read labels file .*none\.txt: no such file or directory"):
        load_labels(tmp_path / "none.txt")


def test_bad_language_and_templates():
    with pytest.raises(UnknownName, match=r"no language 'Germn'; did you mean .*German"):
        ZeroShotClassifier(CountingModel(), LABELS, language="Germn")
    with pytest.raises(VlkitError, match=r"templates is empty; give at least one such as 'a photo of a {}\.', or None"):
        ZeroShotClassifier(CountingModel(), LABELS, templates=[])
    with pytest.raises(VlkitError, match=r"a photo"):
        ZeroShotClassifier(CountingModel(), LABELS, templates=["a photo"])


def test_bad_images(classifier, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"cannot read image .*bad\.png"):
        classifier.classify([picture(0), tmp_path / "bad.png"])
    with pytest.raises(VlkitError, match=r"no images to classify; give at least one"):
        classifier.classify([])
    with pytest.raises(DataError, match=r"images is a int; give a path, a PIL image"):
        classifier.classify(3)
    with pytest.raises(
        DataError, match=r"image 1 is a tensor of shape \(9, 9, 3\); expected \(channels, height, width\)"
    ):
        classifier.classify(torch.zeros(9, 9, 3))
    with pytest.raises(
        DataError, match=r"cannot read image image 2: a float array with values -2 to 1; expected 0 to 1"
    ):
        classifier.classify([picture(0), np.linspace(-2, 1, 27).reshape(3, 3, 3)])


def test_names_given_are_used(classifier):
    assert classifier.classify([picture(0), picture(1)], names=["a", "b"]).images == ("a", "b")
    with pytest.raises(VlkitError, match="2 images but 1 names"):
        classifier.classify([picture(0), picture(1)], names=["a"])


def test_parts_join_to_the_whole(classifier):
    whole = classifier.classify([picture(0), picture(1)], names=["a", "b"])
    joined = Predictions.join([classifier.classify(picture(i), names=[name]) for i, name in enumerate("ab")])
    assert joined.images == whole.images and len(joined) == 2
    assert torch.allclose(joined.scores, whole.scores, atol=1e-6)


def test_nan_names_the_image(tmp_path):
    plain(0).save(tmp_path / "black.png")
    classifier = ZeroShotClassifier(BrokenModel(), LABELS)
    with pytest.raises(VlkitError, match=r"embedding of image .*black\.png is not finite"):
        classifier.classify([picture(0), tmp_path / "black.png"])
    with pytest.raises(VlkitError, match=r"embedding of image 2 is not finite"):
        classifier.classify([picture(0), plain(0)])


def test_two_senses_of_a_word_are_told_apart_by_their_other_names() -> None:
    from vlkit.evaluation.classify.label_lists import read_labels

    found = read_labels([("grue", "oiseau"), ("grue", "engin de levage"), "chat"])
    assert list(found) == ["grue", "grue, engin de levage", "chat"]
    assert found["grue, engin de levage"] == ("grue", "engin de levage")
    with pytest.raises(VlkitError, match="is given twice"):
        read_labels([("grue", "oiseau"), ("grue", "engin"), ("grue", "engin")])


def test_predictions_are_a_sequence_of_images(classifier):
    predictions = classifier.classify([picture(i) for i in range(3)], names=["a", "b", "<b>"])
    every = predictions.top(4)
    assert [one.image for one in predictions] == ["a", "b", "<b>"]
    assert [list(one) for one in predictions] == every
    assert predictions[1].image == predictions["b"].image == predictions[-2].image == "b"
    one = predictions["b"]
    assert (one.label, one.score, one.probability) == (every[1][0].label, every[1][0].score, every[1][0].probability)
    assert len(one) == 4 and one[3] == every[1][3]
    rest = predictions[1:]
    assert isinstance(rest, Predictions) and rest.images == ("b", "<b>") and [list(x) for x in rest] == every[1:]
    with pytest.raises(IndexError):
        predictions[3]
    with pytest.raises(UnknownName, match="no image 'c'; there are: <b>, a, b"):
        predictions["c"]


def test_predictions_are_a_data_frame_and_a_table_of_a_notebook(classifier, monkeypatch):
    pandas = pytest.importorskip("pandas")
    predictions = classifier.classify([picture(i) for i in range(3)], names=["a", "<script>", "c\x1b[2J"])
    frame = predictions.to_pandas()
    assert list(frame.columns) == ["image", "rank", "label", "probability", "cosine"] and len(frame) == 12
    best = frame[frame["rank"] == 1].set_index("image")
    for one in predictions:
        assert tuple(best.loc[one.image, ["label", "cosine"]]) == (one.label, one.score)
    assert frame.groupby("image")["probability"].sum().tolist() == pytest.approx([1, 1, 1])
    assert isinstance(frame, pandas.DataFrame)

    page = predictions._repr_html_()
    assert page.count("<tr>") == 1 + 3 and "&lt;script&gt;" in page and "<script>" not in page
    assert all(f"<bdi>{one.label}</bdi>" in page for one in predictions["a"].answers[:3])
    assert f"{100 * predictions['a'].probability:.1f} %" in page and r"c\x1b[2J" in page and "\x1b" not in page
    many = Predictions.join([predictions] * 20)
    assert "<p>50 of 60 images</p>" in many._repr_html_() and many._repr_html_().count("<img") == 50

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackage, match=r"a data frame needs the package 'pandas', .*pip install 'pandas'$"):
        predictions.to_pandas()


def test_a_notebook_shows_what_was_classified_while_it_is_there(classifier, tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    picture(0).save(path)
    predictions = classifier.classify([path, picture(1)])
    assert predictions._repr_html_().count("<img") == 2 and predictions[1:]._repr_html_().count("<img") == 1
    path.unlink()
    page = predictions._repr_html_()
    assert page.count("<img") == 1 and predictions[0].label in page
    bare = Predictions(predictions.labels, predictions.images, predictions.scores, predictions.probabilities)
    assert "<img" not in Predictions.join([predictions, bare])._repr_html_()


def test_classes_that_share_names_are_allowed_and_told() -> None:
    labels = [("missile",), ("grue", "oiseau"), ("grue", "engin"), ("grue", "engin"), "grue", ("missile",)]
    said = (
        r"labels share a name \('grue' and 'grue, engin': 'grue', .* and \d more\); the model may not tell them apart"
    )
    with pytest.warns(UserWarning, match=said):
        classifier = ZeroShotClassifier(CountingModel(), labels, language="fr")
    assert classifier.labels == ("missile", "grue", "grue, engin", "grue, engin (2)", "grue (2)", "missile (2)")
    assert classifier.names["grue, engin (2)"] == ("grue", "engin") and classifier.names["grue (2)"] == ("grue",)
    scores = classifier.classify(picture(0)).scores[0]
    torch.testing.assert_close(scores[[0, 2]], scores[[5, 3]])  # but for rounding, which hangs on the column
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ZeroShotClassifier(CountingModel(), [("chat", "matou"), "chien"])


def test_the_thousand_english_names_of_imagenet_are_labels() -> None:
    names = english_names()
    with pytest.warns(UserWarning, match="share a name"):
        found = read_labels([(name,) for name in names], repeated=True)
    assert len(found) == 1000 and {"missile (2)", "sunglasses (2)"} < set(found)
