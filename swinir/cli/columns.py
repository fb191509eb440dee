"""Tables on the terminal."""

from collections.abc import Iterable, Sequence


def aligned(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Lines with columns two spaces apart; those in `right` flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    flush = set(right)
    return [
        "  ".join(
            cell.rjust(w) if k in flush else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
