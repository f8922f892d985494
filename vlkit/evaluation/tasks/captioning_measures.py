"""The figures of captions and names: which stand where, what readers call them, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from vlkit.evaluation.results.measures import Measure, Measures
from vlkit.evaluation.tasks.controls import control_measures

Form = Literal["names", "sentences"]
_TITLES = {
    "chrf": ("chrF", "chrF"),
    "token_f1": ("token F1", "F1"),
    "exact_match": ("exact match", "exact"),
    "bleu": ("BLEU", "BLEU"),
    "cider": ("CIDEr-D", "CIDEr"),
    "rouge_l": ("ROUGE-L", ""),
    "bleu_coco_4": ("BLEU-4 of COCO", ""),
    "fidelity": ("fidelity", "fidelity"),
    "wrong_language": ("wrong language", ""),
    "fidelity_same_image": ("fidelity, same image", ""),
    "keyword_accuracy": ("keyword accuracy", ""),
}
_OF_FORM: Mapping[Form, tuple[str, ...]] = {
    "names": (
        "chrf",
        "token_f1",
        "exact_match",
        "fidelity",
        "wrong_language",
        "fidelity_same_image",
        "keyword_accuracy",
    ),
    "sentences": (
        *("chrf", "token_f1", "exact_match", "cider", "rouge_l"),
        *("bleu_coco_1", "bleu_coco_2", "bleu_coco_3", "bleu_coco_4"),
        *("bleu", "fidelity", "wrong_language", "keyword_accuracy"),
    ),
}
_FIDELITY: Mapping[Form, str] = {
    "names": "fidelity: no name of another language, of all the names there are, is nearer to the answer by chrF than "
    "one of the language asked for (a name that languages share counts for each; nothing in common counts for none); "
    "wrong language: one is nearer; same image: the same among the names of that image alone.",
    "sentences": "fidelity: a language identifier takes the answer for one in the language asked for; wrong language: "
    "for one in another; both are empty where it does not know that language.",
}
_WORDS: Mapping[Form, str] = {
    "names": "",
    "sentences": "CIDEr-D (times 100, as papers give it), ROUGE-L and BLEU of COCO are those of pycocoevalcap: of Penn "
    "Treebank words (PTB), after texts without blanks are cut by the segmenter that is named above. CIDEr-D weighs "
    "words by how rare they are among the references of these images. ",
}


def _measures(form: Form) -> Measures:
    metrics: dict[str, Measure] = {}
    for name in _OF_FORM[form]:
        title, short = _TITLES.get(name, ("", ""))
        metrics[name] = Measure(title, short, low=f"{name}_ci_low", high=f"{name}_ci_high")
    compared = ("chrf", "token_f1", "exact_match", "fidelity", *(("cider",) if form == "sentences" else ()))
    metrics |= control_measures(
        {name: _TITLES[name][0] for name in compared}, lead="chrf", shown=("token_f1_over_no_image",)
    )
    metrics["corpus_chrf"] = Measure()
    metrics["length"] = Measure("characters", share=False)
    metrics["reference_length"] = Measure("characters of references", share=False)
    return Measures(
        kind="captioning",
        headline="chrf",
        metrics=metrics,
        bars=("chrf", "fidelity"),
        gain="chrf_over_no_image",
        alike={"n_images": "images", "n_references": "references"},
        table="captions",
        explained="chrF, token F1 and exact match are means over images, each against the reference that is nearest; "
        f"{_WORDS[form]}{_FIDELITY[form]} Without the image and with a grey picture the model is asked the same; with "
        "another image means the answer to an image of another concept. Differences are paired; intervals resample "
        "concepts.",
    )


MEASURES: Mapping[Form, Measures] = {"names": _measures("names"), "sentences": _measures("sentences")}
"""Figures in 0..1, ``length``s in characters. ``X_no_image``, ``X_blank_image``, ``X_other_image``: the figure of a
control; ``X_over_no_image``, ...: by how much the answers are better than its. ``corpus_chrf``: chrF of all
answers together. ``bleu`` is with ``bleu_tokenizer``; ``cider`` (0..10), ``rouge_l`` and ``bleu_coco_1`` to
``bleu_coco_4`` are with the words of ``coco_tokenizer``."""
