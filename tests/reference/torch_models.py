"""Independent models in plain torch, with weights drawn at random: CLIP, VGG19, and the published fusion network.

Nothing of langfuse_jax is used here. Images are (b, c, h, w).
"""

import torch
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel


def small_clip_config(*, activation="quick_gelu", end_of_text=2, image_size=32, patch_size=16):
    part = {"hidden_act": activation, "num_hidden_layers": 3, "projection_dim": 24}
    return CLIPConfig(
        projection_dim=24,
        vision_config=dict(
            part,
            hidden_size=64,
            intermediate_size=100,
            num_attention_heads=4,
            image_size=image_size,
            patch_size=patch_size,
        ),
        text_config=dict(
            part,
            hidden_size=48,
            intermediate_size=96,
            num_attention_heads=3,
            vocab_size=700,
            max_position_embeddings=77,
            bos_token_id=0,
            eos_token_id=end_of_text,
        ),
    )


def draw_clip(config, seed=0):
    """A torch CLIPModel whose every weight matters: attention that picks, biases and scales away from 0 and 1."""
    torch.manual_seed(seed)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif parameter.ndim > 1:
                # Tokens and positions of size 1; a layer's outputs of the size of its inputs, queries and keys larger.
                table = "token_embedding" in name or "position_embedding" in name
                gain = 2.0 if "q_proj" in name or "k_proj" in name else 1.0
                parameter.normal_(0, 1.0 if table else gain * parameter[0].numel() ** -0.5)
    return model


def vgg19_features(tensors, images):
    """Post-ReLU conv2_1, conv3_1, conv4_2 of torchvision's `features` with its tensors; gray is repeated."""
    x, features = images.expand(-1, 3, -1, -1), []
    for place in (0, 2, "pool", 5, 7, "pool", 10, 12, 14, 16, "pool", 19, 21):
        if place == "pool":
            x = F.max_pool2d(x, 2)
            continue
        x = F.relu(F.conv2d(x, tensors[f"features.{place}.weight"], tensors[f"features.{place}.bias"], padding=1))
        if place in (5, 10, 21):
            features.append(x)
    return features


def fusion(encoder, decoder, visible, infrared):
    """The published fusion network, from its two state dicts: fused images in [0, 1], of the inputs' size."""
    sources = ((visible, 1), (infrared, 2))
    x = torch.cat([_content(encoder, f"content_encoder{n}.model", image) for image, n in sources], 1)
    style = torch.cat([_style(encoder, f"style_encoder{n}.model", image) for image, n in sources], 1)
    for n in (0, 2, 4):
        style = F.linear(F.relu(style) if n else style, *_layer(decoder, f"mlp.model.{n}"))
    shifts_scales = style.reshape(-1, 2, 2, 2, 256, 1, 1)  # block, norm, shift or scale, channel
    for block in (0, 1):
        y = x
        for norm, place in ((0, 1), (1, 5)):
            y = F.conv2d(F.pad(y, [1] * 4, "reflect"), *_layer(decoder, f"model_local.{block}.block.{place}"))
            y = F.instance_norm(y) * shifts_scales[:, block, norm, 1] + shifts_scales[:, block, norm, 0]
            y = y if norm else F.relu(y)
        x = x + y
    for place in (0, 3, 6):
        x = F.conv_transpose2d(x, *_layer(decoder, f"model_up.{place}"), stride=2)
        mean, std = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
        gamma, beta = (decoder[f"model_up.{place + 1}.{name}"].reshape(1, -1, 1, 1) for name in ("gamma", "beta"))
        x = F.relu((x - mean) / (std + 1e-5) * gamma + beta)
    x = torch.tanh(F.conv2d(F.pad(x, [3] * 4, "reflect"), *_layer(decoder, "model_up.10"))).clamp(0, 1)
    return x[:, :, : visible.shape[2], : visible.shape[3]]


def _layer(state, name):
    return state[f"{name}.weight"], state[f"{name}.bias"]


def _content(state, name, x):
    x = F.conv2d(F.pad(x, [3] * 4, "reflect"), *_layer(state, f"{name}.1"))
    for place in (4, 7, 10):
        x = F.conv2d(F.relu(F.instance_norm(x)), *_layer(state, f"{name}.{place}"), stride=2, padding=1)
    x = F.relu(F.instance_norm(x))
    for block in (13, 14):
        y = F.conv2d(F.pad(x, [1] * 4, "reflect"), *_layer(state, f"{name}.{block}.block.1"))
        y = F.pad(F.relu(F.instance_norm(y)), [1] * 4, "reflect")
        x = x + F.instance_norm(F.conv2d(y, *_layer(state, f"{name}.{block}.block.5")))
    return x


def _style(state, name, x):
    x = F.relu(F.conv2d(F.pad(x, [3] * 4, "reflect"), *_layer(state, f"{name}.1")))
    for place in (3, 5, 7):
        x = F.relu(F.conv2d(x, *_layer(state, f"{name}.{place}"), stride=2, padding=1))
    return F.conv2d(x.mean((2, 3), keepdim=True), *_layer(state, f"{name}.10"))[:, :, 0, 0]
