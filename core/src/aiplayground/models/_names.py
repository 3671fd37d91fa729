"""Names for models: unique ones to list, and the model that a name means."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from aiplayground.errors import ModelNotFound

from ._found import stem_of
from ._types import LocalModel

LISTED = 10  # names that an error shows
SHOWN = 200  # characters of a name that an error repeats


def unique_names(paths: Sequence[tuple[str, Path]]) -> list[str]:
    """Give every (stem, path) a name of its own.

    A stem that occurs once is the name. Where several are alike but for case, each is preceded by
    as many parent folders as tell them apart: `folder/stem`. Files that folders cannot tell apart
    are named by their whole path.
    """
    alike: dict[str, list[int]] = defaultdict(list)
    for index, (stem, _) in enumerate(paths):
        alike[stem.casefold()].append(index)
    names = [stem for stem, _ in paths]
    for indices in alike.values():
        if len(indices) > 1:
            told = _tell_apart([paths[index] for index in indices])
            for index, name in zip(indices, told, strict=True):
                names[index] = name
    return names


def _tell_apart(paths: Sequence[tuple[str, Path]]) -> list[str]:
    deepest = max(len(path.parts) for _, path in paths)
    for depth in range(1, deepest):
        names = ["/".join((*path.parts[:-1][-depth:], stem)) for stem, path in paths]
        if len({name.casefold() for name in names}) == len(names):
            return names
    return [path.as_posix() for _, path in paths]


def match_model(name: str, models: Sequence[LocalModel]) -> LocalModel:
    """Return the model that `name` means.

    In this order: its name, its name but for case or with `.gguf`, the path of one of its files
    (absolute, or relative to the working folder), and its bare file stem if no other model has it.
    Raises ModelNotFound, whose details hold close matches and the first names there are.
    """
    for model in models:
        if model.name == name:
            return model
    wanted = stem_of(name).casefold()
    found = (
        [model for model in models if model.name.casefold() == wanted]
        or _by_path(name, models)
        or [model for model in models if _stem(model) == wanted]
    )
    if len(found) == 1:
        return found[0]
    raise _ambiguous(name, found) if found else _not_found(name, models)


def _stem(model: LocalModel) -> str:
    return model.name.rpartition("/")[2].casefold()


def _by_path(name: str, models: Sequence[LocalModel]) -> list[LocalModel]:
    # Names come from requests: they are compared as text, and never looked up on the disk.
    path = _absolute(name)
    return [model for model in models if any(path == _absolute(file) for file in model.files)]


def _absolute(path: str | Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - pathlib has no normalisation without the disk


def _ambiguous(name: str, found: Sequence[LocalModel]) -> ModelNotFound:
    name, names = _printable(name), [model.name for model in found]
    text = f"Several models are called '{name}'. Name one of: {', '.join(names[:LISTED])}."
    return ModelNotFound(text, details={"model": name, "close": names[:LISTED]})


def _not_found(name: str, models: Sequence[LocalModel]) -> ModelNotFound:
    name, names = _printable(name), [model.name for model in models]
    close = _close(stem_of(name).casefold(), models)
    details = {"model": name, "close": close, "available": names[:LISTED]}
    return ModelNotFound(f"There is no model '{name}'.{_advice(close, names)}", details=details)


def _close(wanted: str, models: Sequence[LocalModel]) -> list[str]:
    by_folded = {model.name.casefold(): model.name for model in models}
    by_folded |= {_stem(model): model.name for model in models}
    matches = get_close_matches(wanted, list(by_folded), n=3, cutoff=0.5)
    return list(dict.fromkeys(by_folded[match] for match in matches))


def _advice(close: Sequence[str], names: Sequence[str]) -> str:
    if close:
        return f" Did you mean {' or '.join(repr(name) for name in close)}?"
    if names:
        return f" There are: {', '.join(names[:LISTED])}{', …' if len(names) > LISTED else ''}."
    return " No models were found: put a file that ends in .gguf into a model folder."


def _printable(name: str) -> str:
    """Shorten a name that anybody may have sent, and make it one that UTF-8 can write."""
    return name[:SHOWN].encode("utf-8", "replace").decode()
