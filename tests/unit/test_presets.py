"""Presets: the documented schema, enforced settings, variants, folders, chats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aiplayground.errors import InvalidParameters
from aiplayground.presets import (
    BUILT_IN,
    LoadedPreset,
    Preset,
    PresetFolder,
    PresetProblem,
    apply_variant,
    chat_parameters,
    check_file,
    check_value,
    find_preset,
    load_presets,
    resolve_values,
)

PLAIN: dict[str, Any] = {"name": "Plain", "type": "text", "backend": "ai-backend"}

SETTINGS: dict[str, Any] = {
    "temperature": {"name": "Temperature", "type": "number", "default": 0.7, "min": 0, "max": 2},
    "tone": {"name": "Tone", "type": "select", "default": "dry", "options": ["dry", "warm", 1]},
    "systemPrompt": {"name": "Instructions", "type": "text", "default": "Be kind."},
    "rhyme": {"name": "Rhyme", "type": "boolean", "default": False},
    "maxTokens": {"name": "Length", "type": "number", "min": 1},
}

# The example of the reference's "Workflow JSON Schema", word for word.
WORKFLOW = """{
  "name": "Text to Image - SDXL",
  "comfyUIRequirements": {
    "customNodes": ["ltdrdata/ComfyUI-Manager@main"]
  },
  "requiredModels": [{
    "type": "checkpoint",
    "name": "Juggernaut XL",
    "path": "RunDiffusionPhoto_v2.safetensors",
    "required": true
  }],
  "comfyUiApiWorkflow": {
    "1": {
      "class_type": "CheckpointLoaderSimple",
      "inputs": {
        "ckpt_name": "RunDiffusionPhoto_v2.safetensors"
      }
    },
    "2": {
      "class_type": "CLIPTextEncode",
      "inputs": {
        "text": "{{prompt}}",
        "clip": ["1", 1]
      }
    }
  }
}"""


def preset(**more: Any) -> Preset:
    return Preset.model_validate({**PLAIN, "settings": SETTINGS, **more})


def written(file: Path, text: str | dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text if isinstance(text, str) else json.dumps(text, indent=2))
    return file


def problem(file: Path, text: str | bytes) -> tuple[int, str]:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = check_file(file)
    assert isinstance(found, PresetProblem), found
    assert found.file == file
    return found.line, found.reason


# The schema ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "image", "comfy"])
@pytest.mark.parametrize(
    "backend",
    ["ai-backend", "comfyui-backend", "llamacpp-backend", "openvino-backend", "ollama-backend"],
)
def test_the_documented_form(kind: str, backend: str) -> None:
    given: dict[str, Any] = {"name": "x", "type": kind, "backend": backend}
    given |= {"settings": {"a": {"name": "A", "type": "number", "default": 1, "min": 0, "max": 2}}}
    given |= {"comfyUiApiWorkflow": {"1": {"class_type": "X", "inputs": {}, "_meta": {}}}}
    plain = Preset.model_validate(given).model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert plain == given


def test_the_workflow_of_the_reference_is_a_preset_for_comfyui(tmp_path: Path) -> None:
    found = check_file(written(tmp_path / "sdxl.json", WORKFLOW))
    assert isinstance(found, LoadedPreset)
    assert (found.preset.type, found.preset.backend) == ("comfy", "comfyui-backend")
    given = json.loads(WORKFLOW)
    plain = found.preset.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert {name: plain[name] for name in given} == given
    assert [note.split("'")[1] for note in found.notes] == ["comfyUIRequirements", "requiredModels"]


@pytest.mark.parametrize(
    ("setting", "where", "why"),
    [
        ({"default": 3}, "default", "must be 0 to 2, not 3"),
        ({"default": "hot"}, "default", "must be a number, not 'hot'"),
        ({"default": True}, "default", "must be a number, not True"),
        ({"min": 3}, "min", "3 is more than 'max', 2"),
        ({"type": "select"}, "options", "needs options"),
        ({"type": "text"}, "default", "must be a text, not 0.7"),
        ({"type": "boolean"}, "default", "must be true or false, not 0.7"),
        ({"options": [1, 2]}, "default", "must be one of 1, 2, not 0.7"),
        ({"type": "slider"}, "type", "Input should be 'number'"),
        ({"min": "0"}, "min", "valid number"),
    ],
)
def test_a_setting_must_keep_its_own_limits(setting: dict[str, Any], where: str, why: str) -> None:
    wrong = SETTINGS["temperature"] | setting
    with pytest.raises(ValidationError) as refused:
        Preset.model_validate({**PLAIN, "settings": {"temperature": wrong}})
    [found] = refused.value.errors()
    assert found["loc"] == ("settings", "temperature", where)
    assert why in found["msg"]


# Values ----------------------------------------------------------------------------------------


def test_values_take_the_place_of_defaults() -> None:
    assert resolve_values(preset(), {"temperature": 1, "maxTokens": 5}) == {
        "temperature": 1,
        "tone": "dry",
        "systemPrompt": "Be kind.",
        "rhyme": False,
        "maxTokens": 5,
    }
    assert "maxTokens" not in resolve_values(preset(), {})


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("temperature", 2.5, "'Temperature' must be 0 to 2, not 2.5"),
        ("temperature", float("nan"), "'Temperature' must be a number"),
        ("maxTokens", 0, "'Length' must be at least 1, not 0"),
        ("tone", "cold", "'Tone' must be one of 'dry', 'warm', 1, not 'cold'"),
        ("tone", True, "'Tone' must be one of"),
        ("rhyme", 1, "'Rhyme' must be true or false, not 1"),
        ("systemPrompt", None, "'Instructions' must be a text"),
        ("temprature", 1, "Did you mean 'temperature'"),
    ],
)
def test_values_that_a_setting_does_not_take(key: str, value: Any, why: str) -> None:
    with pytest.raises(InvalidParameters, match=why) as refused:
        check_value(preset(), key, value)
    assert refused.value.details["setting"] == key


def test_what_a_setting_takes_is_in_the_details() -> None:
    with pytest.raises(InvalidParameters) as refused:
        check_value(preset(), "temperature", 9)
    assert refused.value.details == {
        "preset": "Plain",
        "setting": "temperature",
        "type": "number",
        "min": 0,
        "max": 2,
    }


# Variants --------------------------------------------------------------------------------------

VARIANTS: list[dict[str, Any]] = [
    {"name": "usual"},
    {"name": "hot", "displayName": "Hot", "settings": {"temperature": 1.5}},
    {
        "name": "other",
        "backend": "openvino-backend",
        "removeSettings": ["rhyme"],
        "overrides": {
            "description": "Another.",
            "tags": ["b"],
            "settings": {"temperature": {"max": 1}, "topP": {"name": "Top P", "type": "number"}},
        },
    },
]


def test_a_variant_is_applied_over_the_preset() -> None:
    one = preset(variants=VARIANTS, tags=["a"])
    assert apply_variant(preset(), None) == preset()
    assert apply_variant(one, None).settings == one.settings
    assert apply_variant(one, "hot").settings["temperature"].default == 1.5
    other = apply_variant(one, "other")
    assert (other.backend, other.description, other.tags) == (
        "openvino-backend",
        "Another.",
        ("b",),
    )
    assert list(other.settings) == ["temperature", "tone", "systemPrompt", "maxTokens", "topP"]
    assert (other.settings["temperature"].default, other.settings["temperature"].max) == (0.7, 1)
    assert other.variants == one.variants
    assert one.settings["temperature"].max == 2
    with pytest.raises(InvalidParameters, match="Did you mean 'hot'"):
        apply_variant(one, "hott")


def test_a_workflow_is_merged_or_replaced() -> None:
    nodes = {"1": {"class_type": "A", "inputs": {"x": 1, "y": 2}}}
    change = {"comfyUiApiWorkflow": {"1": {"inputs": {"x": 3}}}}
    variants = [
        {"name": "merge", "overrides": change},
        {"name": "replace", "overrides": change, "replaceWorkflow": True},
    ]
    one = preset(type="comfy", comfyUiApiWorkflow=nodes, variants=variants)
    merged = {"1": {"class_type": "A", "inputs": {"x": 3, "y": 2}}}
    assert apply_variant(one, "merge").comfy_ui_api_workflow == merged
    assert apply_variant(one, "replace").comfy_ui_api_workflow == {"1": {"inputs": {"x": 3}}}


@pytest.mark.parametrize(
    ("variant", "where", "why"),
    [
        ({"settings": {"temprature": 1}}, "settings", "Did you mean 'temperature'"),
        ({"removeSettings": ["x"]}, "removeSettings", "there is no setting 'x'"),
        ({"settings": {"temperature": 9}}, None, "'settings.temperature.default' must be 0 to 2"),
        ({"overrides": {"type": "song"}}, None, "with this variant, 'type' Input should be"),
        ({"name": "usual"}, "name", "two variants are called 'usual'"),
    ],
)
def test_a_variant_that_does_not_fit(variant: dict[str, Any], where: str | None, why: str) -> None:
    with pytest.raises(ValidationError) as refused:
        preset(variants=[{"name": "usual"}, {"name": "odd", **variant}])
    [found] = refused.value.errors()
    place = 0 if where == "name" else 1
    assert found["loc"][:3] == (("variants", place, where) if where else ("variants", place))
    assert why in found["msg"]


# Files -----------------------------------------------------------------------------------------

GOOD = """{
  "name": "Good",
  "type": "text",
  "backend": "ai-backend",
  "tags": [
    "a", {"a}": ["]"]},
    3
  ],
  "settings": {
    "temperature": {"name": "Temperature", "type": "number",
      "default": 0.7,
      "max": 2
    }
  },
  "comfyUiApiWorkflow": {}
}
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [
        ('"a", {"a}": ["]"]},', '"a", {"a}": ["]"]},', 6, "'tags[1]': input should be a valid"),
        ('"text"', '"chat"', 3, "'type': input should be 'text', 'image' or 'comfy'"),
        ('  "type": "text",\n', "", 1, "'type' is missing"),
        ("0.7", "2.5", 11, "'settings.temperature.default': must be at most 2, not 2.5"),
        ('"max": 2', '"max": "2"', 12, "'settings.temperature.max': input should be a valid num"),
        ('"type": "number",', "", 10, "'settings.temperature.type' is missing"),
        ("0.7", "NaN", 11, "NaN is no JSON"),
        ("0.7,", "0.7", 12, "Expecting ',' delimiter"),
        ('"max": 2', '"default": 2', 12, "the key 'default' stands there twice"),
        ('"Good"', '" "', 2, "'name': string should match pattern"),
    ],
)
def test_a_bad_file_is_reported_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, why: str
) -> None:
    tags = '[\n    "a", {"a}": ["]"]},\n    3\n  ]'
    text = GOOD if old.startswith('"a"') else GOOD.replace(tags, "[\n\n\n  ]")
    assert old in text
    found = problem(tmp_path / "x.json", text.replace(old, new, 1))
    assert found[0] == line
    assert why in found[1]


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        (b"", 1, "Expecting value"),
        (b"[]", 1, "a preset is a JSON object"),
        (b'{"name":\n "\xff"}', 2, "is not UTF-8 text"),
        (b'{"a": ' + b"[" * 200_000, 1, "nested too deeply"),
        (b'{"name": "x", "settings": {"a": 1, "a": 2}}', 1, "the key 'a' stands there twice"),
        (b'{"name": "NaN", "x":\n Infinity}', 2, "Infinity is no JSON"),
    ],
)
def test_what_is_no_preset_at_all(tmp_path: Path, text: bytes, line: int, why: str) -> None:
    found = problem(tmp_path / "x.json", text)
    assert found[0] == line
    assert why in found[1]


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(PLAIN), encoding="utf-8-sig")
    assert isinstance(check_file(file), LoadedPreset)


