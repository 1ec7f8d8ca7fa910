"""The base of every error whose message is written for the user: the door prints it as one line, no traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something a user can mend; the message names cause and remedy."""
