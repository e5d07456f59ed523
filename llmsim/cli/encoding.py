"""Output for terminals that know ASCII only: signs get their plain spelling in place of an error."""

import codecs
import sys

_PLAIN = {
    "×": "x", "·": "-", "–": "-", "—": "-", "…": "...", "µ": "u", "μ": "u", "±": "+-", "→": "->", "≥": ">=", "≤": "<=",
    "²": "2", "³": "3", "’": "'", "“": '"', "”": '"', "§": "section ",
}  # fmt: skip


def print_anywhere() -> None:
    """Make stdout and stderr write every text in the encoding that they have."""
    codecs.register_error("llmsim.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="llmsim.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end