def test_later_folders_override_by_name_and_bad_files_keep_nobody_out(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    written(one / "a.json", PLAIN | {"name": "A", "description": "first"})
    written(one / "b.json", PLAIN | {"name": "B"})
    written(one / "c.json", "{")
    written(one / "d.json", PLAIN | {"name": "B"})
    written(one / "notes.txt", "no preset")
    written(two / "z.json", PLAIN | {"name": "A", "description": "second", "colour": 1})
    (two / "dir.json").mkdir()
    folders = [PresetFolder(one, "x"), PresetFolder(two, "user")]
    found = load_presets([*folders, PresetFolder(tmp_path / "absent", "x")])
    shown = [(each.preset.name, each.preset.description, each.origin) for each in found.presets]
    assert shown == [("A", "second", "user"), ("B", None, "x")]
    assert found.presets[0].notes == (
        "'colour' is no key of a preset that is known here; it is kept",
    )
    told = [str(each).removeprefix(f"{tmp_path}/") for each in found.problems]
    assert told[0].startswith("one/c.json:1: Expecting property name")
    assert told[1] == "one/d.json:2: 'B' is the name of b.json already"
    assert told[2].startswith("two/dir.json: cannot be read")


def test_what_is_kept_but_means_nothing_is_named(tmp_path: Path) -> None:
    setting = {"name": "X", "type": "text", "min": 1, "step": 2}
    found = check_file(written(tmp_path / "x.json", PLAIN | {"settings": {"odd": setting}}))
    assert isinstance(found, LoadedPreset)
    assert [each.partition("'settings.odd")[2] for each in found.notes] == [
        ".step' is no key of a setting that is known here; it is kept",
        "' is of type 'text': 'min' and 'max' mean nothing",
        "' means nothing to a chat",
    ]


# The built-in presets, and what a chat makes of a preset -------------------------------------


def test_the_built_in_presets_are_good_and_all_of_each_reaches_a_chat() -> None:
    found = load_presets([PresetFolder(BUILT_IN, "built-in")])
    assert found.problems == ()
    assert len(found.presets) >= 4
    for each in found.presets:
        assert each.notes == ()
        for variant in [None, *(one.name for one in each.preset.variants)]:
            given = chat_parameters(apply_variant(each.preset, variant))
            assert given.unused == ()


def test_what_a_preset_means_to_a_chat() -> None:
    given = chat_parameters(preset(), {"maxTokens": 64.0})
    assert given.system == "Be kind."
    assert given.sampling == {"temperature": 0.7, "max_tokens": 64}
    assert given.unused == ("tone", "rhyme")
    assert chat_parameters(preset(), {"systemPrompt": ""}).system is None
    with pytest.raises(InvalidParameters, match="must be a whole number, not"):
        chat_parameters(preset(), {"maxTokens": 1.5})
    with pytest.raises(InvalidParameters, match="is of type 'image'"):
        chat_parameters(preset(type="image"))


def test_a_seed_below_zero_asks_for_none() -> None:
    seed = {"seed": {"name": "Seed", "type": "number", "default": -1}}
    assert chat_parameters(preset(settings=seed)).sampling == {}


def test_presets_are_found_by_name() -> None:
    assert find_preset([preset()], "plain").name == "Plain"
    with pytest.raises(InvalidParameters, match="Did you mean 'Plain'"):
        find_preset([preset()], "Plan")
