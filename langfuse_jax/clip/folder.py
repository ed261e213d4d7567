"""A CLIP as it lies on disk: a folder or a hub id, its architecture, preprocessing, tensors and tokenizer."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import CLIPConfig, CLIPTokenizer

from langfuse_jax.clip import vocabulary
from langfuse_jax.clip.vocabulary import Vocabulary
from langfuse_jax.errors import UserError, reason
from langfuse_jax.weights.files import read_tensors

# In the order in which they are looked for. torch's pickle comes last: it needs torch.
_SAFE, _INDEX, _OPEN, _PICKLE = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
)
_CONFIG, _OPEN_CONFIG, _PREPROCESSOR = "config.json", "open_clip_config.json", "preprocessor_config.json"

# What is read of open_clip's description. Anything else that is set requires another network.
_OPEN_KEYS = {
    "model_cfg": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale"},
    "vision_cfg": {"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "patch_dropout"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "hf_tokenizer_name"},
}


class ClipFiles(NamedTuple):
    """What a folder says: `mean`, `std` and `vocabulary` are None where it does not say."""

    config: CLIPConfig
    mean: list[float] | None
    std: list[float] | None
    tensors: Mapping[str, np.ndarray]
    origin: Path
    tokenizer: CLIPTokenizer
    vocabulary: Vocabulary | None


def read_clip(folder: Path) -> ClipFiles:
    """Reads a folder in Hugging Face's or open_clip's format. Raises UserError, naming the file that is at fault."""
    weights = next((file for file in (_SAFE, _INDEX, _OPEN, _PICKLE) if (folder / file).is_file()), None)
    config, mean, std = read_config(folder, is_open=weights == _OPEN)
    if weights is None:
        raise UserError(f"{folder}: has neither {_SAFE} (or its index) nor {_OPEN} nor {_PICKLE}; a CLIP needs one")
    file = "tokenizer.json" if (folder / "tokenizer.json").is_file() else "vocab.json"
    tokenizer = _read(folder, file, lambda path: CLIPTokenizer.from_pretrained(path.parent))
    known = _read(folder, vocabulary.FILE, Vocabulary.load) if (folder / vocabulary.FILE).is_file() else None
    return ClipFiles(config, mean, std, _tensors(folder, weights), folder / weights, tokenizer, known)


def read_config(folder: Path, *, is_open: bool = False) -> tuple[CLIPConfig, list[float] | None, list[float] | None]:
    """The architecture that a folder describes, and mean and std where it gives them: open_clip's if `is_open`.

    Raises UserError, naming the file, where it is missing or cannot be read.
    """
    if (folder / _OPEN_CONFIG).is_file() and (is_open or not (folder / _CONFIG).is_file()):
        return _read(folder, _OPEN_CONFIG, _open_clip_config)
    config = _read(folder, _CONFIG, _hugging_face_config)
    if not (folder / _PREPROCESSOR).is_file():
        return config, None, None
    return config, *_read(folder, _PREPROCESSOR, lambda path: _statistics(_json(path), "image_mean", "image_std"))


def locate(name_or_path: str | Path) -> Path:
    """The folder of a CLIP, fetched from the hub when it is a hub id. Raises UserError for one that is neither."""
    name = str(name_or_path)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") != 1 or folder.parent.is_dir():
        raise UserError(f"{name}: no such folder; give a folder with config.json and model.safetensors, or a hub id")
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "merges.txt", "model*.safetensors"]))
        for other in (_OPEN, _PICKLE):  # OpenAI's own repository of ViT-B/32 long had the pickle alone
            if not any(folder.glob("*.safetensors")):
                snapshot_download(name, allow_patterns=[other])
        return folder
    except Exception as error:  # offline, unknown id, no permission: the hub raises a dozen types for these
        raise UserError(
            f"{name}: not in the local cache and not fetched from the Hugging Face hub ({type(error).__name__}); "
            f"download config.json, model.safetensors, vocab.json, merges.txt and preprocessor_config.json from "
            f"https://huggingface.co/{name} into a folder and give that folder (--clip FOLDER, --config.clip=FOLDER)"
        ) from error


def _read(folder: Path, file: str, read: Callable[[Path], Any]) -> Any:
    path = folder / file
    if not path.is_file():
        raise UserError(f"{path}: no such file; a CLIP folder needs it")
    try:
        return read(path)
    except UserError:
        raise
    except Exception as error:  # readers of three libraries, each with exceptions of its own
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); download it again") from error


def _json(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text())
    if not isinstance(values, dict):
        raise UserError(f"{path}: is no JSON object; download it again")
    return values


def _hugging_face_config(path: Path) -> CLIPConfig:
    values = _json(path)
    if values.get("model_type") != "clip":
        raise UserError(
            f"{path}: describes no CLIP (model_type is {values.get('model_type')!r}, not 'clip'); give a CLIP's folder"
        )
    return CLIPConfig.from_dict(values)


def _open_clip_config(path: Path) -> tuple[CLIPConfig, list[float] | None, list[float] | None]:
    """open_clip's description in Hugging Face's terms, and its mean and standard deviation."""
    values = _json(path)
    try:
        model = values["model_cfg"]
        vision, text = model["vision_cfg"], model["text_cfg"]
        for name, part in (("model_cfg", model), ("vision_cfg", vision), ("text_cfg", text)):
            if other := sorted(key for key in part.keys() - _OPEN_KEYS[name] if part[key]):
                raise UserError(f"{path}: {name} requires {', '.join(other)}, which this CLIP does not have")
        activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
        config = CLIPConfig(
            projection_dim=model["embed_dim"],
            vision_config={
                "image_size": vision["image_size"],
                "patch_size": vision["patch_size"],
                "hidden_size": vision["width"],
                "num_hidden_layers": vision["layers"],
                "num_attention_heads": vision["width"] // vision.get("head_width", 64),
                "intermediate_size": int(vision["width"] * vision.get("mlp_ratio", 4.0)),
                "hidden_act": activation,
            },
            text_config={
                "max_position_embeddings": text["context_length"],
                "vocab_size": text["vocab_size"],
                "hidden_size": text["width"],
                "num_hidden_layers": text["layers"],
                "num_attention_heads": text["heads"],
                "intermediate_size": int(text["width"] * text.get("mlp_ratio", 4.0)),
                "hidden_act": activation,
                "eos_token_id": 2,  # pooled at the largest id
                "bos_token_id": None,
            },
        )
        return config, *_statistics(values.get("preprocess_cfg") or {}, "mean", "std")
    except (KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path}: describes no CLIP ({type(error).__name__}: {reason(error)}); download it again"
        ) from error


def _statistics(values: Mapping[str, Any], mean: str, std: str) -> tuple[list[float] | None, list[float] | None]:
    """Mean and standard deviation of the three channels, None for what is not given."""
    first, second = ([float(values[name][i]) for i in range(3)] if values.get(name) else None for name in (mean, std))
    return first, second


def _tensors(folder: Path, file: str) -> dict[str, np.ndarray]:
    if file != _INDEX:
        return read_tensors(folder / file)
    tensors: dict[str, np.ndarray] = {}
    for shard in _read(folder, file, lambda path: sorted(set(_json(path)["weight_map"].values()))):
        tensors |= read_tensors(folder / shard)
    return tensors
