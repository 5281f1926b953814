"""Options of `edgekit train` for CLIPs: prompts (hicropl) and a small CLIP (clip-mini)."""

from __future__ import annotations

import click

from edgekit.cli.options import PATH, NumberRange, activation_option, combined

clip_options = combined(
    click.option(
        "--clip",
        metavar="FILE|DIR|NAME",
        help="hicropl: the CLIP: its file, the folder of its training, or an open_clip name MODEL/WEIGHTS.",
    ),
    activation_option,
    click.option(
        "--task",
        type=click.Choice(["few-shot", "base-to-novel", "cross-dataset", "domain", "all"]),
        default="few-shot",
        show_default=True,
        help="hicropl: task of the paper; it determines the data of training and evaluation.",
    ),
    click.option(
        "--shots",
        type=click.IntRange(1, 10_000),
        metavar="N",
        default=16,
        show_default=True,
        help="hicropl: training images per class, sampled with --seed.",
    ),
    click.option(
        "--eval-data",
        type=PATH,
        multiple=True,
        help="hicropl: a data set to evaluate on, for the tasks cross-dataset and domain. Repeatable.",
    ),
    click.option(
        "--test-split", help="hicropl: split to evaluate on; default: PrivateTest, test, or the validation images."
    ),
    click.option(
        "--descriptions",
        type=PATH,
        metavar="JSON",
        help="Sentences for each class, or a folder with one file per data set. Default: the shipped sentences of "
        "the seven expressions.",
    ),
    click.option(
        "--flow",
        type=click.Choice(["hicropl", "one-way", "independent"]),
        default="hicropl",
        show_default=True,
        help="hicropl: knowledge flow between text and vision prompts.",
    ),
    click.option("--n-ctx", type=int, help="hicropl: prompt tokens per layer; default: the task's."),
    click.option(
        "--depth",
        type=int,
        help="hicropl: number of layers with prompts. Default: the task's. The default of --cross-layer changes in "
        "proportion.",
    ),
    click.option(
        "--cross-layer", type=int, help="hicropl: k, the last layer with text-to-vision flow; default: the task's."
    ),
    click.option("--consistency-weight", type=float, help="hicropl: weight λ of the consistency loss; default: 12."),
    click.option(
        "--consistency-on",
        type=click.Choice(["ensembled", "prompted"]),
        default="ensembled",
        show_default=True,
        help="hicropl: features that the consistency loss compares with the features of the frozen CLIP.",
    ),
    click.option(
        "--proxy",
        type=click.Choice(["attention", "mean"]),
        default="attention",
        show_default=True,
        help="hicropl: method that computes one proxy token from the prompts of a layer. mean is for ablation studies.",
    ),
    click.option(
        "--mapper",
        type=click.Choice(["attention", "linear"]),
        default="attention",
        show_default=True,
        help="hicropl: method that computes the prompts of one tower from the proxies of the other tower. linear is "
        "for ablation studies.",
    ),
    click.option(
        "--keep",
        type=click.Choice(["best", "last"]),
        help="hicropl: keep the prompts of the epoch that is best on the validation images, or of the last epoch. "
        "Default: last.",
    ),
    click.option(
        "--crop-from",
        type=click.Choice(["square", "original"]),
        default="square",
        show_default=True,
        help="hicropl: part of the picture from which random crops are cut: the central square, or the whole "
        "picture of the file.",
    ),
    click.option(
        "--drop-last",
        is_flag=True,
        help="hicropl: leave out the last batch of an epoch if it has fewer images than the other batches.",
    ),
    click.option(
        "--min-area",
        type=NumberRange(0, 1, min_open=True),
        help="hicropl: smallest area of a random crop, as a fraction of the image; default: 0.08.",
    ),
    click.option(
        "--upstream-compat",
        is_flag=True,
        help="hicropl: train like the authors' released code, which overwrites the prompts in every forward pass.",
    ),
    click.option(
        "--leave-out",
        metavar="CLASS",
        multiple=True,
        help="clip-mini: train without this class's images and captions. Repeatable.",
    ),
    click.option(
        "--trunk",
        metavar="MODEL",
        help="clip-mini: EdgeCNN that computes the patch embeddings: a name, a checkpoint or the folder of a "
        "training. edgecnn, edgecnn-wide or edgecnn-g: this net is trained first, on the same images. Default: a plain "
        "ViT without EdgeCNN.",
    ),
    click.option(
        "--trunk-epochs",
        type=click.IntRange(1),
        metavar="N",
        help="clip-mini: epochs of a trunk that is trained first. Default: 72.",
    ),
    click.option(
        "--layers",
        type=click.IntRange(1, 12),
        metavar="N",
        help="clip-mini, with --trunk: number of transformer layers of each tower. Default: 4.",
    ),
    click.option(
        "--captions",
        type=click.Choice(["classic", "votes"]),
        default="classic",
        show_default=True,
        help="clip-mini: content of the captions. classic: the label and random traits. votes: the shares of the "
        "votes of --ferplus, and a property of the picture.",
    ),
    click.option(
        "--teacher",
        metavar="MODEL",
        multiple=True,
        help="clip-mini: model whose class probabilities are a second training target. Repeatable; several models "
        "are averaged, and a model that is given twice counts twice.",
    ),
    click.option(
        "--teacher-weight",
        type=NumberRange(0, 100, min_open=True),
        default=1.0,
        show_default=True,
        help="clip-mini: weight of the loss towards the teacher, relative to the contrastive loss.",
    ),
)
