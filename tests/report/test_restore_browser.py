"""The page about restored pictures in a real browser: divider, zoom, panning, table."""

import pytest
from browser import chromium, find_chromium
from pictures import smooth
from reports import record, write_pair, write_records

from swinir.report.restore_page import write_report


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here; apt-get install chromium")
    folder = tmp_path_factory.mktemp("page")
    lines = [
        write_pair(folder, "wide.png", smooth(100, 300), smooth(200, 600), seconds=10.5),
        write_pair(folder, "b10.png", smooth(30, 20), smooth(60, 40), seconds=9),
        write_pair(folder, "b9.png", smooth(1400, 900), smooth(1400, 900), seconds=100),
        record(
            input="in/<b>.png", output="out/<b>.png", status="failed", error="<script>throw 1</script>", seconds=None
        ),
    ]
    write_report(folder / "report.html", write_records(folder, *lines))
    with chromium(program, folder / "profile") as tab:
        tab.open(folder / "report.html")
        yield tab


@pytest.fixture
def tab(browser):
    """The page as it is when it was opened."""
    browser.size(1280, 900)
    browser.call("Page.reload")
    browser.wait("performance.getEntriesByType('navigation')[0].loadEventEnd > 0 && typeof pairs === 'object'")
    return browser


CUT = "getComputedStyle(document.querySelector('#image1 .after')).clipPath"
HANDLE = """(() => { const s = document.querySelector('#image1 .stack').getBoundingClientRect();
    const h = document.querySelector('#image1 .handle').getBoundingClientRect();
    return (h.left + h.width / 2 - s.left) / s.width })()"""
AFTER = "document.querySelector('#image1 .after').getBoundingClientRect()"


def names(tab):
    return tab.run("[...document.querySelectorAll('tbody tr')].map(row => row.cells[0].textContent)")


def sorting(tab, column):
    return tab.run(f"document.querySelectorAll('th')[{column}].getAttribute('aria-sort')")


def test_pictures_load_and_nothing_is_fetched_or_refused(tab):
    tab.run("document.querySelectorAll('figure').forEach(f => f.scrollIntoView())")
    tab.wait("[...document.images].every(i => i.complete)")
    assert tab.run("[...document.images].map(i => [i.naturalWidth, i.naturalHeight])") == [
        [600, 200], [600, 200], [40, 60], [40, 60], [900, 1400], [900, 1400],
    ]  # fmt: skip
    assert not [url for url in tab.requests if not url.startswith(("file:", "data:"))]
    assert tab.messages == []


def test_the_divider_follows_the_keyboard(tab):
    assert tab.run(HANDLE) == pytest.approx(0.5, abs=0.01)
    before = tab.run(CUT)
    tab.run("document.querySelector('#image1 input').focus()")
    for _ in range(10):
        tab.press("ArrowRight", "ArrowRight", 39)
    assert tab.run("document.querySelector('#image1 input').value") == "60"
    assert tab.run(HANDLE) == pytest.approx(0.6, abs=0.01)
    assert tab.run(CUT) != before
    assert tab.run("document.querySelector('#image1 input').getAttribute('aria-valuetext')") == "60 % input"


def test_the_divider_follows_the_mouse(tab):
    left, top, width, height = tab.place("#image1 .stack")
    y = top + height / 3
    tab.drag([(left + width * 0.5, y), (left + width * 0.4, y), (left + width * 0.25, y)])
    assert tab.run(HANDLE) == pytest.approx(0.25, abs=0.02)
    tab.drag([(left + width * 0.9, y)])  # a click
    assert tab.run(HANDLE) == pytest.approx(0.9, abs=0.02)


def test_the_divider_follows_a_finger(tab):
    left, top, width, height = tab.place("#image1 .stack")
    y = top + height / 2
    tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": left + width / 2, "y": y}])
    for share in (0.55, 0.65, 0.75, 0.8):
        tab.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": left + width * share, "y": y}])
    tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    assert tab.run(HANDLE) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("zoom", "width"), [("1", 600), ("2", 1200), ("4", 2400)])
def test_zoom_is_in_pixels_of_the_picture(tab, zoom, width):
    tab.click(f"#image1 .zoom button[value='{zoom}']")
    assert tab.run(f"[{AFTER}.width, {AFTER}.height]") == [width, width / 3]
    expected = "auto" if zoom == "1" else "pixelated"
    assert tab.run("getComputedStyle(document.querySelector('#image1 .after')).imageRendering") == expected
    pressed = "[...document.querySelectorAll('#image1 .zoom [aria-pressed=true]')].map(b => b.value)"
    assert tab.run(pressed) == [zoom]
    tab.click("#image1 .zoom button[value='fit']")
    assert tab.run(f"{AFTER}.width") == 600


def test_zoom_is_in_dots_of_the_screen_even_when_they_change(tab):
    tab.click("#image1 .zoom button[value='2']")
    tab.size(1279, 900, dots=2)
    tab.wait(f"{AFTER}.width === 600")
    tab.size(1280, 900)
    tab.wait(f"{AFTER}.width === 1200")


def test_a_zoomed_picture_is_moved_by_the_mouse_and_the_divider_stays_in_sight(tab):
    tab.click("#image1 .zoom button[value='4']")
    scroll = "document.querySelector('#image1 .view').scrollLeft"
    start = tab.run(scroll)
    assert start > 0  # the middle stays in the middle
    left, top, width, height = tab.place("#image1 .view")
    y = top + height / 4
    tab.drag([(left + 100, y), (left + 60, y), (left + 30, y)])
    assert tab.run(scroll) == start + 70
    middle = """(() => { const v = document.querySelector('#image1 .view').getBoundingClientRect();
        const h = document.querySelector('#image1 .handle').getBoundingClientRect();
        return (h.left + h.width / 2 - v.left) / v.width })()"""
    tab.wait(f"Math.abs({middle} - 0.5) < 0.01")
    tab.drag([(left + width / 2, top + height / 2), (left + width * 0.7, top + height / 2)])
    assert tab.run(middle) == pytest.approx(0.7, abs=0.01)
    assert tab.run(scroll) == start + 70


def test_a_tall_picture_fits_the_window(tab):
    _, _, width, height = tab.place("#image3 .after")
    assert height <= 900 * 0.75 + 1
    assert width / height == pytest.approx(900 / 1400, rel=0.01)


def test_the_table_sorts_by_numbers_and_words_both_ways(tab):
    assert names(tab) == ["wide.png", "b10.png", "b9.png", "<b>.png"]
    seconds = tab.run("[...document.querySelectorAll('th')].findIndex(h => h.textContent.startsWith('Seconds'))")
    tab.click(f"th:nth-child({seconds + 1}) button")
    assert names(tab) == ["b10.png", "wide.png", "b9.png", "<b>.png"]
    assert (sorting(tab, seconds), sorting(tab, 0)) == ("ascending", "none")
    tab.click(f"th:nth-child({seconds + 1}) button")
    assert names(tab) == ["b9.png", "wide.png", "b10.png", "<b>.png"]
    assert sorting(tab, seconds) == "descending"
    tab.run("document.querySelector('th button').focus()")
    tab.press(" ", "Space", 32)
    assert names(tab) == ["<b>.png", "b9.png", "b10.png", "wide.png"]
    assert (sorting(tab, seconds), sorting(tab, 0)) == ("none", "ascending")


def test_nothing_is_wider_than_a_phone(tab):
    tab.size(390, 800, mobile=True)
    assert tab.run("document.documentElement.scrollWidth") <= 390
    tab.click("#image1 .zoom button[value='4']")
    assert tab.run("document.documentElement.scrollWidth") <= 390
