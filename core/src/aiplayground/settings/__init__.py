"""Settings: what can be set, and reading, explaining and changing it.

Layers, lowest first: defaults, the machine's file, the user's file, environment variables
(`AIPG_<SECTION>__<KEY>`), arguments. Unknown keys are refused with a suggestion, and every message
names the place: file and line, variable, or argument. The one kind of secret that is a setting is
the key of an attached endpoint; no function here returns it as text, and no message shows it.
"""

from __future__ import annotations

from ._attach import AttachSettings, EndpointSettings
from ._errors import is_secret
from ._file import set_value, unset_value
from ._layers import (
    Layers,
    SettingRow,
    load_layers,
    own_settings,
    rows,
    service_settings,
    settings_class,
    unknown_services,
)
from ._models import (
    FileSettings,
    HubSettings,
    KernelSettings,
    LivenessSettings,
    LogSettings,
    ModelPathSettings,
    ModelSettings,
    OwnSettings,
    PluginSettings,
    ResidencySettings,
    RestartSettings,
    ServiceSettings,
    TimeoutSettings,
)
from ._text import parse_value, split_key, variable_of

__all__ = [
    "AttachSettings",
    "EndpointSettings",
    "FileSettings",
    "HubSettings",
    "KernelSettings",
    "Layers",
    "LivenessSettings",
    "LogSettings",
    "ModelPathSettings",
    "ModelSettings",
    "OwnSettings",
    "PluginSettings",
    "ResidencySettings",
    "RestartSettings",
    "ServiceSettings",
    "SettingRow",
    "TimeoutSettings",
    "is_secret",
    "load_layers",
    "own_settings",
    "parse_value",
    "rows",
    "service_settings",
    "set_value",
    "settings_class",
    "split_key",
    "unknown_services",
    "unset_value",
    "variable_of",
]
