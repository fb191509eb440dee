"""One HTML page about a folder of restored pictures: numbers, a table, before and after.

The page holds all it needs and asks no network. Names and messages come from files: they are escaped, and a policy
in the page lets nothing run or load but what is written here.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swinir.atomic import atomic_path
from swinir.image_io.picture import Picture
from swinir.image_io.reader import ImageError, named, read_picture
from swinir.photos.manifest import DONE
from swinir.report.frame import foot, head
from swinir.report.pair import QUALITY, Inlined, inline, shown_size
from swinir.report.rows import Entry, find_files, has_changed, read_results, score
from swinir.report.table import Row, escaped, expert_text, experts_text, number_cell, size_text, table

MAX_SIDE = 1600
LIMIT = 100
ZOOMS = (("fit", "Fit"), ("1", "1:1"), ("2", "2×"), ("4", "4×"))


@dataclass(frozen=True)
class Written:
    """What a page shows: pictures, those of them of which a file is missing or cannot be read, and all it lists."""

    shown: int
    missing: int
    listed: int


def write_report(
    path: Path,
    records: Path,
    *,
    gt: Path | None = None,
    max_side: int = MAX_SIDE,
    limit: int = LIMIT,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Write the page about what `swinir restore` recorded; one picture is in memory at a time.

    Args:
        path: of the page.
        records: `results.jsonl`, or the folder with it.
        gt: a folder of references, which are compared with results of the same stem and size.
        max_side: longest side of pictures on the page, in pixels.
        limit: how many pictures are shown; the table has all.
        progress: called with the number of steps done and in all.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: for records or references that are none, and numbers out
            of range.
        OSError: when the page cannot be written.
    """
    if max_side < 1:
        raise ValueError(f"max_side must be at least 1 pixel, got {max_side}")
    if limit < 0:
        raise ValueError(f"limit must be 0 or more pictures, got {limit}")
    results, strange = read_results(records)
    folder = records if records.is_dir() else records.parent
    rows = _rows(find_files(results, folder, gt), limit)
    shown = [row for row in rows if row.anchor]
    steps, done = len(shown) + len(rows) * (gt is not None), 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, steps)

    if gt is not None:
        for number, row in enumerate(rows):
            rows[number] = _scored(row)
            step()
        shown = [row for row in rows if row.anchor]
    missing = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(head(f"SwinIR report: {named(Path(folder.absolute().name))}"))
        file.write(_summary(rows, strange))
        file.write(_failures(rows))
        file.write(table(rows))
        file.write(_pictures_head(len(shown), sum(row.entry.result.status in DONE for row in rows), gt))
        for row in shown:
            before, after = _side(row.entry.source), _side(row.entry.target)
            missing += isinstance(before, str) or isinstance(after, str)
            file.writelines(_figure(row, before, after, max_side))
            step()
        file.write(f"</section>\n{foot()}")
    return Written(len(shown), missing, len(rows))


def _rows(entries: Sequence[Entry], limit: int) -> list[Row]:
    inputs = [entry.result.input for entry in entries]
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in inputs])
    except ValueError:  # absolute and relative ones
        common = ""
    rows, shown = [], 0
    for entry in entries:
        is_shown = entry.result.status in DONE and shown < limit
        shown += is_shown
        name = os.path.relpath(entry.result.input, common) if common else entry.result.input
        rows.append(Row(entry, named(Path(name)), f"p{shown}" if is_shown else ""))
    return rows


def _scored(row: Row) -> Row:
    if row.entry.result.status not in DONE or not os.path.isfile(row.entry.target):
        return row
    try:
        return replace(row, scores=score(row.entry))
    except (ValueError, OSError, MemoryError) as error:
        return replace(row, remark=f"Not compared: {error or 'not enough memory'}.")


