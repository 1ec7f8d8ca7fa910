"""The base of every error whose message is written for the user: the door prints it as one line, no traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something a user can mend; the message names cause and remedy, in one line."""

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """A text as one line that a terminal shows as it is: no line breaks, and no control characters from a file or a
    command."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
