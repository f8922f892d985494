"""Small copies of published question sets, in the exact form of their releases; images are of one colour."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.helpers.answering_fakes import COLORS


def picture(path: Path, color: str) -> Path:
    """An image file of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), COLORS[color]).save(path)
    return path


def encoded(color: str, kind: str = "PNG") -> bytes:
    """An encoded image of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", (9, 7), COLORS[color]).save(stream, kind)
    return stream.getvalue()


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), encoding="utf-8")
    return path


def gqa_question(text: str, answer: str, image: str, structural: str = "query") -> dict[str, Any]:
    """One question of xGQA, with what stands beside it in the release."""
    return {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "bus (0)"}], "entailed": [],
        "equivalent": ["202158855"], "question": text, "imageId": image, "isBalanced": True,
        "groups": {"global": "color", "local": "10q-bus_color"}, "answer": answer, "semanticStr": "select: bus (0)",
        "annotations": {"answer": {}, "question": {"4": "0"}, "fullAnswer": {"1": "0"}},
        "types": {"detailed": "directWhich", "semantic": "attr", "structural": structural},
        "fullAnswer": f"It is {answer}.",
    }  # fmt: skip


def xgqa(folder: Path) -> dict[str, Any]:
    """Three questions in English and German about two images."""
    for name, color in (("n406334", "red"), ("n1", "blue")):
        picture(folder / "images" / f"{name}.jpg", color)
    asked = {
        "en": ("What color is it?", "Is it red?", "What color is this?"),
        "de": ("Welche Farbe hat es?", "Ist es rot?", "Welche Farbe ist das?"),
    }
    for code, (first, second, third) in asked.items():
        questions = {
            "202158855": gqa_question(first, "red", "n406334"),
            "202158849": gqa_question(second, "yes", "n406334", "verify"),
            "7": gqa_question(third, "blue", "n1"),
        }
        write_json(folder / "zero_shot" / f"testdev_balanced_questions_{code}.json", questions)
    return {"kind": "xgqa", "path": str(folder / "zero_shot"), "images": str(folder / "images")}


def maxm(folder: Path) -> dict[str, Any]:
    """Two questions in French and Hebrew."""
    picture(folder / "images" / "0a9ecd0f.jpg", "green")
    for code, text, answers in (("fr", "De quelle couleur ?", ["vert", "vert clair"]), ("iw", "איזה צבע?", ["ירוק"])):
        pair = {
            "question_id": f"{code}_0", "question": text, "answers": answers[:1], "processed_answers": answers,
            "is_collection": False, "method": "exact",
        }  # fmt: skip
        content = {
            "dataset": "maxm_v1", "version": "1.0", "split": code,
            "annotations": [{"image_id": "0a9ecd0f", "image_url": "https://x", "qa_pairs": [pair]}],
        }  # fmt: skip
        write_json(folder / f"maxm_v1_{code}.json", content)
    return {"kind": "maxm", "path": str(folder), "images": str(folder / "images")}


def marvl(folder: Path) -> dict[str, Any]:
    """Two statements about the same two images in Swahili, one in Chinese."""
    for code, concept in (("sw", "81-Dawati"), ("zh", "39-熊猫")):
        picture(folder / "images" / code / "images" / concept / "81-5.jpg", "red")
        picture(folder / "images" / code / "images" / concept / "81-11.jpg", "blue")

    def line(code: str, number: int, concept: str, text: str, label: bool) -> dict[str, Any]:
        return {
            "concept": concept, "language": code, "caption": text, "left_img": "81-5.jpg", "right_img": "81-11.jpg",
            "annotator_info": {"annotator_id": "sw_02", "country_of_birth": "Tanzania", "age": 33},
            "chapter": "Cognition", "id": f"{code}-{number}", "label": label,
        }  # fmt: skip

    path = folder / "zero_shot" / "annotations"
    write_lines(path / "marvl-sw.jsonl", [line("sw", 0, "81-Dawati", "Kuna dawati", False),
                                          line("sw", 1, "81-Dawati", "Hakuna dawati", True)])  # fmt: skip
    write_lines(path / "marvl-zh.jsonl", [line("zh", 0, "39-熊猫", "左图有熊猫", True)])
    write_lines(path / "marvl-zh_gmt.jsonl", [])  # a machine translation, which is another set
    return {"kind": "marvl", "path": str(path), "images": str(folder / "images")}


def xvnli(folder: Path) -> dict[str, Any]:
    """Four statements about a photograph, on one of which annotators do not agree."""
    picture(folder / "images" / "759822302.jpg", "red")
    labels = ("contradiction", "neutral", "entailment", "-")
    for code in ("ar", "fr"):
        lines = [
            {
                "gold_label": label, "sentence1": "Un homme.", "sentence2": f"Phrase {number} {code}.",
                "captionID": "759822302.jpg#2", "pairID": f"759822302.jpg#2r{number}", "Flikr30kID": "759822302",
            }
            for number, label in enumerate(labels)
        ]  # fmt: skip
        write_lines(folder / "annotations" / code / "test.jsonl", lines)
    return {"kind": "xvnli", "path": str(folder / "annotations"), "images": str(folder / "images")}


def m5(folder: Path, kind: str, labels: Sequence[str]) -> dict[str, Any]:
    """A shard in Amharic and one in Berber, as M5 has them."""
    for code in ("am", "ber"):
        path = folder / "wds" / code / "shard_000000.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for number, label in enumerate(labels):
                members = {
                    "horizontally_stacked_images.jpg": encoded("red", "JPEG"),
                    "two_col_stacked_images.jpg": encoded("blue", "JPEG"),
                    "vertically_stacked_images.jpg": encoded("green", "JPEG"),
                    "hypothesis": f"ሁለቱም {number}".encode(),
                    "label_str": label.encode(),
                    "topic": b"bathrooms",
                    "language": code.encode(),
                    "sample_id": f"{code}-{number}".encode(),
                    "en_translation": b"Both",
                }
                for suffix, raw in members.items():
                    info = tarfile.TarInfo(f"{code}_{number:04d}.{suffix}")
                    info.size = len(raw)
                    tar.addfile(info, io.BytesIO(raw))
    return {"kind": kind, "path": str(folder)}


def smpqa(folder: Path) -> dict[str, Any]:
    """A grounding and a reading question about one plot in Korean, with the instruction that Centurio's files have."""
    picture(folder / "images" / "ko" / "bar_0.png", "yellow")
    end = "\nAnswer the question using a single word or phrase."
    for category, text, answer in (
        ("ground", 'Is the bar with label "책" the biggest?', "yes"),
        ("name", "What is the label of the yellow bar?", "책"),
    ):
        record = {"context": [text + end], "label": [""], "text_label": answer, "image_id": "images/ko/bar_0.png"}
        write_json(folder / f"ko_{category}.json", [record])
    return {"kind": "smpqa", "path": str(folder), "images": str(folder)}


