"""A frozen CLIP and its tokenizer; load, create and save CLIPs, in every file format in which weights are published.

clip = load_clip("ViT-B-16/openai")
features = clip.encode_text(clip.tokenize(["a photo of a happy face."]))  # (1, 512)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.downloads import UnavailableError, is_offline
from edgekit.errors import InputError
from edgekit.files import require_file, sha256_of
from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.clip.architecture import ClipConfig, build_model, config_from_open_clip, config_from_weights
from edgekit.models.clip.options import Activation
from edgekit.models.clip.prompt_insertion import encode_image, encode_text
from edgekit.models.clip.transformers_layout import is_transformers_state, read_config, renamed, weights_file
from edgekit.models.model_loading import check_tensors, load_weights
from edgekit.models.tensor_files import (
    check_schema,
    check_values,
    is_dense,
    is_torchscript,
    load_tensors,
    read_tensors,
    read_torchscript,
    weights_digest,
    write_tensors,
)
from edgekit.typed_json import convert, parse_json

_FILE_SUFFIXES = {".pt", ".pth", ".bin", ".safetensors"}
METADATA_KEY = "edgekit-clip"
SCHEMA_MAJOR = 1
SCHEMA_VERSION = f"{SCHEMA_MAJOR}.0"
# Tensors that are not weights: numbers in OpenAI's files, and a mask that the model creates itself.
_NO_WEIGHTS = {"input_resolution", "context_length", "vocab_size", "attn_mask"}
_OPENAI_ONLY = "input_resolution"


class FrozenClip(nn.Module):
    """open_clip's model with frozen weights, always in eval mode.

    `model` is open_clip's `CLIP`, `source` the origin of the weights, `sha256` the checksum of their file. `texts` have
    every word that the CLIP was trained on, if that is known.
    """

    def __init__(
        self,
        model: nn.Module,
        config: ClipConfig,
        source: str,
        sha256: str | None = None,
        texts: Sequence[str] = (),
    ) -> None:
        """Freeze `model`; without `sha256`, the checksum of the file is replaced by that of the weights."""
        super().__init__()
        self.model: Any = model.float().requires_grad_(False).eval()
        self.config = config
        self.source = source
        self.texts = tuple(texts)
        self.sha256 = sha256 or self.weights_sha256

    @property
    def image_size_px(self) -> int:
        """Height and width of the input images in pixels."""
        return self.config.image_size_px

    @property
    def logit_scale(self) -> Tensor:
        """Factor by which cosine similarities are multiplied to get logits, a scalar."""
        scale: Tensor = self.model.logit_scale.exp()
        return scale

    def train(self, mode: bool = True) -> FrozenClip:
        """Keep eval mode, even if the module that contains this CLIP is set to training mode."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Return features (N, embed_dim), not normalised, of normalised images (N, 3, size, size)."""
        return encode_image(self.model.visual, images)

    @torch.no_grad()
    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return features (N, embed_dim), not normalised, of tokens (N, context_length)."""
        return encode_text(self.model, tokens)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return tokens, int64 (N, context_length), on the model's device; see the function `tokenize`.

        Raises:
            InputError: As for the function `tokenize`.
        """
        return tokenize(texts, self.config).to(self.model.logit_scale.device)

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights, which is the same for every file that contains these weights."""
        return weights_digest(self.model.state_dict())


def tokenize(texts: Sequence[str], config: ClipConfig) -> Tensor:
    """Return tokens, int64 (N, context_length): start token, words, end token, zeros.

    open_clip's tokenizer returns the same tokens.

    Raises:
        InputError: A text is longer than the context or contains a start or end token, or the CLIP's vocabulary is not
            the tokenizer's.
    """
    tokenizer = _tokenizer()
    if tokenizer.vocab_size > config.vocabulary:
        raise InputError(
            f"the CLIP has a vocabulary of {config.vocabulary} tokens, the tokenizer one of {tokenizer.vocab_size}: "
            "only CLIP's own vocabulary is supported"
        )
    room = config.context_length
    tokens = torch.zeros(len(texts), room, dtype=torch.long)
    for row, text in enumerate(texts):
        words = tokenizer.encode(text)
        if tokenizer.eot_token_id in words or tokenizer.sot_token_id in words:
            raise InputError(f"text {_short(text)} contains a start or end token: remove it")
        if len(words) + 2 > room:  # with the start token and the end token
            raise InputError(
                f"text {_short(text)} is {len(words) + 2} tokens long, the CLIP's context {room}: shorten it"
            )
        tokens[row, : len(words) + 2] = torch.tensor([tokenizer.sot_token_id, *words, tokenizer.eot_token_id])
    return tokens


def description_tokens(name: str, sentences: Sequence[str], config: ClipConfig) -> Tensor:
    """Return the tokens of a class's descriptions, int64 (sentences, context_length).

    Raises:
        InputError: As for `tokenize`; the message names the class.
    """
    try:
        return tokenize(sentences, config)
    except InputError as error:
        raise InputError(f"description of class '{name}': {error}") from error


@cache  # reading the vocabulary takes as long as tokenizing thousands of texts
def _tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def _short(text: str) -> str:
    """Return a text in quotes for an error message, with at most 50 characters."""
    return repr(text if len(text) <= 50 else f"{text[:47]}...")


def load_clip(source: str | Path, activation: Activation | None = None) -> FrozenClip:
    """Return a frozen CLIP.

    Args:
        source: A file (OpenAI's TorchScript archive, open_clip's state dict, safetensors), the folder of a training or
            of a CLIP of transformers, or open_clip's names as MODEL/WEIGHTS, such as `ViT-B-16-quickgelu/openai`, which
            open_clip downloads into its cache.
        activation: The CLIP's activation function; default: as described in `read_clip_file`.

    Raises:
        InputError: The file is damaged or not a CLIP with a plain ViT, or open_clip has no such name.
        UnavailableError: The download failed, or EDGEKIT_OFFLINE forbids it.
    """
    path = Path(source)
    if path.is_dir():
        path = weights_file(path) or resolve_model(str(path), (CHECKPOINT_SUFFIX,))
    # A missing file with such a suffix is reported as missing, and not taken for a name in open_clip.
    if path.exists() or path.suffix.lower() in _FILE_SUFFIXES:
        return _load_file(path, named=None, activation=activation)
    config, path = _download(str(source), activation)
    return _load_file(path, named=config, activation=activation, source=str(source))


def seeded_model(config: ClipConfig, seed: int) -> nn.Module:
    """Return open_clip's model with trainable initial weights, drawn with `seed`.

    The state of torch's global random generator is left unchanged.
    """
    with torch.random.fork_rng(devices=[]):  # no GPU's generator, because the weights are drawn on the CPU
        torch.manual_seed(seed)
        return build_model(config)


def save_clip(path: Path, model: nn.Module, config: ClipConfig, training: Mapping[str, Any] | None = None) -> None:
    """Write a CLIP to a safetensors file for `load_clip`; the file contains the architecture.

    Args:
        path: The file.
        model: open_clip's model.
        config: Its architecture.
        training: Record of its training.

    Raises:
        StorageError: The file cannot be written.
    """
    document = {"schema": SCHEMA_VERSION, "config": asdict(config), "training": dict(training or {})}
    write_tensors(path, model.state_dict(), METADATA_KEY, document)


def _load_file(
    path: Path, named: ClipConfig | None, activation: Activation | None, source: str | None = None
) -> FrozenClip:
    """Return the frozen CLIP in a file.

    The architecture is `named`, or else the one that the file states, or else the one of the tensors' shapes.

    Args:
        path: The file.
        named: The architecture, if the CLIP is given by open_clip's name.
        activation: See `load_clip`.
        source: Origin of the weights; default: the name of the file.
    """
    file = read_clip_file(path)
    try:
        config = named or file.config or config_from_weights(file.state, activation or file.activation)
        if activation and config.activation != activation:
            raise InputError(f"its activation is {config.activation}, not {activation}: leave activation out")
        with torch.device("meta"):  # checks the shapes before a model of any size is allocated
            check_tensors(build_model(config).state_dict(), file.state, "CLIP")
        # The seed has no effect on the result, because all weights are replaced; torch's generator stays unchanged.
        model = seeded_model(config, seed=0)
        load_weights(model, file.state, "CLIP")
    except InputError as error:
        raise InputError(f"CLIP file '{path}': {error}") from error
    return FrozenClip(model, config, source or path.name, sha256_of(path), file.texts)


def _download(source: str, activation: Activation | None) -> tuple[ClipConfig, Path]:
    """Return the architecture of a CLIP with one of open_clip's names, MODEL/WEIGHTS, and the file of its weights."""
    import open_clip
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

    name, _, tag = source.partition("/")
    document: dict[str, Any] | None = open_clip.get_model_config(name)
    if document is None:
        raise InputError(f"CLIP '{source}' is neither a file nor an open_clip name, such as ViT-B-16/openai")
    tags = list_pretrained_tags_by_model(name)
    entry = get_pretrained_cfg(name, tag)
    if not entry:
        raise InputError(f"open_clip has no weights '{tag}' of {name}: give {name}/ and one of {', '.join(tags)}")
    if entry.get("quick_gelu") and activation is None:
        activation = "quick-gelu"
    config = config_from_open_clip(document, activation)
    config = replace(config, image_mean=tuple(entry["mean"]), image_std=tuple(entry["std"]))
    # Hides one warning per retry; the error below reports the failure.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        if is_offline():
            raise ConnectionError("EDGEKIT_OFFLINE")
        return config, Path(download_pretrained(entry))
    except Exception as error:  # the network, the hub's client and the disk can raise almost every type
        places = [entry[key] for key in ("hf_hub", "url") if entry.get(key)]
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UnavailableError(
            f"the weights of '{source}' cannot be downloaded ({reason}): get the file on a machine with a network, "
            f"from {' or '.join(places) or 'their publisher'}, and give its path instead of the name"
        ) from error


