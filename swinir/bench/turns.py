"""Entrants of a measurement that take turns, so that other work on the machine slows all of them alike.

An entrant that fails keeps its first error and takes no more turns; the others go on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar


@dataclass
class Entrant:
    """A network, or a way to run one, while it is measured."""

    label: str
    error: str | None = None
    peak_mb: float | None = None

    def release(self) -> None:
        """Free what the entrant's turns took; called when it fails."""


AnyEntrant = TypeVar("AnyEntrant", bound=Entrant)


def running(entrants: Sequence[AnyEntrant]) -> Iterator[AnyEntrant]:
    """The entrants that have not failed so far."""
    return (entrant for entrant in entrants if entrant.error is None)


def take_turns(entrants: Sequence[AnyEntrant], step: Callable[[AnyEntrant], None]) -> None:
    """Call `step` with one entrant after another and note its exception as the entrant's error."""
    for entrant in running(entrants):
        try:
            step(entrant)
        except Exception as error:  # of any network and library
            entrant.error = describe(error)
            entrant.release()


def describe(error: Exception) -> str:
    """One line: the text of errors that address users, the type and first line of others."""
    if isinstance(error, ValueError | OSError | ImportError | MemoryError) and str(error).strip():
        return " ".join(str(error).split())
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"
