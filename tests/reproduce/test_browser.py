"""The page about the tables in a real browser: nothing fetched or refused, sorting, a phone."""

import pytest
from browser import chromium, find_chromium
from reproductions import result

from swinir.reproduce.page import write_page
from swinir.reproduce.published import TABLES
from swinir.reproduce.summary import Summary
from swinir.reproduce.verdict import Tolerance


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here; apt-get install chromium")
    folder = tmp_path_factory.mktemp("page")
    results = (
        result("table2", "Set5", 4, psnr=0.01),
        result("table2", "Manga109", 2, psnr=-0.1),
        result("table2", "Set14", 3, psnr=-0.5),
        result("table3", "Set14", 2, psnr=-0.9, published_network=False),
    )
    tables = (TABLES["table2"], TABLES["table3"])
    write_page(folder / "all.html", Summary("all", tables, results, (), (), Tolerance(), {"device": "cpu"}))
    with chromium(program, folder / "profile") as tab:
        tab.open(folder / "all.html")
        yield tab


def test_nothing_is_fetched_or_refused(tab):
    assert not [url for url in tab.requests if not url.startswith(("file:", "data:"))]
    assert tab.messages == []


def test_marks_have_the_colors_of_their_verdicts(tab):
    color = "getComputedStyle(document.querySelector('.plot .ours.{}')).fill"
    colors = [tab.run(color.format(kind)) for kind in ("reproduced", "explained", "differs", "another-network")]
    assert len(set(colors)) == 4
    cell = "getComputedStyle(document.querySelector('td .kind.{}')).color"
    assert [tab.run(cell.format(kind)) for kind in ("reproduced", "explained", "differs")] == colors[:3]


def test_names_of_lines_are_inside_the_drawing(tab):
    cut = """[...document.querySelectorAll('svg.plot')].flatMap(svg => [...svg.querySelectorAll('text')].filter(t =>
        t.getBoundingClientRect().left < svg.getBoundingClientRect().left ||
        t.getBoundingClientRect().right > svg.getBoundingClientRect().right)).map(t => t.textContent)"""
    assert tab.run("document.querySelectorAll('svg.plot .name').length") == 4
    assert tab.run(cut) == []


def test_verdicts_sort_by_their_figures(tab):
    names = "[...document.querySelectorAll('#table2 tbody')[0].rows].map(row => row.cells[2].textContent)"
    tab.run("[...document.querySelectorAll('#table2 th button')].find(b => b.textContent === 'Difference').click()")
    assert tab.run(names) == ["Set14", "Manga109", "Set5"]
    tab.run("[...document.querySelectorAll('#table2 th button')].find(b => b.textContent === 'Measured').click()")
    assert tab.run(names) == ["Set14", "Set5", "Manga109"]


def test_nothing_is_wider_than_a_phone(tab):
    tab.size(390, 800, mobile=True)
    tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.run("document.documentElement.scrollWidth") <= 390
    tab.size(1280, 900)
