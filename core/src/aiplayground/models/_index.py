"""The listing: what is found, read and put together."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from aiplayground.gguf import GgufError, GgufReason, read_gguf

from . import _cache
from ._facts import PROJECTOR, UNKNOWN, Facts, check_group, facts_of
from ._files import Walk, walk
from ._found import FileGroup, FoundFile, group_files, suffix_of
from ._names import unique_names
from ._projectors import Projector, choose_projector
from ._read import read_other
from ._types import Format, LocalModel, ModelProblem, ModelScan, ModelType

# What may pass without the file's size or time changing, and so is asked again at each scan.
_PASSING = frozenset({GgufReason.MISSING, GgufReason.UNREADABLE})

KindOf = Callable[[Path], str | None]
"""Says which kind of model a file's folder is for, if it is for one."""

# Weights of these kinds are told apart by their folder alone.
_ALIKE: Mapping[str, frozenset[str]] = {
    "checkpoint": frozenset({"checkpoint", "inpaint"}),
    "vae": frozenset({"vae", "vae_approx"}),
    "controlnet": frozenset({"controlnet", "model_patch"}),
    "diffusion_model": frozenset({"diffusion_model", "inpaint", "checkpoint"}),
    "upscale": frozenset({"upscale", "face_restore", "latent_upscale"}),
    "stt": frozenset({"stt", "audio_encoder"}),
    "llm": frozenset({"llm", "text_encoder"}),
}


class _Candidate(NamedTuple):
    group: FileGroup
    facts: Facts

    @property
    def path(self) -> Path:
        return self.group.files[0].path

    @property
    def place(self) -> Path:
        return self.group.files[0].place or self.path


