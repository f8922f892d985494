from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.helpers.evaluate_fakes import BrokenModel, CountingModel, OracleModel, picture, plain, sample
from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.embed.encode import embed_images, similarity_scale
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.texts import class_embeddings, embed_texts
from vlkit.evaluation.tasks.engine import score_task
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask, openmoji_unseen
from vlkit.models.digest import weights_digest

TEXTS = ["a dog", "猫", "ein sehr langer Name für ein Ding", "كلب", "b", "a dog"]


@pytest.fixture
def task() -> ZeroShotTask:
    samples = [sample(number, de=f"Ding {number}") for number in range(6)]
    names = {
        "de": [(f"Ding {number}",) for number in range(6)],
        "en": [("thing 0", "first thing"), None, ("thing 2",), ("thing 3",), None, ("thing 5",)],
    }
    return ZeroShotTask("things", samples, names)


def test_one_image_at_a_time_equals_all_at_once():
    model, images = CountingModel(), [picture(i) for i in range(7)]
    whole = embed_images(model, images, encoding=Encoding(batch_size=64))
    assert torch.allclose(embed_images(model, images, encoding=Encoding(batch_size=1)), whole, atol=1e-6)
    assert torch.allclose(embed_images(model, iter(images), encoding=Encoding(batch_size=3)), whole, atol=1e-6)
    assert torch.allclose(whole.norm(dim=1), torch.ones(7))


def test_one_text_at_a_time_equals_all_at_once_in_any_order():
    model = CountingModel()
    whole = embed_texts(model, TEXTS)
    alone = torch.cat([embed_texts(model, [text]) for text in TEXTS])
    assert torch.allclose(whole, alone, atol=1e-6)
    assert torch.equal(embed_texts(model, TEXTS[::-1]), whole.flip(0))
    assert torch.allclose(embed_texts(model, TEXTS, encoding=Encoding(text_batch_size=2)), whole, atol=1e-6)


def test_equal_texts_are_encoded_once_and_short_ones_first():
    model = CountingModel()
    embed_texts(model, TEXTS, language="de")
    assert model.texts_seen == ["b", "猫", "a dog", "كلب", "ein sehr langer Name für ein Ding"]
    assert model.languages_seen == ["de"]


def test_class_embedding_is_the_mean_over_names_and_templates():
    model = CountingModel()
    templates = ["{}", "a photo of {}", "{}"]  # a template that occurs twice weighs twice
    ours = class_embeddings(model, [("cat", "kitten"), ("dog",)], templates=templates)
    texts = ["cat", "a photo of cat", "cat", "kitten", "a photo of kitten", "kitten"]
    expected = torch.nn.functional.normalize(torch.cat([embed_texts(model, [text]) for text in texts]).mean(0), dim=0)
    assert torch.allclose(ours[0], expected, atol=1e-6)
    assert not torch.allclose(
        ours[0], class_embeddings(model, [("cat", "kitten")], templates=templates[:2])[0], atol=1e-3
    )


def test_a_name_with_braces_is_not_a_template():
    model = CountingModel()
    class_embeddings(model, [("{}",), ("{0} {x}",)], templates=["a {}"])
    assert sorted(model.texts_seen) == ["a {0} {x}", "a {}"]


def test_embeddings_can_be_trained_on_and_modes_are_put_back():
    model = CountingModel().train()
    model.norm.eval()
    embeddings = embed_images(model, [picture(0)])
    assert model.training and not model.norm.training
    nn.Linear(16, 1)(embeddings).sum().backward()  # inference tensors would refuse


def test_modes_are_put_back_after_an_error():
    model = BrokenModel().train()
    with pytest.raises(VlkitError):
        embed_images(model, [plain(0)])
    assert model.training and model.norm.training


def test_each_image_is_encoded_once_whatever_the_number_of_languages(task):
    model = CountingModel()
    rows = evaluate_task(model, task, languages=["de", "eng"], variant="counting")
    assert model.images_seen == 6
    assert [(row.language, row.variant) for row in rows] == [("de", "counting"), ("en", "counting")]