@dataclass(frozen=True)
class ClipFile:
    """Weights in float32 with OpenAI's names; `config` is None for files that do not state their architecture.

    `texts` have every word that the CLIP was trained on; empty for files that do not state them.
    """

    state: Mapping[str, Tensor]
    activation: Activation
    config: ClipConfig | None = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Training:
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Document:
    """Header of a safetensors file of a CLIP that edgekit saved."""

    schema: str
    config: ClipConfig
    training: _Training = _Training()


def read_clip_file(path: Path) -> ClipFile:
    """Return the weights in OpenAI's TorchScript archive, a state dict (also in a training checkpoint) or safetensors.

    No code in the file is executed. Where the activation comes from depends on the file:

    - OpenAI's: it is QuickGELU.
    - edgekit's: the header states the architecture, and with it the activation.
    - transformers': `config.json` in the same folder states the architecture.
    - Other files: `open_clip_config.json` in the same folder states the activation; without it, it is GELU.

    Raises:
        InputError: The file is damaged or has another format.
    """
    require_file(path, "CLIP file")
    if is_torchscript(path):
        return ClipFile(_cleaned(read_torchscript(path), path), "quick-gelu")
    if _looks_like_safetensors(path):
        return _read_safetensors(path)
    document = load_tensors(path)
    state = document.get("state_dict", document)
    if not isinstance(state, dict) or not state:
        raise InputError(f"'{path}' contains no state dict: give a CLIP's weights")
    is_of_openai = any(str(name).rpartition(".")[2] == _OPENAI_ONLY for name in state)
    activation: Activation | None = "quick-gelu" if is_of_openai else None  # None: a configuration file states it
    return _described_by_files(_cleaned(state, path), path, activation)


