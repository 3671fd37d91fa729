"""Requests and responses: one frozen pydantic object a call, so that fields can grow.

Field names follow the OpenAI API where it has the field, llama.cpp's server where it has not.
A field that is `None` was not given: the backend's own default holds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MAX_GRAMMAR = 64 * 1024
"""Most characters of a grammar: larger ones take an engine long to read."""


class Frozen(BaseModel):
    """Base: immutable, and unknown fields are refused rather than ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Frozen):
    """One message of a conversation. `content` may be a list of OpenAI content parts."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


TokenId = Annotated[str, Field(pattern="^[0-9]{1,10}$")]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


class Sampling(Frozen):
    """How tokens are chosen, and when to stop. Sampling fields are dimensionless."""

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    typical_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    stop: list[Annotated[str, Field(min_length=1, max_length=1024)]] | None = Field(
        default=None, max_length=16
    )
    ignore_eos: bool | None = None
    logit_bias: dict[TokenId, Bias] | None = Field(default=None, max_length=1024)
    """Added to the logits of tokens; the keys are token ids in decimal, as OpenAI writes them."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    grammar: Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR)] | None = None
    """A GBNF grammar that the answer must follow (llama.cpp's `grammars/README.md`)."""
    response_format: dict[str, Any] | None = None
    """`text`, `json_object` or `json_schema`, as in OpenAI's API."""

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop_is_a_list_of_one(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class ChatRequest(Sampling):
    """A turn of a conversation: the argument of the `chat` hook."""

    model: str = Field(min_length=1)
    messages: list[Message] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables for the chat template, for instance `{"enable_thinking": false}`."""


class CompletionRequest(Sampling):
    """Text that the model continues, without a template."""

    kind: Literal["completion"] = "completion"
    model: str = Field(min_length=1)
    prompt: str


class ImageRequest(Frozen):
    """A picture (or several) from a text; sizes are in pixels."""

    kind: Literal["image"] = "image"
    model: str | None = None
    prompt: str = Field(min_length=1)
    negative_prompt: str | None = None
    width: Annotated[int, Field(ge=8, le=16384)] | None = None
    height: Annotated[int, Field(ge=8, le=16384)] | None = None
    steps: Annotated[int, Field(ge=1, le=10000)] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    count: Annotated[int, Field(ge=1, le=64)] = 1
    source_image: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class VideoRequest(ImageRequest):
    """A video from a text; `frames` at `fps` frames per second."""

    kind: Literal["video"] = "video"  # type: ignore[assignment]  # the discriminator narrows
    frames: Annotated[int, Field(ge=1)] | None = None
    fps: Annotated[float, Field(gt=0)] | None = None


class TranscriptionRequest(Frozen):
    """Speech to text; `audio` is a path or a data URL."""

    kind: Literal["transcription"] = "transcription"
    model: str | None = None
    audio: str
    language: str | None = None


class SpeechRequest(Frozen):
    """Text to speech."""

    kind: Literal["speech"] = "speech"
    model: str | None = None
    text: str = Field(min_length=1)
    voice: str | None = None


class RerankRequest(Frozen):
    """Order documents by how well they answer a query; the best `top_n` of them, or all.

    The event that answers it is of the kind `result`, with `results`: a list of `index` and
    `relevance_score`, best first.
    """

    kind: Literal["rerank"] = "rerank"
    model: str | None = None
    query: str = Field(min_length=1)
    documents: list[str] = Field(min_length=1)
    top_n: Annotated[int, Field(ge=1)] | None = None


GenerateRequest = Annotated[
    CompletionRequest
    | ImageRequest
    | VideoRequest
    | TranscriptionRequest
    | SpeechRequest
    | RerankRequest,
    Field(discriminator="kind"),
]


class EmbedRequest(Frozen):
    """Texts to turn into vectors."""

    model: str = Field(min_length=1)
    input: list[str] = Field(min_length=1)
    dimensions: Annotated[int, Field(ge=1)] | None = None


class Usage(Frozen):
    """What a request cost, in tokens.

    `cached_tokens` are those of the prompt that need not be computed again; None if not known.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None

    @property
    def total_tokens(self) -> int:
        """Prompt and answer together."""
        return self.prompt_tokens + self.completion_tokens


FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class ChatChunk(Frozen):
    """A piece of an answer. The last one carries `finish_reason`, and `usage` where known.

    With several answers (`n`) each has its own `index` and its own last chunk; `usage` counts what
    that answer cost (the prompt counts once). `logprobs` has an entry a token, as in OpenAI's chat
    API: `token`, `logprob`, `bytes` and `top_logprobs`.
    """

    index: int = 0
    text: str = ""
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    model: str | None = None
    logprobs: list[dict[str, Any]] | None = None


class GenerateEvent(Frozen):
    """A step of a generation: text, progress (0 to 100), a file, or a result."""

    kind: Literal["text", "progress", "image", "video", "audio", "result"]
    text: str = ""
    progress: float | None = None
    message: str = ""
    mime: str | None = None
    path: str | None = None
    data: bytes | None = None
    result: dict[str, Any] | None = None
    index: int = 0
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    logprobs: list[dict[str, Any]] | None = None


class Embeddings(Frozen):
    """One vector for each input, in order."""

    model: str
    vectors: list[list[float]]
    usage: Usage = Usage()


class Scores(Frozen):
    """How well each document answers a query, in the order of the documents.

    The scale is the model's own: higher is better, and scores of two models cannot be compared.
    """

    model: str
    scores: list[float]
    usage: Usage = Usage()


ModelKind = Literal[
    "llm", "embedding", "checkpoint", "inpaint", "lora", "vae", "controlnet", "upscale",
    "diffusion_model", "text_encoder", "clip_vision", "style_model", "textual_inversion",
    "hypernetwork", "gligen", "photomaker", "ipadapter", "vae_approx", "audio_encoder",
    "model_patch", "latent_upscale", "stt", "tts", "face_swap", "face_restore", "nsfw_detector",
]  # fmt: skip
"""What a model is for: the keys of `aiplayground.models.KINDS`."""


class ModelInfo(Frozen):
    """A model that a backend can serve now; `size` is in bytes, `context_length` in tokens."""

    name: str
    path: str = ""
    type: ModelKind = "llm"
    service: str = ""
    size: int | None = None
    loaded: bool | None = None
    format: str | None = None
    architecture: str | None = None
    quantization: str | None = None
    parameters: int | None = None
    context_length: int | None = None
    vision: bool | None = None
    chat: bool | None = None
