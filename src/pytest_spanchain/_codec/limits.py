"""The bounds of a cassette file, shared by the writer, which refuses, and the reader, which aborts.

What the writer writes within them the reader can read back: a recording is never lost to its own reader.
"""

from __future__ import annotations

MAX_BYTES = 64 * 2**20
"""Size of the file."""

MAX_DEPTH = 64
"""Nesting of collections, the document's own included, aliases expanded."""

MAX_NODES = 2_000_000
"""Scalars, keys among them, and collections, aliases expanded."""

MAX_TEXT = 256 * 2**20
"""Characters of all scalars, keys included, aliases expanded."""

MAX_DIGITS = 4_000
"""Digits of an integer; Python itself converts no more than 4,300."""

MAX_KEY = 1_024
"""Characters of a mapping key as written; YAML has no longer simple keys."""
