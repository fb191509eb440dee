"""The page about restored images: its content, and that files it is made from cannot make it do anything else."""

import os
import shutil

import numpy as np
import pytest
from pages import Page
from pictures import smooth, write
from PIL import Image
from reports import record, write_pair, write_records

from swinir.cli.main import main
from swinir.image_io.picture import Picture
from swinir.report.restore_page import fitted_size, inline_jpeg, write_report


def page_of(folder, *lines, **options):
    write_report(folder / "report.html", write_records(folder, *lines), **options)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def write_doubled(folder, name="a.png", **fields):
    """The record of an image of 24x20 that was doubled."""
    return write_pair(folder, name, smooth(20, 24), smooth(40, 48), **fields)


def test_a_page_has_counts_a_table_and_reasons(tmp_path):
    page = page_of(
        tmp_path,
        write_doubled(tmp_path, findings=["tiny: the noise"], noise_level=25.3, jpeg_quality=40.0, strength=0.5),
        record(input="in/b.png", output="out/b.png", status="failed", error="b.png: truncated", experts=[]),
        record(input="in/c.png", output="out/c.png", status="unchanged", experts=[], seconds=70),
        "no record",
    )
    facts = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert facts == {"Restored": "1", "Unchanged": "1", "Failed": "1", "Computing time": "1 min 13 s"}
    first, *others = page.table()
    assert first == {
        "Image": "a.png", "Status": "restored", "Before": "24×20", "After": "48×40",
        "Models": "lightweight_sr_x2_tiny", "Seconds": "1.50", "Noise": "25.3", "JPEG": "40",
    }  # fmt: skip
    assert [row["Status"] for row in others] == ["failed", "unchanged"]
    keys = [attributes.get("data-value") for attributes, _ in page.all("td")][: len(first)]
    assert keys == ["a.png", "restored", "480", "1920", "lightweight_sr_x2_tiny", "1.5", "25.3", "40.0"]
    assert f"SHA-256 {'f' * 64}" in page.text
    assert "strength 0.5; 1 image" in page.text
    assert "1 line of the file could not be read" in page.text
    assert "b.png: truncated" in "".join(page.texts("section", class_="failed"))
    assert "tiny: the noise" in page.texts("li")
    page.check_self_contained()


def test_both_images_are_shown_at_the_size_of_the_output_up_to_a_limit(tmp_path):
    line = write_doubled(tmp_path)
    page = page_of(tmp_path, line, max_side=48)
    before, after = page.images()
    assert before.size == after.size == (48, 40)
    assert np.abs(np.asarray(after).astype(int) - smooth(40, 48)).mean() < 2  # JPEG of quality 95
    bicubic = Image.fromarray(smooth(20, 24)).resize((48, 40), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(before).astype(int) - np.asarray(bicubic)).mean() < 2
    assert "Shown at" not in page.text
    page = page_of(tmp_path, line, max_side=16)
    assert [image.size for image in page.images()] == [(16, 13)] * 2
    assert "Shown at 16×13 of 48×40 pixels." in page.texts("p")


def test_the_first_images_are_shown_and_all_are_in_the_table(tmp_path):
    names = [f"{i}.png" for i in range(4)]
    page = page_of(tmp_path, *(write_doubled(tmp_path, name) for name in names), limit=3)
    assert [row["Image"] for row in page.table()] == names
    assert "the first 3 of 4 images" in page.text
    links = [a["href"] for a, _ in page.all("a")]
    assert links == [f"#{a['id']}" for a, _ in page.all("figure")]
    assert len(links) == 3


def test_every_kind_of_picture_is_encoded_for_a_browser():
    shown = inline_jpeg(Picture(smooth(6, 8, 1, np.uint16), np.zeros((6, 8), np.uint16)), (8, 6))
    (image,) = Page(f'<img src="{shown.uri}">').images()
    assert np.array_equal(image, np.full((6, 8, 3), 255))  # transparent, so white
    assert fitted_size(5000, 1, 1600) == (1600, 1)
    with pytest.raises(ValueError, match="finite"):
        inline_jpeg(Picture(np.full((2, 2, 1), np.nan, np.float32)), (2, 2))