def parquet(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """A parquet file; bytes become the hub's images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = {}
    for name, values in columns.items():
        if any(isinstance(one, bytes) for one in values):
            cells = [None if one is None else {"bytes": one, "path": None} for one in values]
            made[name] = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        else:
            made[name] = pa.array(list(values))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(made), path)
    return path


def mtvqa(folder: Path) -> dict[str, Any]:
    """Two images, one in German with two questions, one in Korean, whose code is KR there."""
    parquet(
        folder / "data" / "test-00000-of-00001.parquet",
        {
            "image": [encoded("red"), encoded("blue")],
            "id": ["DE_1", "KR_7"],
            "qa_pairs": [
                "[{'question': 'Was steht da?', 'answer': \"Auf geht's\"}, {'question': 'Wo?', 'answer': 'oben'}]",
                '[{"question": "무엇?", "answer": "파랑"}]',
            ],
            "lang": ["DE", "KR"],
        },
    )
    return {"kind": "mtvqa", "path": str(folder)}


def cvqa(folder: Path, label: int = 2) -> dict[str, Any]:
    """One question in Indonesian and one in Spanish about Chile."""
    options = ["merah", "hijau", "biru", "kuning"]
    parquet(
        folder / "data" / "test-00000-of-00001.parquet",
        {
            "image": [encoded("blue"), encoded("red")],
            "ID": ["5964281096652575511_1", "99_0"],
            "Subset": ["('Indonesian', 'Indonesia')", "('Spanish', 'Chile')"],
            "Question": ["Apa warnanya?", "¿De qué color?"],
            "Translated Question": ["What color?", "What color?"],
            "Options": [str(options), "['rojo', 'verde', 'azul', 'amarillo']"],
            "Translated Options": [str(list(COLORS))] * 2,
            "Label": [label, 0],
            "Category": ["Objects / materials / clothing", "Brands / products / companies"],
            "Image Type": ["Self", "External"],
            "Image Source": ["Self-open", "https://x"],
            "License": ["CC BY-SA 4.0", "CC BY 4.0"],
        },
    )
    return {"kind": "cvqa", "path": str(folder)}


def kaleidoscope(folder: Path) -> dict[str, Any]:
    """An exam in Portuguese: a question with an image and one without."""
    picture(folder / "UNESP" / "images" / "unesp_21.png", "red")

    def question(number: int, image: str | None, answer: int) -> dict[str, Any]:
        return {
            "language": "pt", "country": "Brazil", "file_name": "UNESP2014_1fase_prova", "source": "https://x",
            "license": "Unknown", "level": "University Entrance", "category_en": "English",
            "category_original_lang": "Inglês", "original_question_num": number, "question": f"Pergunta {number}",
            "options": ["vermelho", "verde", "azul", "amarelo"], "answer": answer, "image_png": image,
            "image_information": "essential", "image_type": "text", "parallel_question_id": None,
        }  # fmt: skip

    write_json(folder / "UNESP" / "data.json", [question(21, "unesp_21.png", 0), question(22, None, 1)])
    return {"kind": "kaleidoscope", "path": str(folder)}


def m3exam(folder: Path) -> dict[str, Any]:
    """A Chinese question with an image in the background and one of the options, and a Thai one."""
    root = folder / "multimodal-question"
    picture(root / "images-chinese" / "image-0.jpg", "red")
    picture(root / "images-chinese" / "image-1.png", "blue")
    picture(root / "images-thai" / "image-3.jpg", "green")
    record = {
        "question_text": "图中是什么颜色？", "background_description": ["看图 (image)[image-0.jpg]"],
        "answer_text": "B", "options": ["A. 蓝色", "B. (image)[image-1.png]", "C. 红色"], "need_image": "yes",
        "language": "chinese", "level": "low", "subject": "science", "subject_category": "natural-science",
        "year": "2010",
    }  # fmt: skip
    write_json(root / "chinese-questions-image.json", [record])
    thai = {**record, "question_text": "สีอะไร [image-3.jpg]", "background_description": [], "answer_text": "2",
            "options": ["๑. แดง", "๒. เขียว"], "language": "thai"}  # fmt: skip
    write_json(root / "thai-questions-image.json", [thai])
    return {"kind": "m3exam", "path": str(folder)}


def xmmmu(folder: Path) -> dict[str, Any]:
    """A question with two images, one of them in an option, one that names none, and an open one."""
    rows = {
        "id": ["validation_Art_1", "validation_Art_2", "validation_Art_3"],
        "question": ["<image 2> は何色？", "何色？", "数は？ <image 1>"],
        "options": ["['<image 1>', '赤']", "['青', '赤']", "[]"],
        "answer": ["B", "A", "['24', '24.0']"],
        "subfield": ["Drawing", "Drawing", "Math"],
        "image_1": [encoded("red"), encoded("blue"), encoded("green")],
        "image_2": [encoded("yellow"), None, None],
    }
    parquet(folder / "data" / "ja-00000-of-00001.parquet", rows)
    return {"kind": "xmmmu", "path": str(folder)}
