"""Which models lie on this computer, found without loading any.

Everything that scans blocks on the disk: call it in a thread. A file that has not changed is read
once per `ModelIndex`; with a cache file, once for all processes.
"""

from __future__ import annotations

from ._found import is_unfinished, same_model
from ._index import ModelIndex, find_models
from ._kinds import KINDS, checked_kind, kind_named
from ._names import match_model
from ._paths import ModelPaths
from ._removal import Removal, plan_removal
from ._types import Format, LocalModel, ModelProblem, ModelScan, ModelType

__all__ = [
    "KINDS",
    "Format",
    "LocalModel",
    "ModelIndex",
    "ModelPaths",
    "ModelProblem",
    "ModelScan",
    "ModelType",
    "Removal",
    "checked_kind",
    "find_models",
    "is_unfinished",
    "kind_named",
    "match_model",
    "plan_removal",
    "same_model",
]
