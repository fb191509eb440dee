"""The page about restored images in a browser: slider, zoom, sorting, and no requests to anyone."""

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
        record(input="in/<b>.png", status="failed", error="<script>throw 1</script>", seconds=None),
    ]
    write_report(folder / "report.html", write_records(folder, *lines))
    with chromium(program, folder / "profile") as tab:
        tab.open(folder / "report.html")
        yield tab


@pytest.fixture
def tab(browser):
    """The page, reloaded."""
    browser.size(1280, 900)
    browser.call("Page.reload")
    browser.wait("performance.getEntriesByType('navigation')[0].loadEventEnd > 0 && typeof pairs === 'object'")
    return browser


AFTER = "document.querySelector('#image1 .after').getBoundingClientRect()"
SCROLL = "document.querySelector('#image1 .view').scrollLeft"


def wait_for_divider(tab, frame, share, tolerance=0.01):
    """Wait until the divider of the first image is at a share of the width of an element."""
    position = f"""(() => {{ const frame = document.querySelector('#image1 {frame}').getBoundingClientRect();
        const handle = document.querySelector('#image1 .handle').getBoundingClientRect();
        return (handle.left + handle.width / 2 - frame.left) / frame.width }})()"""
    tab.wait(f"Math.abs({position} - {share}) < {tolerance}")


def names(tab):
    return tab.run("[...document.querySelectorAll('tbody tr')].map(row => row.cells[0].textContent)")


def sorting(tab, column):
    return tab.run(f"document.querySelectorAll('th')[{column}].getAttribute('aria-sort')")


def test_images_load_and_nothing_is_requested_or_blocked(tab):
    tab.run("document.querySelectorAll('figure').forEach(f => f.scrollIntoView())")
    tab.wait("[...document.images].every(i => i.complete)")
    sizes = tab.run("[...document.images].map(i => [i.naturalWidth, i.naturalHeight])")
    assert sizes == [[600, 200], [600, 200], [40, 60], [40, 60], [900, 1400], [900, 1400]]
    assert not [url for url in tab.requests if not url.startswith(("file:", "data:"))]
    assert tab.messages == []
    _, _, width, height = tab.place("#image3 .after")  # a tall image fits the window
    assert height <= 900 * 0.75 + 1
    assert width / height == pytest.approx(900 / 1400, rel=0.01)


def test_the_divider_follows_keyboard_mouse_and_finger(tab):
    clip = "getComputedStyle(document.querySelector('#image1 .after')).clipPath"
    wait_for_divider(tab, ".stack", 0.5)
    assert tab.run(clip) == "inset(0px 0px 0px 50%)"
    tab.run("document.querySelector('#image1 input').focus()")
    for _ in range(10):
        tab.press("ArrowRight", "ArrowRight", 39)
    wait_for_divider(tab, ".stack", 0.6)
    assert tab.run(clip) == "inset(0px 0px 0px 60%)"
    assert tab.run("document.querySelector('#image1 input').getAttribute('aria-valuetext')") == "60 % input"
    left, top, width, height = tab.place("#image1 .stack")
    y = top + height / 3
    tab.drag([(left + width * 0.5, y), (left + width * 0.4, y), (left + width * 0.25, y)])
    wait_for_divider(tab, ".stack", 0.25, 0.02)
    tab.drag([(left + width * 0.9, y)])  # a click
    wait_for_divider(tab, ".stack", 0.9, 0.02)
    tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": left + width / 2, "y": y}])
    for share in (0.55, 0.65, 0.75, 0.8):
        tab.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[{"x": left + width * share, "y": y}])
    tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    wait_for_divider(tab, ".stack", 0.8, 0.02)


def test_zoom_is_in_pixels_of_image_and_screen(tab):
    for zoom, width in (("1", 600), ("2", 1200), ("4", 2400)):
        tab.click(f"#image1 .zoom button[value='{zoom}']")
        assert tab.run(f"[{AFTER}.width, {AFTER}.height]") == [width, width / 3]
        rendering = tab.run("getComputedStyle(document.querySelector('#image1 .after')).imageRendering")
        assert rendering == ("auto" if zoom == "1" else "pixelated")
        pressed = "[...document.querySelectorAll('#image1 .zoom [aria-pressed=true]')].map(b => b.value)"
        assert tab.run(pressed) == [zoom]
    tab.size(1279, 900, dots=2)
    tab.wait(f"{AFTER}.width === 1200")
    tab.size(1280, 900)
    tab.wait(f"{AFTER}.width === 2400")
    tab.click("#image1 .zoom button[value='fit']")
    assert tab.run(f"{AFTER}.width") == 600


def test_a_zoomed_image_is_moved_by_the_mouse_and_the_divider_stays_in_sight(tab):
    tab.click("#image1 .zoom button[value='4']")
    start = tab.run(SCROLL)
    assert start > 0  # the middle stays in the middle
    left, top, width, height = tab.place("#image1 .view")
    y = top + height / 4
    tab.drag([(left + 100, y), (left + 60, y), (left + 30, y)])
    assert tab.run(SCROLL) == start + 70
    wait_for_divider(tab, ".view", 0.5)
    tab.drag([(left + width / 2, top + height / 2), (left + width * 0.7, top + height / 2)])
    wait_for_divider(tab, ".view", 0.7)
    assert tab.run(SCROLL) == start + 70


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
