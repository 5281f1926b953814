"""The text tower of a small CLIP in a file of its own, with which the CLIP's student takes labels by text.

tower = read_text_tower(Path("student.text.safetensors"))
tower.vectors({"happy": ["a happy face", "a smile"], "sad": ["a sad face"]})  # (2, 2, embed_dim)

The file has the weights of the text tower and the text prompts in half floats. Of the token embedding, it has only the
tokens of the texts that the CLIP was trained on; all other tokens are zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.model_store import CHECKPOINT_SUFFIX
from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.descriptions import TEMPLATE, sentences_or_template
from edgekit.models.clip.hicropl import PromptConfig, PromptedClip, Prompts, frozen_classifier
from edgekit.models.clip.load import FrozenClip, seeded_model
from edgekit.models.clip.options import Activation
from edgekit.models.model_loading import load_weights
from edgekit.models.tensor_files import check_schema, check_values, read_tensors, write_tensors
from edgekit.typed_json import convert, parse_json

_KEY = "edgekit-text-tower"
_SCHEMA_MAJOR = 1
_IMAGE, _EMBEDDING = "visual.", "token_embedding.weight"
_TOKENS, _ROWS, _PROMPTS = "tokens", "token_rows", "text_prompts"
# The model needs an image tower, which is not used.
_NO_IMAGES = Tower(64, 1, 1)


@dataclass(frozen=True)
class TextTower:
    """Encoder of labels by text; `teacher_sha256` identifies the teacher whose students it belongs to."""

    clip: FrozenClip
    prompted: PromptedClip | None
    teacher_sha256: str

    @torch.no_grad()
    def vectors(self, descriptions: Mapping[str, Sequence[str]]) -> Tensor:
        """Return one vector per sentence: (sentences, labels, embed_dim), where `sentences` is a power of two.

        A label with fewer sentences has some of its vectors more than once. The student's net computes the maximum over
        the sentences by halves, see `EmbeddingNet`.
        """
        texts = {name: sentences_or_template(name, sentences) for name, sentences in descriptions.items()}
        most = max(len(sentences) for sentences in texts.values())
        next_power_of_two = 1 << (most - 1).bit_length()
        vectors = []
        for index in range(next_power_of_two):
            one_each = {name: (sentences[index % len(sentences)],) for name, sentences in texts.items()}
            vectors.append(self._encoded(one_each))  # (labels, embed_dim)
        return torch.stack(vectors)

    def _encoded(self, labels: Mapping[str, Sequence[str]]) -> Tensor:
        """Return one vector per label (labels, embed_dim): the normalised mean of its sentences' vectors."""
        if self.prompted is None:
            return frozen_classifier(self.clip, labels)
        return self.prompted.with_classes(labels).text_features()


@dataclass(frozen=True)
class _Document:
    """Header of the file; all sizes are those of the tensors. `prompts` is None for a CLIP without prompts."""

    schema: str
    teacher_sha256: str
    source: str
    heads: int
    activation: Activation
    prompts: PromptConfig | None
    texts: tuple[str, ...]


class _ConstantPrompts(nn.Module):
    """Prompts of the text tower as constants (D, n, d_t), in place of a `PromptLearner`."""

    def __init__(self, text: Tensor) -> None:
        super().__init__()
        self.text: Tensor
        self.register_buffer("text", text)

    def forward(self) -> Prompts:
        return Prompts(self.text, vision=self.text[:0])  # the image tower is not used


def text_tower_beside(checkpoint: Path) -> Path:
    """Return the path of the text tower that belongs to a student's checkpoint."""
    return checkpoint.with_suffix(f".text{CHECKPOINT_SUFFIX}")