class ModelIndex:
    """Lists models again and again, reading a file only when its size or time has changed.

    `cache` is a file that keeps what was read for other processes. Safe to use from several
    threads; simultaneous scans run one after the other. `trouble` says why the cache cannot be
    written, if it cannot.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._cache = cache
        self._known: _cache.Known | None = None
        self._last: tuple[object, ModelScan] | None = None
        self.trouble: OSError | None = None

    def scan(
        self,
        roots: Sequence[Path],
        extra_files: Sequence[Path] = (),
        kind_of: KindOf | None = None,
    ) -> ModelScan:
        """Look through `roots` and at `extra_files`; nothing that lies there raises."""
        with self._lock:
            found = walk(roots, extra_files)
            values = self._read(found.files)
            # Where nothing is different, what was made of it last time still holds.
            same = [
                (each.text, each.size, each.mtime_ns, each.label, each.projector)
                for each in found.files
            ]
            basis = (same, list(values.values()), kind_of)
            if found.errors or self._last is None or self._last[0] != basis:
                self._last = (basis, _assemble(found, values, kind_of or _no_kind))
            return self._last[1]

    def _read(self, files: Sequence[FoundFile]) -> dict[FoundFile, Facts | ModelProblem]:
        known = self._load()
        keys = {file: _cache.key_of(file) for file in files}
        result = {file: _read_once(file, known.get(key)) for file, key in keys.items()}
        fresh = {keys[file]: value for file, value in result.items() if not _may_pass(value)}
        if any(known.get(key) is not value for key, value in fresh.items()):
            self._store(fresh, known)
        elif self._cache is None:
            self._known = fresh  # what was removed does not pile up
        return result

    def _load(self) -> _cache.Known:
        if self._known is None:
            self._known = _cache.load(self._cache) if self._cache else {}
        return self._known

    def _store(self, fresh: _cache.Known, known: _cache.Known) -> None:
        if self._cache is None:
            self._known = fresh
            return
        # What lies in folders that are away now stays known, within the cache's limit.
        paths = {key.path for key in fresh}
        kept = {key: value for key, value in known.items() if key.path not in paths}
        self._known = dict([*fresh.items(), *kept.items()][: _cache.MAX_ENTRIES])
        try:
            _cache.store(self._cache, self._known, fresh)
            self.trouble = None
        except OSError as error:
            self.trouble = error


def find_models(
    roots: Sequence[Path], extra_files: Sequence[Path] = (), kind_of: KindOf | None = None
) -> ModelScan:
    """Look once through folders (hidden ones excepted, links followed) and at single files."""
    return ModelIndex().scan(roots, extra_files, kind_of)


def _no_kind(_: Path) -> str | None:
    return None


def _read_once(file: FoundFile, known: Facts | ModelProblem | None) -> Facts | ModelProblem:
    return _read(file) if known is None else known


def _may_pass(value: Facts | ModelProblem) -> bool:
    return isinstance(value, ModelProblem) and value.reason in _PASSING


def _read(file: FoundFile) -> Facts | ModelProblem:
    if file.format is not Format.GGUF:
        return read_other(file)
    try:
        return facts_of(read_gguf(file.path))
    except GgufError as error:
        return ModelProblem(file.path, error.reason.value, error.message)


def _assemble(
    found: Walk, known: dict[FoundFile, Facts | ModelProblem], kind_of: KindOf
) -> ModelScan:
    problems = [_place_problem(path, error) for path, error in found.errors]
    projectors: dict[str, list[Projector]] = defaultdict(list)
    candidates: list[_Candidate] = []
    for group in group_files(found.files):
        facts = _kind_checked(group, check_group(group, known), kind_of)
        if isinstance(facts, ModelProblem):
            problems.append(facts)
        elif facts.kind != PROJECTOR:
            candidates.append(_Candidate(group, facts))
        elif facts.vision:
            file = group.files[0]
            projectors[file.folder].append(Projector(file.path, facts.width))
    names = unique_names([(candidate.group.stem, candidate.place) for candidate in candidates])
    models = [
        _model(name, candidate, projectors.get(candidate.group.files[0].folder, ()))
        for name, candidate in zip(names, candidates, strict=True)
    ]
    models.sort(key=lambda model: (model.name.casefold(), model.name))
    problems.sort(key=lambda problem: problem.path)
    return ModelScan(tuple(models), tuple(problems))


def _kind_checked(
    group: FileGroup, facts: Facts | ModelProblem, kind_of: KindOf
) -> Facts | ModelProblem:
    """Settle what a model is for, where its weights leave that to its folder."""
    file = group.files[0]
    if isinstance(facts, ModelProblem) or file.format is Format.GGUF:
        return facts
    place = kind_of(file.path)
    if facts.kind == UNKNOWN:
        kind = place or _guess(file)
        return _nameless(file) if kind is None else _with_kind(facts, kind)
    return _with_kind(facts, place) if place in _ALIKE.get(facts.kind, ()) else facts


def _with_kind(facts: Facts, kind: str | None) -> Facts:
    return facts if kind is None or kind == facts.kind else replace(facts, kind=kind)


def _guess(file: FoundFile) -> str | None:
    """Return what a model is for that neither its weights nor its folder tell."""
    if file.format is Format.PICKLE:
        # Pickles that are no whole model (.pth) say so by their folder.
        return None if suffix_of(file.name) == ".pth" else "checkpoint"
    return None


def _nameless(file: FoundFile) -> ModelProblem:
    text = (
        f"{file.path.name} does not say what it is for. Put it into the folder of its kind, for "
        "instance loras or vae: `aipg models paths` lists them."
    )
    return ModelProblem(file.path, "not_a_model", text)


def _model(name: str, candidate: _Candidate, projectors: Sequence[Projector]) -> LocalModel:
    group, facts = candidate
    first = group.files[0]
    projector = None
    if facts.kind == ModelType.LLM and first.format is Format.GGUF:
        projector = first.projector
        if projectors and projector is None:
            projector = choose_projector(candidate.path, group.stem, facts.width, projectors)
    return LocalModel(
        name=name,
        path=candidate.path,
        files=group.paths,
        size=sum(file.size for file in group.files),
        type=ModelType(facts.kind),
        architecture=facts.architecture,
        parameters=facts.parameters,
        quantization=facts.quantization,
        context_length=facts.context_length,
        chat_template=facts.chat_template,
        license=facts.license,
        mtime=max(file.mtime_ns for file in group.files) / 1e9,
        projector=projector,
        vision=projector is not None or (first.format is not Format.GGUF and facts.vision),
        format=first.format.value,
        repo=first.repo,
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
