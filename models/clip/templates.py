"""The sentence per data set by which CoOp's authors classify with a plain CLIP (arXiv 2109.01134, zsclip.py).

The row "CLIP" of the tables of prompt learning, those of HiCroPL included, is measured with these sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekit.models.clip.descriptions import TEMPLATE, Descriptions, as_words

COOP_TEMPLATES: Mapping[str, str] = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "Food101": "a photo of {}, a type of food.",
    "UCF101": "a photo of a person doing {}.",
}


def template_descriptions(classes: Sequence[str], dataset: str) -> Descriptions:
    """Return one sentence per class: CoOp's for this data set, `a photo of a {}.` for others."""
    template = COOP_TEMPLATES.get(dataset, TEMPLATE)
    return {name: (template.format(as_words(name)),) for name in classes}
