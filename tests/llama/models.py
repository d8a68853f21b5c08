"""Makes the language models that the llama.cpp tests run.

usage: models.py tiny OUT.gguf KIND          random weights, architecture llama, 4 blocks of width 256;
                                             KIND is F32, or Q8_0 for the same weights, quantised
       models.py large OUT.gguf Q4_0|Q8_0    random weights in the shape of Llama 3.2 1B
       models.py minilm FOLDER OUT.gguf      all-MiniLM-L6-v2 (f16) from its published folder
Needs NumPy and the package `gguf`.
"""
import json
import sys
from pathlib import Path

import gguf
import numpy as np


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama(path, name, blocks, width, heads, kv_heads, hidden, vocab, context, matrix):
    """A llama model; `matrix(writer, name, rows, columns)` writes a weight matrix."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(blocks)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("none")
    matrix(writer, "token_embd.weight", vocab, width)
    matrix(writer, "output.weight", vocab, width)
    ones = np.ones(width, np.float32)
    writer.add_tensor("output_norm.weight", ones)
    small = width // heads * kv_heads
    for block in range(blocks):
        start = f"blk.{block}."
        writer.add_tensor(start + "attn_norm.weight", ones)
        writer.add_tensor(start + "ffn_norm.weight", ones)
        for part, rows, columns in [
            ("attn_q", width, width), ("attn_k", small, width), ("attn_v", small, width),
            ("attn_output", width, width), ("ffn_gate", hidden, width), ("ffn_up", hidden, width),
            ("ffn_down", width, hidden),
        ]:
            matrix(writer, f"{start}{part}.weight", rows, columns)
    finish(writer)


def tiny(path, kind):
    random = np.random.default_rng(0)
    kind = getattr(gguf.GGMLQuantizationType, kind)

    def matrix(writer, name, rows, columns):
        scale = 1.0 if name.startswith("token_embd") else columns**-0.5
        values = (random.standard_normal((rows, columns)) * scale).astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    llama(path, "tiny-random", 4, 256, 8, 8, 512, 512, 1024, matrix)


def large(path, kind):
    """Blocks of 32 weights with random quants and one scale: as fast as trained ones, no meaning."""
    random = np.random.default_rng(0)
    quants = {"Q4_0": 16, "Q8_0": 32}[kind]
    # Root mean square of the quants, so that a weight is about 1 / sqrt(columns).
    spread = {"Q4_0": 4.6, "Q8_0": 73.9}[kind]

    def matrix(writer, name, rows, columns):
        blocks = np.empty((rows, columns // 32, 2 + quants), np.uint8)
        scale = np.array([columns**-0.5 / spread], np.float16).view(np.uint8)
        blocks[..., :2] = scale
        blocks[..., 2:] = random.integers(0, 256, blocks[..., 2:].shape, np.uint8)
        data = blocks.reshape(rows, -1)
        writer.add_tensor(name, data, raw_dtype=getattr(gguf.GGMLQuantizationType, kind))

    llama(path, "large-random", 16, 2048, 32, 8, 8192, 128256, 2048, matrix)


def read_safetensors(path):
    raw = Path(path).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    for name, entry in json.loads(raw[8:8 + length]).items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        kind = {"F32": np.float32, "I64": np.int64}[entry["dtype"]]
        data = np.frombuffer(raw[8 + length:][start:end], kind)
        yield name, data.reshape(entry["shape"])


def minilm(folder, path):
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    blocks = config["num_hidden_layers"]
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(blocks)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    # llama.cpp's word pieces: those inside of a word are bare, those that begin one have a mark.
    ids = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    tokens, kinds = [], []
    for piece in sorted(ids, key=ids.get):
        if piece in special:
            tokens.append(piece)
            kinds.append(gguf.TokenType.CONTROL)
            continue
        tokens.append(piece[2:] if piece.startswith("##") else "\u2581" + piece)
        unused = piece.startswith("[unused")
        kinds.append(gguf.TokenType.UNUSED if unused else gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_eos_token_id(ids["[SEP]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_mask_token_id(ids["[MASK]"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, blocks)
    for name, data in read_safetensors(folder / "model.safetensors"):
        if "pooler" in name or "position_ids" in name:
            continue
        endings = (".weight", ".bias")
        new = names.get_name(name, try_suffixes=endings)
        new = new or names.get_name("bert." + name, try_suffixes=endings)
        assert new, f"{name} has no name in GGUF"
        keep = data.ndim == 1 or "position_embd" in new or "token_types" in new
        writer.add_tensor(new, data.astype(np.float32 if keep else np.float16))
    finish(writer)


if __name__ == "__main__":
    {"tiny": tiny, "large": large, "minilm": minilm}[sys.argv[1]](*sys.argv[2:])
