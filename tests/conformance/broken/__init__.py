"""For each rule a backend that breaks it and no other, as a small diff of the reference.

State that outlives a kernel would spoil other rules: it is kept by `ctx.data_dir`.
"""

from __future__ import annotations

from tests.conformance.broken import (
    cancellation,
    declaration,
    errors,
    faults,
    inference,
    lifecycle,
    streaming,
)
from tests.conformance.broken.variants import VARIANTS, Variant

__all__ = [
    "VARIANTS",
    "Variant",
    "cancellation",
    "declaration",
    "errors",
    "faults",
    "inference",
    "lifecycle",
    "streaming",
]
