"""Stock pipelines of diffusers with random weights and text encoders of one layer, made from configurations alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import yaml
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLWan,
    DiffusionPipeline,
    ModelMixin,
)
from torch import nn

TRANSFORMERS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("transformers.yaml").read_text())
WORDS = ["<pad>", "</s>", "<unk>", "a", "cat", "dog"]
WIDTH = 12  # of the text's embeddings, in most of transformers.yaml


def tokenizer(length: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=length, **special)


def t5(kind: str = "T5", width: int = WIDTH) -> nn.Module:
    import transformers

    sizes = {"vocab_size": 8, "d_model": width, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    return getattr(transformers, f"{kind}EncoderModel")(getattr(transformers, f"{kind}Config")(**sizes))


def clip(kind: str = "CLIPTextModelWithProjection", width: int = 10, projection: int = 10) -> nn.Module:
    import transformers

    sizes = {"vocab_size": 8, "hidden_size": width, "intermediate_size": 8, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 8, "projection_dim": projection}
    return getattr(transformers, kind)(
        transformers.CLIPTextConfig(**sizes, eos_token_id=1, bos_token_id=1, pad_token_id=0)
    )


def gemma() -> nn.Module:
    from transformers import Gemma2Config, Gemma2Model

    sizes = {"vocab_size": 8, "hidden_size": WIDTH, "intermediate_size": 8, "num_hidden_layers": 2, "head_dim": 6}
    return Gemma2Model(Gemma2Config(**sizes, num_attention_heads=2, num_key_value_heads=1, pad_token_id=0))


def kl(**sizes: Any) -> AutoencoderKL:
    return AutoencoderKL(
        **({"block_out_channels": (4, 4), "norm_num_groups": 4, "latent_channels": 4} | LEVELS | sizes)
    )


LEVELS = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}


def transformer(name: str, **sizes: Any) -> ModelMixin:
    """The network of transformers.yaml, but for some sizes, with random weights everywhere."""
    model = getattr(diffusers.models, name)(**(TRANSFORMERS[name]["config"] | sizes)).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=random)
    return model


def scheduler(name: str, **settings: Any) -> Any:
    return getattr(diffusers, name)(**settings)


Parts = dict[str, Any]
IMAGE = {"height": 16, "width": 16}
VIDEO = IMAGE | {"num_frames": 5}


def with_t5(length: int = 8, **t5_sizes: Any) -> Parts:
    return {"text_encoder": t5(**t5_sizes), "tokenizer": tokenizer(length)}


def dit() -> Parts:
    sizes = {"num_embeds_ada_norm": 1000}
    return {
        "transformer": transformer("DiTTransformer2DModel", **sizes),
        "vae": kl(),
        "scheduler": scheduler("DDIMScheduler"),
    }


def pixart() -> Parts:
    parts = {"transformer": transformer("PixArtTransformer2DModel"), "vae": kl()}
    return parts | with_t5() | {"scheduler": scheduler("DPMSolverMultistepScheduler")}


def sd3() -> Parts:
    model = transformer("SD3Transformer2DModel", joint_attention_dim=20, pooled_projection_dim=20)
    texts: Parts = {"text_encoder": clip(), "text_encoder_2": clip(), "text_encoder_3": t5(width=20)}
    texts |= {name: tokenizer(8) for name in ("tokenizer", "tokenizer_2", "tokenizer_3")}
    return {"transformer": model, "vae": kl(shift_factor=0.0)} | texts | flow()


def flux() -> Parts:
    model = transformer("FluxTransformer2DModel", in_channels=16)
    texts: Parts = {"text_encoder": clip("CLIPTextModel"), "text_encoder_2": t5()}
    texts |= {"tokenizer": tokenizer(8), "tokenizer_2": tokenizer(8)}
    return {"transformer": model, "vae": kl(shift_factor=0.0)} | texts | flow()


def flow(**settings: Any) -> Parts:
    return {"scheduler": scheduler("FlowMatchEulerDiscreteScheduler", **settings)}


def auraflow() -> Parts:
    return {"transformer": transformer("AuraFlowTransformer2DModel"), "vae": kl()} | with_t5(kind="UMT5") | flow()


def cogview3() -> Parts:
    parts = {"transformer": transformer("CogView3PlusTransformer2DModel", pos_embed_max_size=16), "vae": kl()}
    return parts | with_t5() | {"scheduler": scheduler("CogVideoXDDIMScheduler")}


def sana() -> Parts:
    model = transformer("SanaTransformer2DModel")
    levels = {"encoder_block_types": "ResBlock", "decoder_block_types": "ResBlock", "latent_channels": 4}
    levels |= {f"{way}_block_out_channels": (4, 4) for way in ("encoder", "decoder")}
    levels |= {f"{way}_layers_per_block": (1, 1) for way in ("encoder", "decoder")}
    levels |= {f"{way}_qkv_multiscales": ((), ()) for way in ("encoder", "decoder")}
    vae = AutoencoderDC(**levels)
    return {"transformer": model, "vae": vae, "text_encoder": gemma(), "tokenizer": tokenizer(40)} | flow()


def lumina2() -> Parts:
    model = transformer("Lumina2Transformer2DModel", axes_lens=(300, 32, 32))
    return {
        "transformer": model,
        "vae": kl(shift_factor=0.0),
        "text_encoder": gemma(),
        "tokenizer": tokenizer(40),
    } | flow()


def wan() -> Parts:
    vae = AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
                           latents_mean=[0.0] * 4, latents_std=[1.0] * 4)  # fmt: skip
    return {"transformer": transformer("WanTransformer3DModel"), "vae": vae} | with_t5(kind="UMT5") | flow(shift=3.0)


def cogvideox() -> Parts:
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(4, 4, 4, 4), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
    )  # fmt: skip
    model = transformer("CogVideoXTransformer3DModel", sample_width=2, sample_height=2, sample_frames=5)
    return {"transformer": model, "vae": vae, "scheduler": scheduler("CogVideoXDDIMScheduler")} | with_t5()


def ltx() -> Parts:
    vae = AutoencoderKLLTXVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
    )  # fmt: skip
    return {"transformer": transformer("LTXVideoTransformer3DModel"), "vae": vae} | with_t5() | flow()


def mochi() -> Parts:
    vae = AutoencoderKLMochi(
        latent_channels=4, encoder_block_out_channels=(32, 32, 32, 32), decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1), latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    return {"transformer": transformer("MochiTransformer3DModel"), "vae": vae} | with_t5(width=16) | flow()


def latte() -> Parts:
    parts = {"transformer": transformer("LatteTransformer3DModel"), "vae": kl()}
    return parts | with_t5() | {"scheduler": scheduler("DDIMScheduler")}


PIPELINES: dict[str, tuple[Callable[[], Parts], dict[str, Any]]] = {
    "DiTPipeline": (dit, {"class_labels": [1]}),
    "PixArtAlphaPipeline": (pixart, IMAGE | {"use_resolution_binning": False, "clean_caption": False}),
    "PixArtSigmaPipeline": (pixart, IMAGE | {"use_resolution_binning": False, "clean_caption": False}),
    "StableDiffusion3Pipeline": (sd3, IMAGE | {"max_sequence_length": 8}),
    "FluxPipeline": (flux, IMAGE | {"max_sequence_length": 8}),
    "AuraFlowPipeline": (auraflow, IMAGE | {"max_sequence_length": 8}),
    "CogView3PlusPipeline": (cogview3, IMAGE | {"max_sequence_length": 8}),
    "SanaPipeline": (
        sana,
        {"height": 32, "width": 32} | {"use_resolution_binning": False, "complex_human_instruction": None},
    ),
    "Lumina2Pipeline": (lumina2, IMAGE),
    "WanPipeline": (wan, VIDEO | {"max_sequence_length": 8}),
    "CogVideoXPipeline": (cogvideox, VIDEO | {"max_sequence_length": 5}),
    "LTXPipeline": (ltx, VIDEO | {"height": 32, "width": 32, "max_sequence_length": 8}),
    "MochiPipeline": (mochi, VIDEO | {"num_frames": 7, "max_sequence_length": 5}),
    "LattePipeline": (latte, IMAGE | {"video_length": 2, "clean_caption": False}),
}


def small_pipeline(name: str) -> tuple[DiffusionPipeline, dict[str, Any]]:
    """A pipeline, and what it is called with."""
    parts, arguments = PIPELINES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(diffusers, name)(**parts())
    made.set_progress_bar_config(disable=True)
    arguments = arguments | {"num_inference_steps": 2, "output_type": "latent"}
    return made, arguments if "class_labels" in arguments else arguments | {"prompt": "a cat"}
