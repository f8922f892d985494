"""Label files are read whole or refused with all that is wrong; what no model can tell apart is counted."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from vlkit.data.names import imagenet
from vlkit.data.names import label_files as files
from vlkit.data.names.label_files import read_label_set
from vlkit.data.names.label_set import LabelSet, script
from vlkit.data.names.omw import build_omw, clean_lemma
from vlkit.data.names.template_files import read_templates, weighted
from vlkit.errors import DataError, UnknownName

BABEL = {
    "EN": [[0, 1], ["Tinca tinca", "Carassius"]],
    "DE": [[0, 2, 7], ["Schleie", "Weißer Hai", "Hahn"]],
    "NO": [[1, 134, 517], ["gullfisk", "trane", "trane"]],
    "ZH_YUE": [[999], ["廁紙"]],
}


def _write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_babel_imagenet_is_read_with_its_codes_and_openai_english(tmp_path: Path) -> None:
    labels = read_label_set(_write(tmp_path / "babel.json", BABEL))
    assert labels.languages == ("en", "de", "nb", "yue")
    assert labels.counts == {"en": 1000, "de": 3, "nb": 3, "yue": 1}
    assert labels.of("de")[:3] == [("Schleie",), None, ("Weißer Hai",)] and len(labels.of("DE")) == 1000
    assert labels.of("en")[0] == ("tench",)  # not the file's own


def test_the_license_of_babel_imagenet_is_said_once_and_its_names_are_not_copied(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files._announce.cache_clear()
    path = _write(tmp_path / "babel.json", BABEL)
    with caplog.at_level(logging.WARNING):
        labels, _ = read_label_set(path), read_label_set(path)
    assert [record for record in caplog.messages if "Non-Commercial License" in record] == caplog.messages
    assert len(caplog.messages) == 1
    with pytest.raises(DataError, match=r"may not be copied.*BabelNet"):
        labels.save(tmp_path / "copy.json")
    assert not (tmp_path / "copy.json").exists() and "Schleie" not in repr(labels)


def test_of_two_codes_of_one_language_the_fuller_is_kept(tmp_path: Path) -> None:
    both = {"KMR": [[1], ["a"]], "KU": [[1, 2], ["b", "c"]], "BH": [[1, 2], ["d", "e"]], "BHO": [[3], ["f"]]}
    labels = read_label_set(_write(tmp_path / "b.json", both))
    assert labels.names["ku"] == {1: ("b",), 2: ("c",)} and labels.names["bho"] == {1: ("d",), 2: ("e",)}
    assert labels.notes == ("KMR and KU are both ku; KMR was left out", "BH and BHO are both bho; BHO was left out")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([[0, 1], ["a"]], "DE: 2 class numbers but 1 names"),
        ([[1, 0], ["a", "b"]], "DE: class numbers must ascend, each once"),
        ([[1, 1], ["a", "b"]], "DE: class numbers must ascend, each once"),
        ([[0, 1000], ["a", "b"]], r"DE: class 1000 is not in 0\.\.999"),
        ([[-1, 0], ["a", "b"]], r"DE: class -1 is not in 0\.\.999"),
        ([["0"], ["a"]], "DE: class numbers must be integers"),
        ([[0], [" "]], "DE: a name is empty or no text"),
        ([[], []], "DE: no class has a name"),
        ([[0]], r"DE: must be \[\[class numbers\], \[names\]\]"),
    ],
)
def test_what_is_wrong_with_a_babel_file_is_named(tmp_path: Path, entry: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_label_set(_write(tmp_path / "bad.json", {"QXX": [[0], ["x"]], "DE": entry}))
    assert "no language 'QXX'" in str(caught.value) and "bad.json" in str(caught.value)  # all at once


def test_own_json_and_tables_say_the_same(tmp_path: Path) -> None:
    table = "language,class,name\nde,0,Schleie\nde,0,Schlei\ndeu,n01443537,Goldfisch\nsw,1,samaki wa dhahabu\n"
    own = {"labels": {"de": {"0": ["Schleie", "Schlei"], "1": "Goldfisch"}, "sw": {"n01443537": "samaki wa dhahabu"}}}
    one = read_label_set(_write(tmp_path / "labels.csv", table))
    other = read_label_set(_write(tmp_path / "labels.json", own))
    tabbed = read_label_set(_write(tmp_path / "labels.tsv", table.replace(",", "\t")))
    assert one.names == other.names == tabbed.names and one.num_classes == 2
    assert one.digest == other.digest
    saved = read_label_set(other.save(tmp_path / "saved.json"))
    assert (saved.names, saved.digest, saved.num_classes) == (other.names, other.digest, 2)
    assert read_label_set(tmp_path / "labels.csv", num_classes=1000).num_classes == 1000
    with pytest.raises(DataError, match=r"de: class 1 is not in 0\.\.0"):
        read_label_set(tmp_path / "labels.csv", num_classes=1)


def test_names_of_tables_are_whole_and_as_people_type_them(tmp_path: Path) -> None:
    want = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    table = f'class,language,name,note\n0,de,"Salz, Pfeffer",\n1,ko,\u1100\u1161\u2028\u200f,x\n2,fa,{want},\n'
    found = read_label_set(_write(tmp_path / "labels.csv", table))
    assert found.names == {
        "de": {0: ("Salz, Pfeffer",)},
        "ko": {1: ("\uac00",)},
        "fa": {2: (want,)},
    }
    tabbed = read_label_set(_write(tmp_path / "labels.tsv", 'language\tclass\tname\nde\t0\t12" Rohr\nde\t1\t"Rohr\n'))
    assert tabbed.names["de"] == {0: ('12" Rohr',), 1: ('"Rohr',)}
    own = read_label_set(_write(tmp_path / "own.json", {"labels": {"fr": {"0": "e\u0301toile\u200e"}}}))
    assert own.names["fr"] == {0: ("\u00e9toile",)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "language,class,name\npt-BR,0,trem\npt-PT,0,comboio\n",
            "line 3: 'pt-BR' and 'pt-PT' are both pt here",
        ),
        ("a.csv", "language,class,name\nde,0,x,y\n", "4 columns, the header has 3"),
        ("a.csv", 'language,class,name\nde,0,"x\nde,1,y\n', r"a\.csv:2: a quote is opened here and not closed"),
        ("a.csv", "language,class,name,name\nde,0,x,y\n", "the column 'name' is there twice"),
        ("a.json", '{"labels": {"de": {"0": "x", "0": "y"}}}', "the key '0' stands twice"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", '{"labels": {"de": {"0": "\\ud800"}}}', "half a character"),
        ("a.json", "{", r"a\.json: bad JSON"),
        ("a.json", "[]", "must hold one object"),
        ("a.json", {"labels": {"de": {"n1": "x", "0": ""}}}, "'n1' is no class.*class 0 has an empty name"),
        ("a.json", {"labels": {"de": {"0": "x"}, "deu": {"1": "y"}}}, "deu: the file has de twice"),
        ("a.json", {"labels": {"de": {"0": "x", "n01440764": "y"}}}, "class n01440764 is given twice"),
        ("a.csv", "language,name\nde,x\n", "lacks the columns class"),
        ("a.csv", "language,class,name\nde,0,\nqxx,1,x\nde,one,x\n", "line 2: empty name; line 3: .*'qxx'.*; line 4"),
    ],
)
def test_what_is_wrong_with_other_files_is_named(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_label_set(_write(tmp_path / name, content))


def test_a_missing_label_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        read_label_set(tmp_path / "none.json")


def _labels() -> LabelSet:
    names = {
        "de": {0: ("Kran",), 1: ("Kran",), 2: ("Hai", "Haifisch"), 3: ("Haifisch", "Hai"), 4: ("Laptop",)},
        "sr": {0: ("жерав",), 4: ("laptop",), 5: ("кран", "дизалица")},
    }
    return LabelSet("things", 6, names)


def test_report_counts_ambiguous_english_and_other_scripts() -> None:
    german, serbian = _labels().report({4: ("laptop", "notebook"), 0: ("laptop",)})
    assert (german.language, german.n_classes, german.n_names, german.n_ambiguous) == ("de", 5, 7, 4)
    assert (german.n_english, german.n_other_script) == (1, 0)
    assert serbian.scripts == {"CYRILLIC": 3, "LATIN": 1} and serbian.n_other_script == 1
    assert (serbian.n_ambiguous, serbian.n_english) == (0, 1)


def test_script_of_a_name() -> None:
    assert [script(x) for x in ("ひらがな漢字カー", "한국어", "T恤衫衣", "(+1)")] == ["CJK", "HANGUL", "CJK", "none"]


def test_classes_and_languages_can_be_chosen() -> None:
    labels = _labels()
    assert labels.of("serbian") == labels.of("sr")
    assert labels.subset([1, 2]).names == {"de": {1: ("Kran",), 2: ("Hai", "Haifisch")}}
    with pytest.raises(UnknownName, match="language of label set things 'fr'"):
        labels.of("fr")


def test_imagenet_order_and_the_classes_of_its_relatives() -> None:
    ids = imagenet.wordnet_ids()
    assert len(ids) == 1000 and list(ids) == sorted(ids)
    assert (ids[0], ids[999]) == ("n01440764", "n15075141")
    for number, name in ((0, "tench"), (134, "crane"), (999, "toilet tissue")):
        assert name in imagenet.english_lemmas()[number]
    assert len(imagenet.openai_templates()) == 80 and all(t.count("{}") == 1 for t in imagenet.openai_templates())
    assert len(imagenet.english_names()) == 1000
    assert [len(imagenet.class_indices(f"imagenet-{x}")) for x in ("1k", "v2", "a", "r")] == [1000, 1000, 200, 200]
    assert ids[imagenet.class_indices("imagenet-r")[0]] == "n01443537"  # goldfish
    with pytest.raises(UnknownName, match="imagenet-x"):
        imagenet.class_indices("imagenet-x")


def _wordnet(folder: Path, kind: str, code: str, rows: list[tuple[str, str]], *, prefix: bool = True) -> None:
    lines = [f"# Net of {code} {kind}\t{code}\thttp://x\tCC BY"]
    lines += [f"{offset}-n\t{f'{code}:' if prefix else ''}lemma\t{form}" for offset, form in rows]
    path = folder / kind / f"wn-{kind}-{code}.tab"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


TENCH, GOLDFISH, SHARK, TIGER = "01440764", "01443537", "01484850", "01491361"


@pytest.fixture
def wordnets(tmp_path: Path) -> Path:
    by_hand = [(TENCH, "Schleie"), (TENCH, "Tinka"), (GOLDFISH, "Goldfisch (Art)"), (GOLDFISH, "Gold_karausche")]
    by_hand += [(SHARK, "tench"), (SHARK, "Menschenhai"), (TIGER, "ab"), (TIGER, "cd"), ("00000001", "ab")]
    linked = [(TENCH, "schleie"), (TIGER, "eee"), ("00000002", "Hai")]
    _wordnet(tmp_path, "data", "deu", [*by_hand, (TIGER, "GAP!")], prefix=False)
    _wordnet(tmp_path, "wikt", "deu", linked)
    _wordnet(tmp_path, "wikt", "kor", [(TENCH, "鯉"), (TENCH, "텐치"), (SHARK, "상어"), (GOLDFISH, "금붕어")])
    _wordnet(tmp_path, "wikt", "qxx", [(TENCH, "x")])
    return tmp_path


def test_one_lemma_of_several_is_chosen_by_rule(wordnets: Path) -> None:
    labels = build_omw(wordnets, min_classes=1)
    german = {number: names[0] for number, names in labels.names["de"].items()}
    assert german == {
        0: "Schleie",  # in both files, though longer than Tinka
        1: "Gold karausche",  # without brackets
        2: "tench",  # the shorter
        3: "cd",  # ab has another sense
    }
    assert labels.names["ko"][0] == ("텐치",)  # not in Chinese characters, though these are shorter
    assert labels.languages == ("de", "en", "ko")
    assert labels.names["en"][17] == ("jay",) and len(labels.names["en"]) == 1000  # OpenAI's; by rule it would be "k"
    assert "English: OpenAI's names" in labels.notice
    assert any("qxx" in note for note in labels.notes)
    assert "Net of deu data (CC BY)" in labels.notice


def test_wordnets_behind_links_are_read_and_lines_end_at_line_ends_alone(tmp_path: Path) -> None:
    _wordnet(tmp_path / "elsewhere", "data", "deu", [(TENCH, "Schleie\u2028"), (GOLDFISH, "Gold\u0085fisch")])
    (tmp_path / "wns").mkdir()
    (tmp_path / "wns" / "deu").symlink_to(tmp_path / "elsewhere" / "data")
    assert build_omw(tmp_path / "wns", min_classes=1).names["de"] == {0: ("Schleie",), 1: ("Gold fisch",)}


def test_all_lemmas_and_without_english_ones(wordnets: Path) -> None:
    labels = build_omw(wordnets, lemmas="all", drop_english=True, min_classes=4)
    assert labels.languages == ("de", "en")
    assert labels.names["de"][0] == ("Schleie", "schleie", "Tinka")
    assert labels.names["de"][2] == ("Menschenhai",)
    assert labels.names["de"][3] == ("cd", "ab", "eee")
    again = read_label_set(labels.save(wordnets / "omw.json"))
    assert (again.names, again.notice, again.num_classes) == (labels.names, labels.notice, 1000)


def test_lemmas_are_spelled_as_in_running_text() -> None:
    assert clean_lemma("!עַקְרָב", "he") == "עקרב"
    assert clean_lemma("\ufb2a", "he") == "ש"  # a letter and its point in one sign
    assert clean_lemma("سَمَكَة", "ar") == "سمكة" and clean_lemma("آب", "ar") == "آب"
    assert clean_lemma("קאַץ", "yi") == "קאַץ"  # Yiddish writes its points
    assert clean_lemma("lynx (mammifère)|fr:lynx", "fr") == "lynx (mammifère)"
    assert clean_lemma("[[wandelende]]_[[tak]] ", "nl") == "wandelende tak"
    assert clean_lemma("e\u0301cole", "fr") == "\u00e9cole"
    assert clean_lemma("GAP!", "it") == clean_lemma(" ", "it") == ""
    assert clean_lemma("می\u200cخواهم", "fa") == "می\u200cخواهم"  # Persian needs its joiner


def test_what_is_wrong_with_wordnet_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no Open Multilingual Wordnet files"):
        build_omw(tmp_path)
    _wordnet(tmp_path, "data", "deu", [(TENCH, "Schleie")])
    with pytest.raises(DataError, match=r"no language in .* names 10 ImageNet classes"):
        build_omw(tmp_path)
    (tmp_path / "data" / "wn-data-deu.tab").write_text("# x\nwrong\tline\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"wn-data-deu\.tab:2: expected offset-pos"):
        build_omw(tmp_path)


def test_templates_keep_their_blanks_unless_told(tmp_path: Path) -> None:
    content = {"DE": ["ein Foto von  {} .", "{}", "{}"], "EN": ["a {} ."], "ZH": ["許多 {} 的照片."]}
    path = _write(tmp_path / "prompts.json", content)
    assert read_templates(path)["de"][0] == "ein Foto von  {} ."
    tidy = read_templates(path, normalize_whitespace=True, skip=["en"])
    assert tidy == {"de": ("ein Foto von {}.", "{}", "{}"), "zh": ("許多 {} 的照片.",)}
    assert weighted(tidy["de"]) == {"ein Foto von {}.": 1, "{}": 2}
    yaml = _write(tmp_path / "prompts.yaml", "no: ['et {}']\n")
    assert read_templates(yaml) == {"nb": ("et {}",)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"de": ["kein Platz"], "fr": ["{} et {}"]}, "de: the template 'kein Platz' has no slot.*fr: .*2 slots"),
        ({"qxx": ["{}"]}, "no language 'qxx'"),
        ({"de": "{}"}, "de: must be a list of texts"),
        ({"de": ["{}"], "deu": ["{}"]}, "the file has de twice"),
        ([], "must map language codes"),
        ("{", r"t\.json: bad JSON"),
    ],
)
def test_what_is_wrong_with_templates_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_templates(_write(tmp_path / "t.json", content))