def test_classes_without_a_name_leave_with_their_images(task):
    rows = {row.language: row for row in evaluate_task(CountingModel(), task)}
    assert (rows["de"]["num_classes"], rows["de"]["n_images"], rows["de"]["chance"]) == (6, 6, 1 / 6)
    assert (rows["en"]["num_classes"], rows["en"]["n_images"], rows["en"]["chance"]) == (4, 4, 1 / 4)
    assert rows["en"]["acc5"] == 1.0  # fewer than five classes: all of them are among the best


def test_accuracies_of_a_model_that_knows_the_answers():
    colors = {f"Farbe {c}": c for c in range(4)} | {"color 0": 0, "color 1": 2, "color 2": 1, "color 3": 3}
    names = {tag: [(f"{word} {c}",) for c in range(4)] for tag, word in (("de", "Farbe"), ("en", "color"))}
    images = [sample(c) for c in (0, 1, 2, 3, 3, 3)]
    task = ZeroShotTask("colors", images, names, targets=[0, 1, 2, 3, 3, 3])
    rows = {row.language: row for row in evaluate_task(OracleModel(colors), task)}
    assert (rows["de"]["acc1"], rows["de"]["chance_corrected"]) == (1.0, 1.0)
    assert rows["en"]["acc1"] == pytest.approx(4 / 6)  # two names are exchanged
    assert rows["en"]["ci_low"] < 4 / 6 < rows["en"]["ci_high"]


def test_scores_are_the_same_for_any_batch_size_and_seed_moves_the_interval_alone(task):
    model = CountingModel()
    small, large = (
        score_task(model, task, encoding=Encoding(batch_size=size, text_batch_size=size)) for size in (1, 64)
    )
    for tag, scores in small.languages.items():
        assert scores.values(task) == pytest.approx(large.languages[tag].values(task), abs=0, nan_ok=True)
    one, other = (small.languages["de"].values(task, seed=seed) for seed in (1, 2))
    assert one["acc1"] == other["acc1"]


def test_names_shared_by_two_classes_are_counted():
    names = {"en": [("bat",), ("bat",), ("ball",), ("bat", "stick")]}
    row = evaluate_task(CountingModel(), ZeroShotTask("t", [sample(i) for i in range(4)], names))[0]
    assert row["n_ambiguous"] == 2


def test_unknown_languages_and_those_without_names(task):
    with pytest.raises(UnknownName, match=r"no language of task things 'fr'; there are: de, en"):
        evaluate_task(CountingModel(), task, languages=["fr"])
    with pytest.raises(UnknownName, match=r"no language 'xx-nonsense'"):
        evaluate_task(CountingModel(), task, languages=["xx-nonsense"])


