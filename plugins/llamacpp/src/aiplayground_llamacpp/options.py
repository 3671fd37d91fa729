"""What holds for one model: the settings for all, and over them what `models.<name>` says. Pure."""

from __future__ import annotations

from pathlib import Path

from .settings import ModelOptions, Settings


def model_options(settings: Settings, name: str) -> ModelOptions:
    """Return what the settings say of this model alone; nothing where they do not name it."""
    return settings.models.get(name) or ModelOptions()


def options_for(settings: Settings, name: str) -> Settings:
    """Return the settings that hold for a model, whichever engine runs it.

    What only single models have (adapters, projector, draft) is in `model_options`.
    """
    special = model_options(settings, name)
    given = special.model_dump(include={"context_size", "gpu_layers", "chat_template"})
    return settings.model_copy(
        update={field: value for field, value in given.items() if value is not None}
    )


def option_path(text: str, model: Path) -> Path:
    """Return the file that an option names: `~` is the home, and a bare name lies beside `model`.

    `model` is the path of the model's file.
    """
    return model.parent / Path(text).expanduser()
