"""Which models lie on this computer, found without loading any.

Everything that scans blocks on the disk: call it in a thread. A file that has not changed is read
once per `ModelIndex`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aiplayground.gguf import GgufError, GgufReason, read_gguf

from ._facts import Facts, Kind, check_group, facts_of
from ._files import FileGroup, FoundFile, Walk, group_files, walk
from ._kinds import KINDS, checked_kind, kind_named
from ._names import match_model, unique_names
from ._paths import ModelPaths
from ._projectors import Projector, choose_projector
from ._types import LocalModel, ModelProblem, ModelScan, ModelType

__all__ = [
    "KINDS",
    "LocalModel",
    "ModelIndex",
    "ModelPaths",
    "ModelProblem",
    "ModelScan",
    "ModelType",
    "checked_kind",
    "find_models",
    "kind_named",
    "match_model",
]

# What may pass without the file's size or time changing, and so is asked again at each scan.
_PASSING = frozenset({GgufReason.MISSING, GgufReason.UNREADABLE})


class _Candidate(NamedTuple):
    group: FileGroup
    facts: Facts

    @property
    def path(self) -> Path:
        return self.group.files[0].path


class ModelIndex:
    """Lists models again and again, reading a file only when its size or time has changed.

    Safe to use from several threads; simultaneous scans run one after the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[FoundFile, Facts | ModelProblem] = {}

    def scan(self, roots: Sequence[Path], extra_files: Sequence[Path] = ()) -> ModelScan:
        """Look through `roots` and at `extra_files`; nothing that lies there raises."""
        with self._lock:
            found = walk(roots, extra_files)
            # Only what was seen this time is kept: removed files do not pile up.
            self._known = {file: self._read(file) for file in found.files}
            return _assemble(found, self._known)

    def _read(self, file: FoundFile) -> Facts | ModelProblem:
        known = self._known.get(file)
        if known is None or (isinstance(known, ModelProblem) and known.reason in _PASSING):
            return _read(file.path)
        return known


def find_models(roots: Sequence[Path], extra_files: Sequence[Path] = ()) -> ModelScan:
    """Look once through folders (hidden ones excepted, links followed) and at single files."""
    return ModelIndex().scan(roots, extra_files)


def _read(path: Path) -> Facts | ModelProblem:
    try:
        return facts_of(read_gguf(path))
    except GgufError as error:
        return ModelProblem(path, error.reason.value, error.message)


def _assemble(found: Walk, known: dict[FoundFile, Facts | ModelProblem]) -> ModelScan:
    problems = [_place_problem(path, error) for path, error in found.errors]
    projectors: list[Projector] = []
    candidates: list[_Candidate] = []
    for group in group_files(found.files):
        facts = check_group(group, known)
        if isinstance(facts, ModelProblem):
            problems.append(facts)
        elif facts.kind is not Kind.PROJECTOR:
            candidates.append(_Candidate(group, facts))
        elif facts.vision:
            projectors.append(Projector(group.files[0].path, facts.width))
    names = unique_names([(candidate.group.stem, candidate.path) for candidate in candidates])
    models = [
        _model(name, candidate, projectors)
        for name, candidate in zip(names, candidates, strict=True)
    ]
    models.sort(key=lambda model: (model.name.casefold(), model.name))
    problems.sort(key=lambda problem: problem.path)
    return ModelScan(tuple(models), tuple(problems))


def _model(name: str, candidate: _Candidate, projectors: Sequence[Projector]) -> LocalModel:
    group, facts = candidate
    projector = None
    if facts.kind is Kind.LLM:
        projector = choose_projector(candidate.path, group.stem, facts.width, projectors)
    return LocalModel(
        name=name,
        path=candidate.path,
        files=tuple(file.path for file in group.files),
        size=sum(file.size for file in group.files),
        type=ModelType(facts.kind.value),
        architecture=facts.architecture,
        parameters=facts.parameters,
        quantization=facts.quantization,
        context_length=facts.context_length,
        chat_template=facts.chat_template,
        license=facts.license,
        mtime=max(file.mtime_ns for file in group.files) / 1e9,
        projector=projector,
        vision=projector is not None,
    )


def _place_problem(path: Path, error: OSError) -> ModelProblem:
    if isinstance(error, FileNotFoundError):
        text = f"{path.name} does not exist. Check the path, or take it out of the settings."
        return ModelProblem(path, GgufReason.MISSING.value, text)
    if isinstance(error, NotADirectoryError):
        text = f"{path} is not a folder. Name the folder that holds the models."
        return ModelProblem(path, "not_a_folder", text)
    text = f"{path} cannot be looked at ({error.strerror or error}). Check its permissions."
    return ModelProblem(path, GgufReason.UNREADABLE.value, text)
