"""Limits of the operators that options are held to before torch is there."""

from __future__ import annotations

#: Most sources in a mixture, as in csrc/common/assignment.h.
MAX_SOURCES = 32
