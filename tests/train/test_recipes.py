"""Recipes by name, and what their headers say."""

import pytest
from conftest import DATA

from swinir.train.recipes import find_recipe, list_recipes

CONFIGS = DATA.parents[1] / "configs"


@pytest.mark.parametrize("name", ["tiny_x2", "lightweight_sr/tiny_x2", "configs/lightweight_sr/tiny_x2.toml"])
def test_a_recipe_has_three_names_in_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(name).samefile(CONFIGS / "lightweight_sr" / "tiny_x2.toml")


def test_a_file_comes_before_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_x2").write_text("")
    assert find_recipe("tiny_x2").resolve() == tmp_path / "tiny_x2"


def test_a_name_of_several_recipes_is_refused_with_their_folders():
    with pytest.raises(ValueError, match="choose color_jpeg_car/tiny_jpeg40 or jpeg_car/tiny_jpeg40"):
        find_recipe("tiny_jpeg40")


def test_every_recipe_says_what_it_trains_on_and_what_it_takes():
    recipes = list_recipes()
    assert len(recipes) > 40
    for recipe in recipes:
        assert recipe.title, recipe.name
        assert recipe.data, recipe.name
        assert recipe.hardware, recipe.name
