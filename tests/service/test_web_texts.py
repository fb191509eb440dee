"""The texts of the web page."""

from string import Formatter

import pytest

from swinir.service.web_texts import TEXTS, language_of


def test_all_languages_have_the_same_texts_with_the_same_values():
    def values(text):
        return {name for _, name, _, _ in Formatter().parse(text) if name}

    english, *others = TEXTS.values()
    for other in others:
        assert {key: values(text) for key, text in other.items()} == {
            key: values(text) for key, text in english.items()
        }


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("zh", "zh"), ("en-GB,zh;q=0.5", "en"), ("fr", "en"), ("", "en")],
)
def test_the_language_is_the_first_that_the_browser_names(accepted, language):
    assert language_of(accepted) == language
