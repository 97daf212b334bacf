"""Errors that a user can act on: one line, the culprit first, the nearest valid choice last."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_MESSAGE, WITH_REQUIREMENTS = 300, 600
"""Characters of a message, and of one that also says in full which files of a data set to put where."""


class ColdbenchError(Exception):
    """Bad input or a failed run; the command line prints it without a traceback.

    The message is one line of at most `longest` characters, whatever files, names and libraries put into it: spaces
    replace line ends, escapes replace control characters, and a long message loses its middle.
    """

    def __init__(self, message: str, longest: int = LONGEST_MESSAGE) -> None:
        visible = map(_visible, _shortened(message, longest))
        super().__init__(_shortened("".join(visible), longest))


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 100]} … {text[-97:]}"


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()


class MissingFile(ColdbenchError):
    """A file is absent that could be downloaded or put in its place. A damaged file raises ColdbenchError itself.

    The message says in full what to put where.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, WITH_REQUIREMENTS)


def unknown(kind: str, name: object, choices: Iterable[str], parent: str = "") -> ColdbenchError:
    """The error for a `name` that is not among `choices`; its message ends with the nearest choice and all of them.

    `parent` is the path, with a full stop at its end, that stands before the name and the nearest choice.
    """
    names, text = sorted(map(str, choices)), str(name)[:LONGEST_MESSAGE]
    close = get_close_matches(text, names, n=1, cutoff=0.5)
    hint = f"did you mean '{parent}{close[0]}'? " if close else ""
    return ColdbenchError(f"unknown {kind} '{parent}{text}': {hint}(valid: {', '.join(names)})")