def _side(path: Path) -> Picture | str:
    """A picture, or why there is none."""
    if not os.path.lexists(path):
        return f"{named(path)} is not there; it was moved or removed."
    try:
        return read_picture(path)
    except (ImageError, MemoryError) as error:
        return str(error) or f"{named(path)}: not enough memory"


# Text


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


# Summary


def _summary(rows: Sequence[Row], strange: int) -> str:
    results = [row.entry.result for row in rows]
    count = Counter(result.status for result in results)
    facts = {
        "Restored": str(count["restored"]),
        "Needed nothing": str(count["unchanged"] or ""),
        "Skipped": str(count["skipped"] or ""),
        "Failed": str(count["failed"]),
        "Computing time": _duration(sum(result.seconds or 0 for result in results)),
    }
    bad = ' class="bad"'
    tiles = "".join(
        f"<div{bad if name == 'Failed' and count['failed'] else ''}><dt>{name}</dt><dd>{value}</dd></div>\n"
        for name, value in (facts | _means(rows)).items()
        if value
    )
    experts = Counter(used for result in results for used in dict.fromkeys(result.experts))
    settings = Counter((r.settings, r.precision, r.tile) for r in results if r.status in DONE)
    lines = [
        f"{escaped(expert_text(name))}, {_counted(number, 'picture')}<br><code>SHA-256 {escaped(digest)}</code>"
        for (name, digest), number in experts.items()
    ]
    lines += [
        f"Settings <code>{escaped(digest) or 'unknown'}</code>: precision {escaped(precision) or 'unknown'}, tile "
        f"{escaped(str(tile or 'whole'))}; {_counted(number, 'picture')}"
        for (digest, precision, tile), number in settings.items()
    ]
    parts = [f'<section>\n<dl class="facts">\n{tiles}</dl>\n']
    if lines:
        parts.append(f"<details><summary>Experts and settings</summary>\n{_list(lines)}</details>\n")
    if strange:
        parts.append(f'<p class="soft">{_counted(strange, "line")} of the file could not be read as records.</p>\n')
    return "".join([*parts, "</section>\n"])


def _list(lines: Sequence[str]) -> str:
    return '<ul class="lists">\n' + "".join(f"<li>{line}</li>\n" for line in lines) + "</ul>\n"


def _means(rows: Sequence[Row]) -> dict[str, str]:
    scores = [row.scores for row in rows if row.scores is not None]
    columns = {
        "PSNR": ([s.psnr for s in scores], 2, " dB"),
        "SSIM": ([s.ssim for s in scores if s.ssim is not None], 4, ""),
        "PSNR Y": ([s.psnr_y for s in scores], 2, " dB"),
        "SSIM Y": ([s.ssim_y for s in scores if s.ssim_y is not None], 4, ""),
    }
    return {
        f"{name}, mean of {len(values)}": number_cell(sum(values) / len(values), digits).text + unit
        for name, (values, digits, unit) in columns.items()
        if values
    }


def _failures(rows: Sequence[Row]) -> str:
    """Failed and skipped ones with their reasons."""
    parts = []
    for status, title in (("failed", "Failed"), ("skipped", "Skipped")):
        lines = [
            f"<b>{escaped(row.name)}</b><br><span>{escaped(row.entry.result.error) or 'no reason recorded'}</span>"
            for row in rows
            if row.entry.result.status == status
        ]
        if lines:
            parts.append(f'<section class="{status}">\n<h2>{title}</h2>\n{_list(lines)}</section>\n')
    return "".join(parts)


# Pictures


def _pictures_head(shown: int, of: int, gt: Path | None) -> str:
    parts = [
        "Inputs have the size of their results here, by bicubic interpolation, and both are JPEG files of quality "
        f"{QUALITY}: for exact pixels look at the files themselves."
    ]
    if shown < of:
        parts.append(f"These are the first {shown} of {of} pictures; --limit shows more.")
    if gt is not None:
        parts.append("PSNR and SSIM are of the files, in 8 bits of RGB or luma (Y), with no border left out.")
    return f'<section>\n<h2>Before and after</h2>\n<p class="soft">{" ".join(parts)}</p>\n'


