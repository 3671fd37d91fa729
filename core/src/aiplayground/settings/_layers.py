"""Settings laid over one another: defaults < system file < user file < environment < arguments."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from aiplayground.errors import InvalidSettings, PluginError, suggest
from aiplayground.paths import Paths
from aiplayground.specs import BackendSpec

from ._errors import (
    Model,
    field_names,
    giver,
    no_such_key,
    problem,
    refuse,
    unknown_keys,
    validate,
)
from ._models import KernelSettings, OwnSettings, ServiceSettings, service_key
from ._sources import (
    EnvironmentSource,
    FileSource,
    Source,
    argument_source,
    lookup,
    merge,
)
from ._text import Key, dotted, split_key

_OF_KERNEL = frozenset(ServiceSettings.model_fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRow:
    """One line of `aipg config list`; values are JSON-serialisable."""

    key: str
    value: Any
    origin: str
    default: Any
    description: str


class Layers:
    """All sources of settings, lowest first. Reading them twice gives the same."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)

    def merged(self) -> dict[str, Any]:
        """Return what the sources give, as nested tables; defaults are not in it."""
        values: dict[str, Any] = {}
        for source in self.sources:
            values = merge(values, source.values)
        return values

    def origin(self, key: str) -> str:
        """Say where a setting comes from: a file and line, a variable, an argument, default."""
        path = split_key(key)
        source, given = giver(self.sources, path)
        return source.where(given) if source and given == path else "default"

    def kernel(self) -> KernelSettings:
        """Return the kernel's settings. Raises `InvalidSettings` with every problem in them.

        A backend's own keys are left for `service_settings`, which knows its model.
        """
        values = self.merged()
        services = values.get("services")
        if isinstance(services, Mapping):
            values["services"] = {name: _kernel_keys(table) for name, table in services.items()}
        return validate(KernelSettings, values, self.sources)

    def service(self, name: str) -> dict[str, Any]:
        """Return the table that the sources give for one service."""
        table = lookup(self.merged(), ("services", service_key(name)))
        return dict(table) if isinstance(table, Mapping) else {}


def load_layers(
    paths: Paths,
    environ: Mapping[str, str] = os.environ,
    arguments: Mapping[str, Any] | None = None,
) -> Layers:
    """Read all sources.

    `environ`: variables `AIPG_<SECTION>__<KEY>`; a name without `__` is no setting.
    `arguments`: dotted keys (or nested tables) to Python values; None counts as not given.

    Raises `InvalidSettings` (a file that is not TOML, with line and column) or
    `FileOperationError` (a file that cannot be read).
    """
    return Layers(
        [
            FileSource.read(paths.system_config, "system file"),
            FileSource.read(paths.config_file, "user file"),
            EnvironmentSource(environ),
            argument_source(arguments or {}),
        ]
    )


def settings_class(spec: BackendSpec) -> type[BaseModel]:
    """Import the model that a backend names. Raises `PluginError` when it names none."""
    if spec.settings is None:
        return OwnSettings
    if callable(spec.settings):
        return spec.settings()
    module, _, name = spec.settings.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        message = f"{spec.name} names its settings as '{spec.settings}', which does not import: "
        raise PluginError(f"{message}{error}.", details={"service": spec.name}) from error
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        message = (
            f"{spec.name} names its settings as '{spec.settings}', which is no pydantic model."
        )
        raise PluginError(message, details={"service": spec.name})
    return found


def service_settings(layers: Layers, spec: BackendSpec) -> BaseModel:
    """Return a backend's own settings: an instance of the model that `spec.settings` names.

    Raises `InvalidSettings` as `Layers.kernel` does, and `PluginError` for a wrong reference.
    """
    return own_settings(layers, spec.name, settings_class(spec))


def own_settings(layers: Layers, service: str, model: type[Model]) -> Model:
    """Return a service's own settings as `model`. Raises `InvalidSettings`.

    Keys that the kernel knows (`ServiceSettings`) reach the model only if it has them too.
    """
    prefix = ("services", service_key(service))
    taken = _OF_KERNEL - set(model.model_fields)
    values = {key: value for key, value in layers.service(service).items() if key not in taken}
    unknown = unknown_keys(model, values)
    if unknown:
        known = [*field_names(model), *_OF_KERNEL]
        keys = [(*prefix, key) for key in unknown]
        sources = [giver(layers.sources, key)[0] for key in keys]
        what = [no_such_key(known, *pair) for pair in zip(keys, sources, strict=True)]
        found = [problem(*one) for one in zip(sources, keys, what, strict=True)]
        kept = {key: value for key, value in values.items() if key not in unknown}
        raise refuse([*found, *_problems(lambda: validate(model, kept, layers.sources, prefix))])
    return validate(model, values, layers.sources, prefix)


def _problems(check: Callable[[], object]) -> list[dict[str, str]]:
    try:
        check()
    except InvalidSettings as error:
        return list(error.details["problems"])
    return []


def unknown_services(layers: Layers, names: Sequence[str]) -> list[str]:
    """Return one sentence for each service with settings that no installed backend has.

    These are for a warning: settings outlive a plugin that is removed or denied.
    """
    known = [service_key(name) for name in names]
    tables = layers.merged().get("services")
    found = []
    for name in tables if isinstance(tables, Mapping) else ():
        if name not in known:
            source, key = giver(layers.sources, ("services", name))
            what = f"no installed backend is called '{name}'.{suggest(name, known)}"
            found.append(problem(source, key, what))
    return [f"{one['origin']}: {one['problem']}" for one in found]


def rows(layers: Layers, services: Mapping[str, type[BaseModel]] | None = None) -> list[SettingRow]:
    """Return every setting with value, origin, default and description, for `config list`.

    `services` maps the installed services to their models (`settings_class`). Raises
    `InvalidSettings`: what is listed is what holds.
    """
    kernel = layers.kernel()
    found = list(_rows(layers, (), kernel))
    for name, endpoint in kernel.attach.items():
        found += _rows(layers, ("attach", name), endpoint)
    for name, model in (services or {}).items():
        prefix = ("services", service_key(name))
        found += _rows(layers, prefix, kernel.service(name))
        own = _rows(layers, prefix, own_settings(layers, name, model))
        found += [row for row in own if row.key.rpartition(".")[2] not in _OF_KERNEL]
    return found


def _rows(layers: Layers, prefix: Key, instance: BaseModel) -> Iterator[SettingRow]:
    for name, field in type(instance).model_fields.items():
        key = (*prefix, name)
        value = getattr(instance, name)
        if isinstance(value, BaseModel):
            yield from _rows(layers, key, value)
        elif key not in (("services",), ("attach",)):
            yield SettingRow(
                key=dotted(key),
                value=_plain(value),
                origin=layers.origin(dotted(key)),
                default=_plain(field.get_default(call_default_factory=True)),
                description=field.description or "",
            )


def _plain(value: Any) -> Any:
    return None if value is PydanticUndefined else to_jsonable_python(value, fallback=str)


def _kernel_keys(table: Any) -> Any:
    if not isinstance(table, Mapping):
        return table
    return {key: value for key, value in table.items() if key in _OF_KERNEL}
