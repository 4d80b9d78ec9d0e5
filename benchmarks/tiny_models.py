"""Configs of tiny models of many architectures, for checkpoints built on the spot."""

from typing import Any

from pretrain.config import Kind

VOCABULARY, PIXELS, FRAMES, SECONDS, RATE = 300, 32, 4, 0.5, 16_000
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
LAYERS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
TEXT = {**LAYERS, **IDS, "vocab_size": VOCABULARY, "max_position_embeddings": 64}
FAIRSEQ = {**TEXT, "max_position_embeddings": 66}
DECODER = {**TEXT, "num_key_value_heads": 1, "head_dim": 16}
T5 = {
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 2,
    "vocab_size": VOCABULARY,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 3,
}
SEQ2SEQ = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_ffn_dim": 64,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 64,
    **IDS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 2,
}
VISION = {**LAYERS, "image_size": PIXELS, "patch_size": 8}
STAGES = {"hidden_sizes": [16, 24, 32, 32], "depths": [1, 1, 1, 1]}
SWIN = {
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 4,
    "image_size": PIXELS,
    "patch_size": 4,
}
SPEECH = {
    **LAYERS,
    "conv_dim": [16] * 3,
    "conv_stride": [5, 4, 4],
    "conv_kernel": [10, 4, 4],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 3,
    "mask_time_prob": 0.0,
}
CLIP_HALVES = {
    "text_config": {**TEXT, "max_position_embeddings": 32},
    "vision_config": VISION,
    "projection_dim": 24,
}

MODELS: dict[str, tuple[Kind, dict[str, Any]]] = {
    "bert": ("text", TEXT),
    "roberta": ("text", FAIRSEQ),
    "xlm-roberta": ("text", FAIRSEQ),
    "mpnet": ("text", FAIRSEQ),
    "deberta-v2": ("text", TEXT),
    "modernbert": ("text", {**TEXT, "cls_token_id": 2, "sep_token_id": 3}),
    "distilbert": (
        "text",
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": VOCABULARY, **IDS},
    ),
    "electra": ("text", {**TEXT, "embedding_size": 32}),
    "albert": ("text", {**TEXT, "embedding_size": 16}),
    "nomic_bert": ("text", TEXT),
    "t5": ("text", T5),
    "mt5": ("text", T5),
    "bart": ("text", SEQ2SEQ),
    "clip_text_model": ("text", {**TEXT, "projection_dim": 24}),
    "siglip_text_model": ("text", {**TEXT, "max_position_embeddings": 32}),
    "qwen3": ("text", DECODER),
    "gemma": ("text", DECODER),
    "gemma3_text": ("text", DECODER),
    "llama": ("text", DECODER),
    "mistral": ("text", DECODER),
    "phi3": ("text", {**DECODER, "original_max_position_embeddings": 64}),
    "opt": ("text", {**TEXT, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "gpt2": (
        "text",
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 64,
            "vocab_size": VOCABULARY,
            **IDS,
        },
    ),
    "vit": ("image", VISION),
    "deit": ("image", VISION),
    "beit": ("image", VISION),
    "dinov2": ("image", VISION),
    "dinov3_vit": ("image", VISION),
    "clip_vision_model": ("image", {**VISION, "projection_dim": 24}),
    "siglip_vision_model": ("image", VISION),
    "siglip2_vision_model": (
        "image",
        {**LAYERS, "num_patches": 16, "patch_size": 8},
    ),
    "swin": ("image", SWIN),
    "swinv2": ("image", SWIN),
    "convnext": ("image", STAGES),
    "convnextv2": ("image", STAGES),
    "resnet": ("image", {**STAGES, "embedding_size": 16, "layer_type": "basic"}),
    "efficientnet": (
        "image",
        {
            "width_coefficient": 0.25,
            "depth_coefficient": 0.25,
            "image_size": PIXELS,
            "hidden_dim": 320,
        },
    ),
    "mobilenet_v1": ("image", {"image_size": PIXELS, "depth_multiplier": 0.25}),
    "mobilenet_v2": ("image", {"image_size": PIXELS, "depth_multiplier": 0.25}),
    "mobilevit": (
        "image",
        {
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
            "num_attention_heads": 2,
            "image_size": PIXELS,
            "patch_size": 2,
        },
    ),
    "vit_mae": ("image", {**VISION, "decoder_hidden_size": 32, "decoder_num_hidden_layers": 1}),
    "wav2vec2": ("audio", SPEECH),
    "hubert": ("audio", SPEECH),
    "wavlm": ("audio", SPEECH),
    "audio-spectrogram-transformer": (
        "audio",
        {**LAYERS, "max_length": 64, "num_mel_bins": 32, "patch_size": 16},
    ),
    "whisper": ("audio", {**SEQ2SEQ, "num_mel_bins": 80, "max_source_positions": 1500}),
    "clap_audio_model": (
        "audio",
        {
            "patch_embeds_hidden_size": 16,
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "window_size": 4,
            "spec_size": 64,
            "patch_size": 4,
            "num_mel_bins": 32,
            "hidden_size": 32,
            "projection_dim": 24,
            "patch_stride": [4, 4],
        },
    ),
    "videomae": ("video", {**VISION, "num_frames": FRAMES}),
    "timesformer": ("video", {**VISION, "num_frames": FRAMES}),
    "vivit": ("video", {**VISION, "num_frames": FRAMES, "tubelet_size": [2, 8, 8]}),
    "vjepa2": (
        "video",
        {
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "crop_size": PIXELS,
            "patch_size": 8,
            "frames_per_clip": FRAMES,
            "pred_hidden_size": 48,
            "pred_num_hidden_layers": 1,
            "pred_num_attention_heads": 2,
        },
    ),
}
"""Model type → kind of content, and the config of a tiny model."""
MODELS |= {
    "roformer": ("text", {**TEXT, "embedding_size": 32}),
    "olmo2": ("text", DECODER),
    "focalnet": (
        "image",
        {"embed_dim": 16, "depths": [1, 1], "hidden_sizes": [16, 32], "image_size": 32},
    ),
    "sew": ("audio", {**SPEECH, "squeeze_factor": 2}),
}
UNSEEN: tuple[str, ...] = ("roformer", "olmo2", "focalnet", "sew", "align")
"""Architectures chosen when all others were done."""
DUAL: dict[str, dict[str, Any]] = {
    "clip": CLIP_HALVES,
    "siglip": {
        "text_config": {**TEXT, "max_position_embeddings": 32, "projection_size": 32},
        "vision_config": VISION,
    },
    "metaclip_2": CLIP_HALVES,
    "align": {"text_config": TEXT, "vision_config": {"image_size": PIXELS}, "projection_dim": 24},
}
"""Dual encoders of text and images."""