def _figure(row: Row, before: Picture | str, after: Picture | str, max_side: int) -> Iterator[str]:
    """Input and result, or what there is of them, with what is known about them."""
    remarks = [row.remark] if row.remark else []
    if isinstance(before, Picture) and has_changed(row.entry):
        remarks.append("The input has changed since it was restored.")
    known = next((picture for picture in (after, before) if isinstance(picture, Picture)), None)
    if known is not None:
        height, width = known.pixels.shape[:2]
        size = shown_size(known, max_side)
        if size != (width, height):
            remarks.append(f"Shown at {size_text(*size)} of {size_text(width, height)} pixels.")
    yield f'<figure id="{row.anchor}">\n{_caption(row, remarks)}'
    sides = []
    for label, picture in (("before", before), ("after", after)):
        if isinstance(picture, Picture):
            try:
                sides.append((label, inline(picture, size)))
            except (ValueError, OSError, MemoryError) as error:
                yield _missing(label, str(error) or "not enough memory")
        else:
            yield _missing(label, picture)
    if len(sides) == 2:
        yield from _slider(row.name, sides[0][1], sides[1][1])
    for label, inlined in sides if len(sides) == 1 else ():
        yield f"{_img(inlined, 'alone', f'{row.name}, {label}')}\n"
    yield f"{_details(row)}</figure>\n"


def _missing(label: str, reason: str) -> str:
    return f'<p class="missing"><b>No picture {label}:</b> {escaped(reason)}</p>\n'


def _caption(row: Row, remarks: Sequence[str]) -> str:
    result = row.entry.result
    facts = [
        f"{size_text(result.width, result.height)} → {size_text(result.output_width, result.output_height)}",
        experts_text(row) or ("needed nothing" if result.status == "unchanged" else ""),
        "" if result.seconds is None else _duration(result.seconds),
    ]
    if row.scores is not None:
        facts.append(f"{number_cell(row.scores.psnr, 2).text} dB")
    lines = [" · ".join(fact for fact in facts if fact), *remarks]
    text = "".join(f'<p class="soft">{escaped(line)}</p>' for line in lines)
    return f"<figcaption><h3>{escaped(row.name)}</h3>{text}</figcaption>\n"


def _details(row: Row) -> str:
    result = row.entry.result
    lines = [*result.findings, *result.notes, f"Written to {named(Path(result.output))}"]
    return f"<details><summary>Findings and notes</summary>\n{_list([escaped(line) for line in lines])}</details>\n"


def _img(picture: Inlined, kind: str, alt: str) -> str:
    return (
        f'<img class="{kind}" alt="{escaped(alt)}" width="{picture.width}" height="{picture.height}" draggable="false" '
        f'loading="lazy" decoding="async" src="{picture.uri}">'
    )


def _slider(name: str, before: Inlined, after: Inlined) -> Iterator[str]:
    buttons = "".join(
        f'<button type="button" value="{value}" aria-pressed="{str(value == "fit").lower()}">{title}</button>'
        for value, title in ZOOMS
    )
    yield f"""<div class="frame"><span class="tag">before</span><span class="tag">after</span>
<div class="view" data-zoom="fit" tabindex="0" role="group" aria-label="{escaped(name)}">
<div class="stack">
"""
    yield _img(before, "before", f"{name}, before")
    yield _img(after, "after", f"{name}, after")
    yield f"""
<div class="handle" aria-hidden="true"><span class="knob"></span></div>
</div>
</div>
</div>
<div class="controls">
<input type="range" min="0" max="100" value="50" aria-label="How much of {escaped(name)} is shown before">
<div class="zoom" role="group" aria-label="Zoom of {escaped(name)}">{buttons}</div>
</div>
"""
