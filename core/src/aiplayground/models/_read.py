"""Read what each format says of itself: one model, or why it is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiplayground.gguf import GgufReason

from . import _configs
from ._configs import BadConfig
from ._facts import UNKNOWN, Facts
from ._found import FoundFile
from ._layouts import ADAPTER_CONFIG, CONFIG, MODEL_INDEX, OPENVINO_MODELS
from ._safetensors import BadSafetensors, Header, read_header
from ._types import Format, ModelProblem
from ._weights import kind_of_weights

_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "openvino_tokenizer.xml",
    "vocab.json", "vocab.txt", "spiece.model",
)  # fmt: skip
_PRECISION = re.compile(r"(?i)(?<![a-z0-9])(int4|int8|fp16|bf16|fp32|fp8|nf4)(?![a-z0-9])")
_SHOWN = 64  # characters that a file may say of its architecture or licence


def read_other(file: FoundFile) -> Facts | ModelProblem:
    """Read anything but GGUF."""
    try:
        return _READERS[file.format](file)
    except BadSafetensors as error:
        return _damaged(file.path, error)
    except BadConfig as error:
        text = f"{file.path.name} cannot be used: {error}. Download that file again."
        return ModelProblem(file.path, GgufReason.CORRUPT.value, text)
    except OSError as error:
        text = (
            f"{file.path.name} cannot be read ({error.strerror or error}). Check its permissions."
        )
        return ModelProblem(file.path, GgufReason.UNREADABLE.value, text)


def _damaged(path: Path, error: BadSafetensors) -> ModelProblem:
    if error.truncated:
        text = f"{path.name} is truncated: {error.text}. The download or copy stopped early: "
        return ModelProblem(path, GgufReason.TRUNCATED.value, text + "download it again.")
    text = f"{path.name} is corrupt: {error.text}. Download it again."
    return ModelProblem(path, GgufReason.CORRUPT.value, text)


def _safetensors(file: FoundFile) -> Facts:
    header = read_header(file.path)
    said = header.metadata
    return Facts(
        kind=kind_of_weights(header.shapes) or UNKNOWN,
        architecture=(said.get("modelspec.architecture") or said.get("ss_base_model_version", ""))[
            :_SHOWN
        ],
        parameters=header.parameters,
        quantization=header.dtype,
        license=said.get("modelspec.license", "")[:_SHOWN] or None,
        tensors=len(header.shapes),
    )


def _pickle(file: FoundFile) -> Facts:
    # Never opened: reading a pickle runs what is in it.
    return Facts(kind=UNKNOWN)


def _transformers(file: FoundFile) -> Facts | ModelProblem:
    names = _names(file)
    adapter = ADAPTER_CONFIG in names and CONFIG not in names
    config = _configs.read_object(file.path / (ADAPTER_CONFIG if adapter else CONFIG))
    missing = _missing_shards(file, names)
    if missing:
        return _incomplete(file, missing)
    headers = [read_header(each.path) for each in file.members if _is_safetensors(each)]
    name = _configs.class_of(config)
    kind = "lora" if adapter else _configs.kind_of_class(name, names)
    quantization = _configs.quantization_of(config, {}) or _dtype(headers)
    return _folder_facts(
        file,
        config,
        kind=kind or UNKNOWN,
        parameters=sum(header.parameters for header in headers),
        quantization=quantization or _configs.dtype_of(config),
        tensors=sum(len(header.shapes) for header in headers),
    )


def _openvino(file: FoundFile) -> Facts | ModelProblem:
    names = _names(file)
    graphs = [name for name in OPENVINO_MODELS if name in names]
    missing = [name.replace(".xml", ".bin") for name in graphs]
    missing = [name for name in missing if name not in names]
    if not names.intersection(_TOKENIZERS):
        missing.append("openvino_tokenizer.xml (or another tokenizer)")
    if missing:
        return _incomplete(file, missing)
    config = _configs.read_object(file.path / CONFIG)
    said = _configs.read_object(file.path / "openvino_config.json")
    precision = _PRECISION.search(file.stem)
    name = _configs.class_of(config)
    quantization = _configs.quantization_of(config, said)
    return _folder_facts(
        file,
        config,
        kind=_configs.kind_of_class(name, names) or UNKNOWN,
        quantization=quantization or (precision[1].upper() if precision else None),
    )


def _diffusers(file: FoundFile) -> Facts:
    config = _configs.read_object(file.path / MODEL_INDEX)
    headers = [read_header(each.path) for each in file.members if _is_safetensors(each)]
    return Facts(
        kind="inpaint" if "Inpaint" in _configs.class_of(config) else "checkpoint",
        architecture=_configs.class_of(config)[:_SHOWN],
        parameters=sum(header.parameters for header in headers),
        quantization=_dtype(headers),
        tensors=sum(len(header.shapes) for header in headers),
    )


_READERS: Mapping[Format, Callable[[FoundFile], Facts | ModelProblem]] = {
    Format.SAFETENSORS: _safetensors,
    Format.PICKLE: _pickle,
    Format.TRANSFORMERS: _transformers,
    Format.OPENVINO: _openvino,
    Format.DIFFUSERS: _diffusers,
}


def _folder_facts(file: FoundFile, config: Mapping[str, Any], **known: Any) -> Facts:
    names = _names(file)
    architecture = config.get("model_type") or config.get("peft_type") or _configs.class_of(config)
    return Facts(
        architecture=str(architecture)[:_SHOWN],
        context_length=_configs.context_of(config),
        chat_template=_has_template(file.path, names),
        vision=_configs.sees(config),
        **known,
    )


def _has_template(folder: Path, names: frozenset[str]) -> bool:
    if names.intersection(_TEMPLATES):
        return True
    return bool(_configs.read_object(folder / "tokenizer_config.json").get("chat_template"))


def _missing_shards(file: FoundFile, names: frozenset[str]) -> list[str]:
    """Return the files that an index names and that are not there."""
    missing: list[str] = []
    for name in sorted(each for each in names if each.endswith(".index.json")):
        shards = _configs.read_object(file.path / name).get("weight_map")
        wanted = set(map(str, shards.values())) if isinstance(shards, dict) else set()
        # A repository may have its weights in several forms: one that is there at all counts.
        if wanted & names or not any(map(_is_safetensors, file.members)):
            missing += sorted(wanted - names)
    return missing


def _incomplete(file: FoundFile, missing: list[str]) -> ModelProblem:
    shown = ", ".join(missing[:5])
    text = f"{file.stem} is not complete: {shown} {'is' if len(missing) == 1 else 'are'} missing "
    return ModelProblem(file.path, "missing_part", text + "in its folder. Download it again.")


def _names(file: FoundFile) -> frozenset[str]:
    return frozenset(each.path.name for each in file.members)


def _is_safetensors(file: FoundFile) -> bool:
    return file.path.name.endswith(".safetensors")


def _dtype(headers: list[Header]) -> str | None:
    biggest = max(headers, key=lambda header: header.parameters, default=None)
    return biggest.dtype if biggest else None
