"""The one error of this distribution: something a person can mend, said in a sentence. The command line prints it."""

from __future__ import annotations


class Trouble(Exception):
    """Expected trouble; the message says what is wrong and what to do."""
