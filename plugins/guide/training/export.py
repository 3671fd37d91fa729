"""Write the trained network as one GGUF file that llama.cpp and OpenVINO GenAI load as it is.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import json
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer

from .network import Guide
from .tokenizer import CHAT_TEMPLATE, END_OF_TEXT, END_OF_TURN, PRE_TOKENIZER, SPECIAL_TOKENS


def _add_general(writer: gguf.GGUFWriter) -> None:
    writer.add_type("model")
    writer.add_name("AI Playground Guide")
    writer.add_basename("guide")
    writer.add_description("Answers newcomers' questions about AI Playground")
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _add_shape(writer: gguf.GGUFWriter, network: Guide) -> None:
    shape = network.shape
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(shape.rope_base)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    ids = tokenizer.get_vocab()
    tokens = sorted(ids, key=ids.__getitem__)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types([control if t in SPECIAL_TOKENS else normal for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(ids[END_OF_TEXT])
    writer.add_eos_token_id(ids[END_OF_TURN])
    writer.add_eot_token_id(ids[END_OF_TURN])
    writer.add_pad_token_id(ids[END_OF_TEXT])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_gguf(network: Guide, tokenizer: Tokenizer, path: Path) -> None:
    """Write ``path``: matrices as F16, norms as F32 (llama.cpp wants those so).

    The tied output layer is left out; engines then use the token embedding in its place.
    """
    writer = gguf.GGUFWriter(path, "llama")
    _add_general(writer)
    _add_shape(writer, network)
    _add_tokenizer(writer, tokenizer)
    for name, weight in network.state_dict().items():
        kind = np.float16 if weight.ndim == 2 else np.float32
        writer.add_tensor(name, weight.detach().numpy().astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