def test_what_is_not_finite_is_named():
    model = BrokenModel()
    with pytest.raises(
        VlkitError, match=r"the model's embedding of image 2 is not finite \(NaN or infinite\); its weights"
    ):
        embed_images(model, [plain(9), plain(0)], encoding=Encoding(batch_size=1))
    with pytest.raises(VlkitError, match=r"embedding of image b\.png is not finite"):
        embed_images(model, [plain(9), plain(0)], names=["a.png", "b.png"])
    with pytest.raises(VlkitError, match=r"embedding of text 'no!' is not finite"):
        embed_texts(model, ["a longer one", "no!", "b"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: embed_images(model, []), "no images to encode; give at least one"),
        (lambda model: embed_texts(model, []), "no texts to encode; give at least one"),
        (
            lambda model: embed_images(model, [plain(1)], encoding=Encoding(batch_size=0)),
            "batch_size = 0: must be at least 1",
        ),
        (lambda model: class_embeddings(model, [("a",), ()]), "class 1 has no name or no template"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(VlkitError, match=message):
        call(CountingModel())


def test_scale_is_the_models_own_up_to_its_limit():
    model = CountingModel(scale=30.0)
    assert similarity_scale(model) == pytest.approx(30.0)
    model.max_scale = 20.0
    assert similarity_scale(model) == 20.0
    assert similarity_scale(CountingModel()) == 100.0


def test_digest_follows_weights_and_buffers():
    model = CountingModel()
    before = weights_digest(model)
    assert before == weights_digest(CountingModel()) != weights_digest(CountingModel(seed=1))
    model.norm.running_mean += 1
    assert weights_digest(model) != before
    weights_digest(CountingModel().to(torch.bfloat16))  # numpy has no bfloat16


class TestTask:
    def source(self):
        return [
            sample(1, de="Hund", en="dog"),
            sample(2, de="Katze"),
            type(sample(3))(key="x", images=(lambda: plain(1),), captions={"de": ("Maus",)}, split="train"),
        ]

    def test_unseen_concepts_are_the_test_split_named_by_their_captions(self):
        task = openmoji_unseen(self.source())
        assert (task.name, [s.key for s in task.samples], task.prompt) == (
            "openmoji-unseen",
            ["key-1", "key-2"],
            "label",
        )
        assert task.names == {"de": [("Hund",), ("Katze",)], "en": [("dog",), None]}
        assert task.choose(["deu"]) == ("de",)

    def test_digest_follows_names_and_keys(self):
        source = self.source()
        assert openmoji_unseen(source).digest == openmoji_unseen(self.source()).digest
        task = openmoji_unseen(source)
        assert task.digest != replace(task, names={"de": task.names["de"]}).digest

    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda source: openmoji_unseen(source[2:]), "no sample with split 'test', so nothing is held out"),
            (lambda source: openmoji_unseen([source[0]] * 2), "2 test samples are of one concept, 'concept-1'"),
        ],
    )
    def test_data_that_gives_no_task(self, build, message):
        with pytest.raises(DataError, match=message):
            build(self.source())

    @pytest.mark.parametrize(
        ("names", "targets", "message"),
        [
            ({}, (), "task 't' has class names in no language"),
            ({"de": [("a",)] * 2}, (), "task 't' names 2 classes in 'de' but has targets up to 2"),
            ({"de": [None] * 3}, (), "task 't' has no image whose class has a name in 'de'"),
            ({"de": [("a",)] * 3}, [0], "task 't' has 3 images but 1 targets"),
            ({"de": [("a",)] * 3, "en": [("a",)] * 4}, (), r"must list every class in every language .*: de 3, en 4"),
        ],
    )
    def test_bad_tasks(self, names, targets, message):
        with pytest.raises(DataError, match=message):
            ZeroShotTask("t", self.source(), names, targets)
        with pytest.raises(DataError, match="task 't' has no images"):
            ZeroShotTask("t", [], names, targets)


def test_lengths_of_what_a_tower_gives_do_not_matter(task):
    class Loud(CountingModel):
        """Each text and image has a length of its own, as in towers that do not normalise."""

        def encode_text(self, tokens):
            return super().encode_text(tokens) * (1 + tokens.ids_BL.sum(1, keepdim=True) % 7)

        def encode_image(self, pixels_BCHW):
            return super().encode_image(pixels_BCHW) * (1 + 50 * pixels_BCHW[:, 0, 0, :1].abs())

    class Even(Loud):
        def encode_text(self, tokens):
            return nn.functional.normalize(super().encode_text(tokens), dim=1)

        def encode_image(self, pixels_BCHW):
            return nn.functional.normalize(super().encode_image(pixels_BCHW), dim=1)

    for one in (task, replace(task, templates=("{}", "a picture of {}"))):
        loud, even = (score_task(model, one).languages for model in (Loud(), Even()))
        for tag in one.names:
            assert torch.equal(loud[tag].best_NM, even[tag].best_NM)
            assert torch.allclose(loud[tag].probability_NM, even[tag].probability_NM, atol=1e-4)
