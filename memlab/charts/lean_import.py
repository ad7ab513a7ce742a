"""Imports altair at half its price.

altair imports jsonschema, and jsonschema compiles a grammar for internationalised addresses where the package for it is
installed: 2.2 of 4.2 seconds of processor time, for a format that no chart's schema asks for. Every point of a sweep is a process
of its own and would pay it again.
"""

from __future__ import annotations

import sys

_GRAMMAR = "rfc3987_syntax"

if _GRAMMAR not in sys.modules:
    sys.modules[_GRAMMAR] = None  # type: ignore[assignment]  # an import of it fails, which jsonschema expects
    import altair  # noqa: F401

    del sys.modules[_GRAMMAR]
