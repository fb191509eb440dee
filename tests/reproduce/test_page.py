"""The page of the measured tables: its structure, and its behaviour in a real browser."""

import base64
import re

import pytest
from browser import chromium, find_chromium
from pages import Page
from reproductions import TOLERANCE, result

from swinir.reproduce.page import write_tables_page
from swinir.reproduce.published import TABLES
from swinir.reproduce.summary import Summary


def page_of(path, summary):
    write_tables_page(path, summary)
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_is_well_formed_complete_and_needs_no_network(summary, tmp_path):
    page = page_of(tmp_path / "all.html", summary)
    page.check_self_contained()
    assert "<script>throw" not in page.text
    for text in (
        "Reproduced 1 Explained 1 Differs 1 Another network 1 Failed 1 Missing 3",
        "<script>throw 1</script> | wrong",
        "Missing weights and images, and the commands that get them",
        "39.60 belongs to training patch 64",
        "Table 4: grayscale JPEG artifact removal Not measured.",
    ):
        assert text in page.words()
    plots = [attributes["src"] for attributes, _ in page.all("img")]
    assert len(plots) == 3  # table 2 near and far, table 3
    drawn = [base64.b64decode(plot.partition(",")[2]).decode() for plot in plots]
    assert [re.findall(r"measured here: (\w+)", text) for text in drawn] == [
        ["reproduced"], ["explained", "differs"], ["other"]
    ]  # fmt: skip


def test_an_infinite_figure_is_in_the_table_and_not_in_a_plot(tmp_path):
    perfect = result("table3", "Set5", 2, psnr=float("inf"))
    page = page_of(tmp_path / "p.html", Summary("table3", (TABLES["table3"],), (perfect,), (), (), TOLERANCE, {}))
    assert "inf/0.9611" in page.words()
    assert page.all("img") == []


@pytest.fixture(scope="module")
def tab(tmp_path_factory, summary):
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here; apt-get install chromium")
    folder = tmp_path_factory.mktemp("page")
    write_tables_page(folder / "all.html", summary)
    with chromium(program, folder / "profile") as tab:
        tab.open(folder / "all.html")
        yield tab


def test_the_browser_shows_every_plot_and_fetches_and_refuses_nothing(tab):
    assert tab.run("[...document.images].every(image => image.complete && image.naturalWidth > 300)")
    assert not [url for url in tab.requests if not url.startswith(("file:", "data:"))]
    assert tab.messages == []


def test_verdicts_sort_by_their_figures(tab):
    sets = "[...document.querySelectorAll('#table2 tbody')[0].rows].map(row => row.cells[1].textContent)"
    click = "[...document.querySelectorAll('#table2 th button')].find(b => b.textContent === '{}').click()"
    differences = "[...document.querySelectorAll('#table2 tbody')[0].rows].map(row => row.cells[6].textContent[0])"
    tab.run(click.format("Level"))
    assert tab.run(sets) == ["x2", "x4", "x4"]
    tab.run(click.format("Difference"))
    assert tab.run(differences) == ["-", "-", "+"]


def test_nothing_is_wider_than_a_phone(tab):
    tab.size(390, 800, mobile=True)
    tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.run("document.documentElement.scrollWidth") <= 390
    tab.size(1280, 900)