def _looks_like_safetensors(path: Path) -> bool:
    """Return whether a file begins as a safetensors file does, or has that suffix."""
    with path.open("rb") as stream:
        # The format begins with the header's length in 8 bytes, then the header, a JSON object.
        return stream.read(9)[8:] == b"{" or path.suffix == ".safetensors"


def _read_safetensors(path: Path) -> ClipFile:
    """Return the weights in a safetensors file, with the architecture in its header if edgekit saved it."""
    try:
        tensors, metadata = read_tensors(path)
    except InputError as error:
        raise InputError(
            f"CLIP file '{path}' is not a complete safetensors file ({error}): download it again"
        ) from error
    state = _cleaned(tensors, path)
    if METADATA_KEY not in metadata:
        return _described_by_files(state, path)
    try:
        document = parse_json(metadata[METADATA_KEY], "it")
        check_schema(document, SCHEMA_MAJOR)
        header = convert(document, _Document, "field")
    except InputError as error:
        raise InputError(f"CLIP file '{path}' has no valid metadata: {error}") from error
    return ClipFile(state, header.config.activation, header.config, header.training.texts)


def _described_by_files(state: Mapping[str, Tensor], path: Path, activation: Activation | None = None) -> ClipFile:
    """Return weights with the activation or the architecture that other files in the folder of `path` state."""
    if not is_transformers_state(state):
        return ClipFile(state, activation or _activation_beside(path))
    config = read_config(path)
    return ClipFile(renamed(state, path), config.activation, config)


def _cleaned(state: Mapping[str, object], path: Path) -> dict[str, Tensor]:
    """Return the weights with OpenAI's names: without the prefixes of wrappers and of open_clip's text tower."""
    cleaned: dict[str, Tensor] = {}
    for name, value in state.items():
        short = str(name).removeprefix("module.").removeprefix("text.")
        if short.rpartition(".")[2] in _NO_WEIGHTS:  # sizes and the mask, which follow from the architecture
            continue
        if not isinstance(value, Tensor) or not is_dense(value):
            kind = type(value).__name__
            raise InputError(f"CLIP file '{path}' contains a {kind} under '{name}': expected dense tensors")
        # An expanded view has few bytes in the file, but a copy of it could fill the memory.
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise InputError(f"CLIP file '{path}' contains fewer values of tensor '{name}' than its shape has")
        cleaned[short] = value
    check_values(cleaned, f"CLIP file '{path}'", "download it again")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in cleaned.items()}


def _activation_beside(path: Path) -> Activation:
    """Return the activation in open_clip's configuration beside a file of weights; without it, GELU."""
    document = path.with_name("open_clip_config.json")
    try:
        model = json.loads(document.read_text())["model_cfg"]
        return "quick-gelu" if model.get("quick_gelu") else "gelu"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # no such file, or a damaged one
        return "gelu"