@torch.no_grad()
def write_text_tower(path: Path, tower: TextTower) -> None:
    """Write a tower to a file for `read_text_tower`; equal towers give equal bytes.

    Raises:
        StorageError: The file cannot be written.
    """
    clip, prompted = tower.clip, tower.prompted
    prompt_config = None if prompted is None else prompted.config
    # Of the token embedding, by far the largest tensor, only the rows of these texts' tokens are stored.
    texts = [*clip.texts, TEMPLATE.format("X")]  # X: in place of any label
    if prompt_config is not None:
        texts.append(prompt_config.context_words)
    tokens = torch.unique(clip.tokenize(texts))
    # All tensors but those of the image tower.
    state = {name: value for name, value in clip.model.state_dict().items() if not name.startswith(_IMAGE)}
    embedding = state.pop(_EMBEDDING)
    state = {name: value.half() for name, value in state.items()}  # float16: half the size
    state |= {_TOKENS: tokens.int(), _ROWS: embedding[tokens].half()}
    if prompted is not None:
        state[_PROMPTS] = prompted.learner().text.half()
    document = _Document(
        schema=f"{_SCHEMA_MAJOR}.0",
        teacher_sha256=tower.teacher_sha256,
        source=clip.source,
        heads=clip.config.text.heads,
        activation=clip.config.activation,
        prompts=prompt_config,
        texts=clip.texts,
    )
    write_tensors(path, state, _KEY, asdict(document))


def read_text_tower(path: Path) -> TextTower:
    """Return the tower in a file.

    Raises:
        InputError: The file is damaged or contains no text tower.
    """
    try:
        state, metadata = read_tensors(path)
        if _KEY not in metadata:
            raise InputError("it contains no text tower")
        data = parse_json(metadata[_KEY], "it")
        check_schema(data, _SCHEMA_MAJOR)
        document = convert(data, _Document, "field")
        check_values(state, "it", "make the student again")
        # All tensors but the token numbers are floating-point ones, of which some are stored as float16.
        state = {name: value if name == _TOKENS else value.float() for name, value in state.items()}
        return _built(document, state)
    except (InputError, KeyError, ValueError, IndexError, OSError, RuntimeError) as error:
        reason = f"tensor {error} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"text tower '{path}' cannot be used: {reason}") from error


def _built(document: _Document, state: dict[str, Tensor]) -> TextTower:
    """Return the tower of a file's header and float32 tensors; `state` is changed."""
    tokens, rows, prompts = state.pop(_TOKENS), state.pop(_ROWS), state.pop(_PROMPTS, None)
    positions, width = state["positional_embedding"].shape
    # The third part of a name, such as transformer.resblocks.0.ln_1.weight, is the number of the layer.
    layers = len({name.split(".")[2] for name in state if name.startswith("transformer.resblocks.")})
    config = ClipConfig(
        image_size_px=1,  # as small as possible: the image tower is not used
        patch_size_px=1,
        vision=_NO_IMAGES,
        text=Tower(width, layers, document.heads),
        embed_dim=state["text_projection"].shape[1],
        activation=document.activation,
        context_length=positions,
    )
    model = seeded_model(config, seed=0)  # only the image tower keeps weights that are drawn
    # The file has neither the image tower nor all rows of the token embedding.
    image_tower = {name: value for name, value in model.state_dict().items() if name.startswith(_IMAGE)}
    embedding = torch.zeros(config.vocabulary, width)
    embedding[tokens.long()] = rows
    load_weights(model, {**state, **image_tower, _EMBEDDING: embedding}, "a text tower")
    clip = FrozenClip(model, config, document.source, texts=document.texts)
    if (prompts is None) != (document.prompts is None):
        raise InputError("its prompts are missing")
    if document.prompts is None or prompts is None:
        return TextTower(clip, prompted=None, teacher_sha256=document.teacher_sha256)
    if prompts.shape != (document.prompts.depth, document.prompts.n_ctx, width):
        raise InputError(f"its prompts have shape {list(prompts.shape)}")
    # Any class: `TextTower.vectors` replaces the classes.
    prompted = PromptedClip(clip, document.prompts, {"X": ()}, _ConstantPrompts(prompts))
    return TextTower(clip, prompted.eval(), document.teacher_sha256)
