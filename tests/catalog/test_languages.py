"""The language of a text is told where the text says enough, and left open otherwise."""

import pyarrow as pa
import pytest

from catalog.languages import CODES, likelihoods

SHIRTS = {
    "en": "A soft cotton shirt with long sleeves, made for cool evenings in the garden",
    "de": "Ein weiches Hemd aus Baumwolle mit langen Ärmeln für kühle Abende im Garten",
    "fr": "Une chemise en coton doux à manches longues pour les soirées fraîches au jardin",
    "es": "Una camisa suave de algodón con mangas largas para las noches frescas en el jardín",
    "it": "Una morbida camicia di cotone con maniche lunghe per le sere fresche in giardino",
    "pt": "Uma camisa macia de algodão com mangas compridas para as noites frescas no jardim",
    "nl": "Een zacht katoenen overhemd met lange mouwen voor koele avonden in de tuin",
    "uk": "М'яка бавовняна сорочка з довгими рукавами для прохолодних вечорів у саду",
    "ja": "涼しい夜の庭で着る長袖の柔らかい綿のシャツ",
    "zh": "适合凉爽夜晚在花园穿的柔软长袖棉衬衫",
    "ko": "정원의 시원한 저녁을 위한 부드러운 긴팔 면 셔츠",
    "el": "Μαλακό βαμβακερό πουκάμισο για δροσερά βράδια",
}


@pytest.mark.parametrize("code", SHIRTS)
def test_a_sentence_is_of_its_language(code: str) -> None:
    found = likelihoods(pa.array([SHIRTS[code], SHIRTS[code].upper()]))
    assert [CODES[place] for place in found.decided()] == [code, code]
    assert found.apart_from([code]).tolist() == [0, 0]
    others = [other for other in CODES if other != code]
    assert found.apart_from(others).tolist() == [1, 1]


def test_texts_that_say_too_little_are_of_no_language() -> None:
    texts = pa.array([None, "", "X1 200", "Nike Air Max", "Tee", "12345 !!", "µ"])
    assert likelihoods(texts).decided().tolist() == [-1] * 7
    assert likelihoods(texts).apart_from(["de"]).tolist() == [-1] * 7


def test_names_in_latin_letters_do_not_hide_the_language_around_them() -> None:
    texts = pa.array(
        ["Apple iPhone 15 Pro Max 透明手机保护壳防摔全包", "Nike Air Max for Men кроссовки мужские"]
    )
    assert likelihoods(texts).apart_from(["en"]).tolist() == [1, 1]


def test_one_of_two_near_languages_is_enough_to_be_in_neither_of_others() -> None:
    """What cannot be told between Danish and Norwegian is certainly no English."""
    text = pa.array(["god morgen og velkommen til alle som er her"])
    assert likelihoods(text).decided().tolist() == [-1]
    assert likelihoods(text).apart_from(["en"]).tolist() == [1]
    assert likelihoods(text).apart_from(["da"]).tolist() == [-1]


def test_a_text_is_judged_alike_in_any_company() -> None:
    texts = [*SHIRTS.values(), None, "Tee"]
    together = likelihoods(pa.chunked_array([texts[:3], texts[3:]]))
    for place, text in enumerate(texts):
        alone = likelihoods(pa.array([text], pa.string()))
        assert alone.scores[0].tolist() == together.scores[place].tolist()
        assert alone.evidence[0] == together.evidence[place]


def test_all_languages_wanted_leave_none_out() -> None:
    assert 1 not in likelihoods(pa.array(list(SHIRTS.values()))).apart_from(CODES)