def test_missing_unreadable_and_changed_files_are_stated_in_their_place(tmp_path):
    lines = [write_doubled(tmp_path, f"{name}.png") for name in ("no_input", "no_output", "broken")]
    (tmp_path / "in" / "no_input.png").unlink()
    (tmp_path / "out" / "no_output.png").unlink()
    (tmp_path / "out" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    write(tmp_path / "in" / "broken.png", smooth(20, 24, seed=1))
    page = page_of(tmp_path, *lines, record(input="in/none.png", output="out/none.png"))
    notes = page.texts("p", class_="missing")
    assert [note.partition(":")[0].removeprefix("No image ") for note in notes] == [
        "before",
        *["after"] * 2,
        "before",
        "after",
    ]
    assert "no_input.png does not exist" in notes[0]
    assert len(page.images()) == 3
    assert page.texts("p").count("The input has changed since it was restored.") == 1
    assert write_report(tmp_path / "report.html", tmp_path / "out").incomplete == 4


def test_scores_are_shown_for_references_of_the_same_size(tmp_path):
    lines = [write_pair(tmp_path, f"{n}.png", smooth(n, n), smooth(n, n)) for n in (8, 12)]
    page = page_of(tmp_path, *lines, write_doubled(tmp_path), gt=tmp_path / "in")
    assert [(row["PSNR"], row["SSIM"]) for row in page.table()] == [("∞", ""), ("∞", "1.0000"), ("", "")]
    assert [a["data-value"] for a, text in page.all("td") if text == "∞"] == ["Infinity"] * 4
    assert "a.png is 24x20, the output 48x40" in " ".join(page.texts("p"))
    assert dict(zip(page.texts("dt"), page.texts("dd"), strict=True))["SSIM, mean of 1"] == "1.0000"


HOSTILE = [
    "<script>alert(1)</script>.png",
    "</script><img src=x onerror=alert(1)>.png",
    '" onload="alert(1).png',
    "' autofocus onfocus='alert(1).png",
    "<!--.png",
    "{{ 7 * 7 }}{% raw %}.png",
    "&lt;b&gt;.png",
    "a\u202egnp.exe.png",
    "line\nbreak\0null.png",
    os.fsdecode(b"\xff\xfe.png"),
    "\ud800.png",
    "x" * 5000 + ".png",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_and_messages_are_text_and_nothing_else(tmp_path, name):
    usual = page_of(tmp_path, record(), record(output="out/b.png", status="failed"))
    page = page_of(
        tmp_path,
        record(input=f"in/{name}", output=f"out/{name}", experts=[[name, name]], settings=name, precision=name,
               findings=[name, f"Noise: standard deviation {name}", "JPEG: quality nan"], notes=[name], tile=name),
        record(input=f"in/{name}", output="out/b.png", status="failed", error=f"{name}: broken"),
    )  # fmt: skip
    assert {tag for tag, _, _ in page.elements} <= {tag for tag, _, _ in usual.elements}
    assert page.texts("script") == usual.texts("script")
    allowed = {name for _, attributes, _ in usual.elements for name in attributes}
    assert {name for _, attributes, _ in page.elements for name in attributes} <= allowed
    assert "\u202e" not in page.text
    if name.isprintable() and "/" not in name:
        assert page.texts("h3") == [name]


def test_a_name_that_is_no_text_is_shown_with_its_image(tmp_path):
    try:
        page = page_of(tmp_path, write_doubled(tmp_path, os.fsdecode(b"caf\xe9 <1>.png")))
    except OSError:
        pytest.skip("this file system refuses such names")
    assert len(page.images()) == 2
    assert r"caf\udce9 <1>.png" in page.texts("h3")[0]


def test_the_command_writes_a_page_and_mistakes_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path, write_doubled(tmp_path))
    shutil.copytree("in", "gt")
    assert main(["report", "out"]) == 0
    assert "report.html: 1 of 1 images shown; 0." in capsys.readouterr().out
    assert main(["report", "out/results.jsonl", "-o", "out/page.html", "--gt", "gt", "--limit", "0"]) == 0
    assert (tmp_path / "out" / "page.html").read_text().startswith("<!DOCTYPE html>")
    mistakes = {
        "absent.jsonl": "file not found: absent.jsonl; `swinir restore` writes results.jsonl",
        "in": "file not found: in/results.jsonl",
        "in/a.png": "no finished image in in/a.png",
        "out --gt absent": "folder not found: absent",
        "out --gt in/a.png": "not a folder",
        "out -o out/results.jsonl": "--output must end in .html",
        "out -o absent/a.html": "folder not found",
        "out --max-side 0": "--max-side must be at least 1",
        "out --limit -1": "--limit must be 0 or more",
    }
    (tmp_path / "report.html").unlink()
    capsys.readouterr()
    for words, message in mistakes.items():
        assert main(["report", *words.split()]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not (tmp_path / "report.html").exists()
