"""Any set of questions by its spec."""

from __future__ import annotations

from pathlib import Path

from vlkit.data.build.smpqa import own_plots
from vlkit.data.questions.choice_sets import read_cvqa, read_kaleidoscope, read_m3exam, read_xmmmu
from vlkit.data.questions.question_records import ImageQuestion
from vlkit.data.questions.statement_sets import read_m5, read_marvl, read_xvnli
from vlkit.data.questions.vqa_sets import read_maxm, read_mtvqa, read_smpqa, read_xgqa
from vlkit.spec.question_sets import (
    Cvqa,
    Kaleidoscope,
    M3Exam,
    M5Vgr,
    M5Vlod,
    MaRvl,
    MaXm,
    MtVqa,
    QuestionSetSpec,
    Smpqa,
    XGqa,
    XVnli,
)

_WITH_IMAGES = {"xgqa": read_xgqa, "maxm": read_maxm, "xvnli": read_xvnli, "marvl": read_marvl}


def open_set(spec: QuestionSetSpec) -> tuple[ImageQuestion, ...]:
    """The questions of a set, in the order of its files; no image is read. vlkit's own plots are drawn on first use.

    Raises:
        DataError: Files that are missing or wrong, images that are not there, or no language.
        MissingPackage: A package that reads its files is not installed.
    """
    match spec:
        case XGqa() | MaXm() | XVnli() | MaRvl():
            return _WITH_IMAGES[spec.kind](spec.path, Path(spec.images))
        case Smpqa():
            folder = None if spec.path is not None else own_plots()
            return read_smpqa(str(folder or spec.path), Path(folder or spec.images or ""))
        case M5Vgr() | M5Vlod():
            return read_m5(spec.path, stacked=spec.stacked, outlier=isinstance(spec, M5Vlod))
        case MtVqa():
            return read_mtvqa(spec.path)
        case Cvqa():
            return read_cvqa(spec.path, questions=spec.questions)
        case Kaleidoscope():
            images = None if spec.images is None else Path(spec.images)
            return read_kaleidoscope(spec.path, images, with_images_only=spec.with_images_only)
        case M3Exam():
            return read_m3exam(spec.path)
        case _:
            return read_xmmmu(spec.path)
