"""Which files of a repository are wanted: pure choices by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase

from aiplayground.errors import ModelNotFound

DEFAULT_QUANTS = ("Q4_K_M", "Q4_K_S", "Q4_0", "IQ4_XS", "Q5_K_M", "Q6_K", "Q8_0", "MXFP4")
"""Which quantization is taken if none is named: the first that is there. llama.cpp has Q4_K_M."""

PROJECTORS = ("F16", "BF16", "Q8_0", "F32")
"""Which projector is taken where there are several; engines compute in F16."""

LISTED = 20
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)", re.IGNORECASE)
_QUANT = re.compile(
    r"(?:^|[-_./])((?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|T?Q\d_\d|BF16|F16|F32|FP16|FP32|MXFP4(?:_MOE)?))"
    r"(?=$|[-./])",
    re.IGNORECASE,
)
_WEIGHTS = (".gguf", ".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".onnx")
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.ot", "*.onnx*", "*.tflite")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository; `size` in bytes, `sha256` of its content, `sha1` as Git has it."""

    path: str
    size: int | None = None
    sha256: str | None = None
    sha1: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a repository is wanted; nothing named: what is usual."""

    quant: str | None = None
    paths: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(slots=True)
class Group:
    """One model in GGUF: a file, or the parts of a split one in their order."""

    name: str
    files: list[RemoteFile] = field(default_factory=list)

    @property
    def quant(self) -> str:
        """The quantization that its name tells, in upper case; empty if it tells none."""
        found = _QUANT.findall(self.name.removesuffix(".gguf").replace("_UD-", "-UD-"))
        return found[-1].upper() if found else ""


def choose(repo: str, files: Sequence[RemoteFile], wanted: Wanted) -> list[RemoteFile]:
    """Return the files to fetch. Raises `ModelNotFound` that lists what there is."""
    files = [each for each in files if not _hidden(each.path)]
    if wanted.paths:
        return _named(repo, files, wanted.paths)
    if wanted.include or wanted.exclude:
        return _matching(repo, files, wanted)
    groups = gguf_groups(files)
    if wanted.quant is not None:
        chosen = _of_quant(repo, groups, wanted.quant)
    elif groups:
        chosen = _usual(groups)
    else:
        return _whole(repo, files)
    return [*chosen.files, *_projector(files, chosen)]


def gguf_groups(files: Iterable[RemoteFile]) -> list[Group]:
    """Return the models in GGUF, without projectors, parts of split ones together."""
    groups: dict[str, Group] = {}
    for each in sorted(files, key=lambda file: file.path):
        if each.path.lower().endswith(".gguf") and not _is_projector(each.path):
            name = _SPLIT.sub("", each.path)
            groups.setdefault(name, Group(name)).files.append(each)
    return list(groups.values())


def main_file(files: Sequence[RemoteFile]) -> RemoteFile:
    """Return the file that a model is loaded by: the first part, the weights, or the first."""
    models = [each for each in files if not _is_projector(each.path)]
    weights = (each for each in models if each.path.endswith(_WEIGHTS))
    return next(weights, models[0] if models else files[0])


def _named(repo: str, files: Sequence[RemoteFile], paths: Iterable[str]) -> list[RemoteFile]:
    found: dict[str, RemoteFile] = {}
    for path in paths:
        for each in _one(repo, files, path):
            found[each.path] = each
    return list(found.values())


def _one(repo: str, files: Sequence[RemoteFile], path: str) -> list[RemoteFile]:
    """Return a file by its path or its name alone; with it, the other parts of a split one."""
    if path.endswith("/"):
        below = [each for each in files if each.path.startswith(path)]
        return below or _miss(repo, path, files)
    exact = [each for each in files if each.path == path]
    found = exact or [each for each in files if each.path.rpartition("/")[2] == path]
    if len(found) != 1:
        split = [each for each in files if _SPLIT.sub("", each.path) == path]
        return split or _miss(repo, path, found or files)
    name = _SPLIT.sub("", found[0].path)
    if name == found[0].path:
        return found
    return sorted((each for each in files if _SPLIT.sub("", each.path) == name), key=_by_path)


def _matching(repo: str, files: Sequence[RemoteFile], wanted: Wanted) -> list[RemoteFile]:
    found = [
        each
        for each in files
        if (not wanted.include or _fits(each.path, wanted.include))
        and not _fits(each.path, wanted.exclude)
    ]
    if not found:
        raise ModelNotFound(
            f"{repo} has no file that the patterns leave over. There are: "
            f"{_list([each.path for each in files])}.",
            details={"repo": repo, "files": [e.path for e in files][:LISTED], "reason": "no-file"},
        )
    return found


def _fits(path: str, patterns: Iterable[str]) -> bool:
    # As huggingface_hub's filter_repo_objects: for the whole path; `dir/` is all of a folder.
    return any(fnmatchcase(path, f"{each}*" if each.endswith("/") else each) for each in patterns)


def _of_quant(repo: str, groups: Sequence[Group], quant: str) -> Group:
    wanted = quant.upper()
    found = [each for each in groups if each.quant == wanted]
    if not found:
        found = [each for each in groups if each.quant.removeprefix("UD-") == wanted]
    if not found:
        between = re.compile(rf"(^|[-_./]){re.escape(wanted)}(?=$|[-_./])")
        found = [each for each in groups if between.search(each.name.upper())]
    if len(found) == 1:
        return found[0]
    if found:
        names = [each.name for each in found]
        raise ModelNotFound(
            f"'{quant}' means several files of {repo}: {_list(names)}. Name one of them.",
            details={"repo": repo, "quantization": quant, "files": names[:LISTED]},
        )
    raise _no_quant(repo, groups, quant)


def _no_quant(repo: str, groups: Sequence[Group], quant: str) -> ModelNotFound:
    there = list(dict.fromkeys(each.quant or each.name for each in groups))
    if not there:
        text = f"{repo} has no GGUF files, so it has no quantization '{quant}'. Leave it out to "
        text += "take the whole repository, or look for one whose name ends in GGUF."
    else:
        close = get_close_matches(quant.upper(), there, n=1, cutoff=0.6)
        guess = f" Did you mean '{close[0]}'?" if close else ""
        text = f"{repo} has no quantization '{quant}'.{guess} There are: {_list(there)}."
    return ModelNotFound(
        text, details={"repo": repo, "quantization": quant, "quantizations": there[:LISTED]}
    )


def _usual(groups: Sequence[Group]) -> Group:
    if len(groups) == 1:
        return groups[0]
    for quant in DEFAULT_QUANTS:
        found = [each for each in groups if each.quant.removeprefix("UD-") == quant]
        if found:
            # Without a prefix first: that is what the name alone means.
            return min(found, key=lambda each: (each.quant != quant, len(each.name), each.name))
    return min(groups, key=lambda each: (sum(file.size or 0 for file in each.files), each.name))


def _projector(files: Iterable[RemoteFile], model: Group) -> list[RemoteFile]:
    """Return the projector that lets a model see, if its repository has one."""
    there = [each for each in files if _is_projector(each.path)]
    folder = model.name.rpartition("/")[0]
    there = [each for each in there if each.path.rpartition("/")[0] in (folder, "")]

    def rank(each: RemoteFile) -> tuple[int, str]:
        found = Group(each.path).quant
        return (PROJECTORS.index(found) if found in PROJECTORS else len(PROJECTORS), each.path)

    return sorted(there, key=rank)[:1]


def _whole(repo: str, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Return a whole repository, but for the same weights in the formats of other programs."""
    if any(each.path.endswith(".safetensors") for each in files):
        files = [each for each in files if not _fits(each.path, _OTHER_WEIGHTS)]
    return list(files) or _miss(repo, "*", files)


def _miss(repo: str, path: str, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    names = [each.path for each in files]
    close = get_close_matches(path, names, n=1, cutoff=0.6)
    guess = f" Did you mean '{close[0]}'?" if close else ""
    there = f" There are: {_list(names)}." if names else " It is empty."
    raise ModelNotFound(
        f"{repo} has no file that '{path}' means alone.{guess}{there}",
        details={"repo": repo, "file": path, "files": names[:LISTED], "reason": "no-file"},
    )


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:LISTED])
    return f"{shown} and {len(names) - LISTED} more" if len(names) > LISTED else shown


def _is_projector(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return name.endswith(".gguf") and ("mmproj" in name or "mm-proj" in name)


def _hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _by_path(file: RemoteFile) -> str:
    return file.path
