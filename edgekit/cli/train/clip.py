"""What `edgekit train` does for CLIPs: learn prompts for one, or pretrain a small one."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import NumberRange, activation_option
from edgekit.cli.output import Output
from edgekit.cli.train.training_options import training_document, training_view
from edgekit.models.training.options import TrainingOptions
from edgekit.text import one_line

if TYPE_CHECKING:
    from edgekit.models.clip.config import PromptConfig
    from edgekit.models.clip.frozen import FrozenClip
    from edgekit.models.clip.protocols import TaskResult
    from edgekit.models.training.recipes import Recipe

PROMPTS, MINI = "hicropl", "clip-mini"
RESULTS_NAME = "results.json"


@dataclass(frozen=True)
class ClipOptions:
    """The options' values; None where the task's preset holds."""

    clip: str | None
    activation: Any
    task: Any
    shots: int
    eval_data: tuple[Path, ...]
    test_split: str | None
    descriptions: Path | None
    flow: Any
    n_ctx: int | None
    depth: int | None
    cross_layer: int | None
    consistency_weight: float | None
    consistency_on: Any
    proxy: Any
    mapper: Any
    min_area: float | None
    upstream_compat: bool
    leave_out: tuple[str, ...]


# Which of them each model takes.
_TAKEN = {
    PROMPTS: {field.name for field in dataclasses.fields(ClipOptions)} - {"leave_out"},
    MINI: {"descriptions", "leave_out"},
}
# Without a flow there is nothing to condense or map, and k says where the flow turns.
_WITHOUT_EFFECT = {"one-way": ("cross_layer",), "independent": ("cross_layer", "proxy", "mapper")}


def clip_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options and hand them over as one `chosen: ClipOptions`."""

    @functools.wraps(function)
    def wrapper(**arguments: Any) -> None:
        values = {field.name: arguments.pop(field.name) for field in dataclasses.fields(ClipOptions)}
        function(chosen=ClipOptions(**values), **arguments)

    for decorator in reversed(_OPTIONS):
        wrapper = decorator(wrapper)
    return wrapper


def refuse_others_options(architecture: str) -> None:
    """Refuse options that were given and mean nothing for this model.

    Raises:
        click.UsageError: There is one.
    """
    context = click.get_current_context()
    foreign = {field.name for field in dataclasses.fields(ClipOptions)} - _TAKEN.get(architecture, set())
    if architecture in _TAKEN:
        foreign |= {"balance", "init", "merges"}
    if architecture == PROMPTS:
        foreign |= {"ferplus", "ferplus_labels"}
    for parameter in context.command.params:
        if parameter.name in foreign and is_given(parameter.name):
            raise click.UsageError(f"{parameter.opts[0]} means nothing for --model {architecture}: leave it out")


def is_given(name: str) -> bool:
    """Return whether the user gave an option."""
    source = click.get_current_context().get_parameter_source(name)
    return source not in (None, click.core.ParameterSource.DEFAULT)


def train_prompts(out: Output, options: TrainingOptions, chosen: ClipOptions) -> None:
    """Learn prompts for a CLIP and measure them on the task's test images.

    Raises:
        InputError: The CLIP, the prompts' values, the data or the descriptions do not fit.
    """
    from edgekit.errors import InputError
    from edgekit.files import write_atomic
    from edgekit.models.callbacks import of_stage
    from edgekit.models.clip.checkpoint import build_prompted, load_prompts
    from edgekit.models.clip.config import require_fit
    from edgekit.models.clip.descriptions import descriptions_for
    from edgekit.models.clip.load import load_clip
    from edgekit.models.clip.prompting import PromptTask
    from edgekit.models.clip.protocols import TRANSFER_TASKS, load_target, load_task_data, measure, recipe_name_of
    from edgekit.models.data.few_shot import Splits
    from edgekit.models.torch_threads import set_torch_threads
    from edgekit.models.training.distributed import is_first_process
    from edgekit.models.training.loop import check_output
    from edgekit.models.training.run import TrainingData, make_job, run_training

    task = chosen.task
    if chosen.clip is None:
        raise InputError("hicropl needs a CLIP: give --clip FILE, or one of open_clip's names as MODEL/WEIGHTS")
    if bool(chosen.eval_data) != (task in TRANSFER_TASKS):
        raise InputError(
            f"task '{task}' needs --eval-data, once for each data set to measure on"
            if task in TRANSFER_TASKS
            else f"--eval-data goes with the tasks {' and '.join(TRANSFER_TASKS)}, not with '{task}'"
        )
    if task == "all" and is_given("shots"):
        raise InputError("task 'all' takes every image: leave --shots out, or take another task")
    if not is_given("recipe"):
        options = dataclasses.replace(options, recipe=recipe_name_of(task))
    recipe = _with_area(options, chosen)
    if options.threads:
        set_torch_threads(options.threads)
    check_output(options.output, options.resume)
    clip = load_clip(chosen.clip, chosen.activation)
    _describe_clip(out, clip)
    config = _prompt_config(out, chosen, clip)
    require_fit(config, clip.config)
    with training_view(out, options.output) as view:
        splits = Splits(options.train_split, options.val_split, chosen.test_split)
        reading = of_stage(view.progress, "reading images")
        data = load_task_data(
            options.data,
            task,
            clip.image_size,
            chosen.shots,
            options.seed,
            splits,
            reading,
            options.contempt,
            out.say,
        )
        targets = [load_target(path, clip.image_size, reading, options.contempt, out.say) for path in chosen.eval_data]
    if len(data.trained) < 2:
        raise InputError(
            f"data '{options.data}' has one class to train on, '{data.trained[0]}': telling apart takes two"
        )
    if task == "base-to-novel":
        novel = data.dataset.classes[len(data.trained) :]
        out.say(one_line(f"base classes: {', '.join(data.trained)}; novel classes: {', '.join(novel)}"))
    describe = functools.partial(descriptions_for, path=chosen.descriptions, notify=out.say)
    seen = TrainingData(data.dataset, data.training, data.validation, data.validation_name)
    prompt_task = PromptTask(
        clip, config, describe(data.trained), recipe, seen.training, seen.validation, data.dataset.name
    )
    shots = None if task == "all" else chosen.shots
    job = make_job(options, seen, prompt_task, recipe, {"task": task, "shots": shots})
    with training_view(out, options.output) as view:
        result = run_training(job, options, seen, out.say, view.on_step, view.on_epoch)
    if not is_first_process():
        return  # one measures for all
    net = build_prompted(load_prompts(result.checkpoint), clip).to(clip.logit_scale.device)
    measured = measure(task, net, data, describe, targets, out.say)
    _print_result(out, measured)
    document = {**training_document(result), **measured.document(), "results": str(options.output / RESULTS_NAME)}
    write_atomic(options.output / RESULTS_NAME, json.dumps(document, indent=2) + "\n")
    out.result(document)


def train_mini(out: Output, options: TrainingOptions, chosen: ClipOptions) -> None:
    """Pretrain a small CLIP.

    Raises:
        InputError: The data or the descriptions do not fit.
    """
    from edgekit.models.clip.descriptions import descriptions_for
    from edgekit.models.clip.mini import CLIP_MINI, MiniClipTask
    from edgekit.models.data.few_shot import of_classes, without_classes
    from edgekit.models.torch_threads import set_torch_threads
    from edgekit.models.training.loop import check_output
    from edgekit.models.training.run import make_job, read_training_data, recipe_of, run_training

    if not is_given("recipe"):
        options = dataclasses.replace(options, recipe=MINI)
    recipe = recipe_of(options)
    if options.threads:
        set_torch_threads(options.threads)
    check_output(options.output, options.resume)
    with training_view(out, options.output) as view:
        data = read_training_data(options, (), out.say, view.progress)
    rest = without_classes(data.dataset, chosen.leave_out)
    if chosen.leave_out:
        out.say(f"left out with all their images and captions: {', '.join(chosen.leave_out)}")
    kept = [data.dataset.classes.index(name) for name in rest.classes]
    data = dataclasses.replace(
        data, dataset=rest, training=of_classes(data.training, kept), validation=of_classes(data.validation, kept)
    )
    task = MiniClipTask(
        CLIP_MINI,
        rest.classes,
        descriptions_for(rest.classes, chosen.descriptions, out.say),
        recipe,
        data.training,
        data.validation,
        rest.name,
    )
    job = make_job(options, data, task, recipe, {"left_out": list(chosen.leave_out)})
    with training_view(out, options.output) as view:
        out.result(training_document(run_training(job, options, data, out.say, view.on_step, view.on_epoch)))


def _with_area(options: TrainingOptions, chosen: ClipOptions) -> Recipe:
    """Return the recipe with random crops as asked for; PromptTask refuses those of other nets."""
    from edgekit.models.data.resized_crop import ResizedCrop
    from edgekit.models.training.run import recipe_of

    recipe = recipe_of(options)
    if chosen.min_area is None or not isinstance(recipe.augmentation, ResizedCrop):
        return recipe
    return dataclasses.replace(recipe, augmentation=dataclasses.replace(recipe.augmentation, min_area=chosen.min_area))


def _prompt_config(out: Output, chosen: ClipOptions, clip: FrozenClip) -> PromptConfig:
    """Return the task's preset with what was given instead; a preset too deep for the CLIP is scaled down."""
    from edgekit.models.clip.config import at_depth, shortened
    from edgekit.models.clip.protocols import preset_of

    for name in _WITHOUT_EFFECT.get(chosen.flow, ()):
        if is_given(name):
            raise click.UsageError(f"--{name.replace('_', '-')} means nothing with --flow {chosen.flow}: leave it out")
    preset = preset_of(chosen.task)
    fitting = shortened(preset, clip.config) if chosen.depth is None else at_depth(preset, chosen.depth)
    if chosen.depth is None and fitting != preset:
        out.say(
            f"the CLIP has fewer layers than the preset's depth {preset.depth}: "
            f"depth {fitting.depth}, cross layer {chosen.cross_layer or fitting.cross_layer}"
        )
    given = {
        name: value
        for name in ("n_ctx", "cross_layer", "consistency_weight")
        if (value := getattr(chosen, name)) is not None
    }
    return dataclasses.replace(
        fitting,
        flow=chosen.flow,
        consistency_on=chosen.consistency_on,
        proxy=chosen.proxy,
        mapper=chosen.mapper,
        upstream_compat=chosen.upstream_compat,
        **given,
    )


def _describe_clip(out: Output, clip: FrozenClip) -> None:
    shape = clip.config
    out.say(
        f"CLIP {clip.source}: {shape.image_size_px} px in patches of {shape.patch_size_px}, image tower "
        f"{shape.vision.layers} x {shape.vision.width}, text tower {shape.text.layers} x {shape.text.width}, "
        f"activation {shape.activation}"
    )


def _print_result(out: Output, result: TaskResult) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("measured on", "images", "with prompts", "zero-shot")
    for score in result.scores:
        accuracies = (f"{value:.2%}" for value in (score.accuracy, score.zero_shot_accuracy))
        table.add_row(escape(score.name), str(score.images), *accuracies)
    out.console.print(table)
    out.say(", ".join(f"{name.replace('_', ' ')} {value:.2%}" for name, value in result.summary.items()))


_OPTIONS = (
    click.option("--clip", metavar="NAME|FILE", help="hicropl: the CLIP, a file or open_clip's MODEL/WEIGHTS."),
    activation_option,
    click.option(
        "--task",
        type=click.Choice(["few-shot", "base-to-novel", "cross-dataset", "domain", "all"]),
        default="few-shot",
        show_default=True,
        help="hicropl: what to train on and how to measure it.",
    ),
    click.option(
        "--shots",
        type=click.IntRange(1, 10_000),
        default=16,
        show_default=True,
        help="hicropl: training images a class, drawn with --seed.",
    ),
    click.option(
        "--eval-data",
        type=click.Path(path_type=Path),
        multiple=True,
        help="hicropl: a data set to measure on, for the tasks cross-dataset and domain. Repeatable.",
    ),
    click.option(
        "--test-split", help="hicropl: split to measure on; default: PrivateTest or test, else as validation."
    ),
    click.option(
        "--descriptions",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Sentences for each class (JSON); default: the shipped ones of the seven expressions.",
    ),
    click.option(
        "--flow",
        type=click.Choice(["hicropl", "one-way", "independent"]),
        default="hicropl",
        show_default=True,
        help="hicropl: how knowledge passes between text and vision prompts.",
    ),
    click.option("--n-ctx", type=int, help="hicropl: prompt tokens a layer, not the task's preset."),
    click.option("--depth", type=int, help="hicropl: layers with prompts, not the preset's; k is scaled along."),
    click.option("--cross-layer", type=int, help="hicropl: k, the last layer from text to vision, not the preset's."),
    click.option("--consistency-weight", type=float, help="hicropl: λ, not the preset's 12."),
    click.option(
        "--consistency-on",
        type=click.Choice(["ensembled", "prompted"]),
        default="ensembled",
        show_default=True,
        help="hicropl: which features stay close to the frozen ones.",
    ),
    click.option(
        "--proxy",
        type=click.Choice(["attention", "mean"]),
        default="attention",
        show_default=True,
        help="hicropl: what condenses a layer's prompts; mean shows what the method's attention brings.",
    ),
    click.option(
        "--mapper",
        type=click.Choice(["attention", "linear"]),
        default="attention",
        show_default=True,
        help="hicropl: how prompts take from the proxies; linear takes from the own layer's only.",
    ),
    click.option(
        "--min-area",
        type=NumberRange(0, 1, min_open=True),
        help="hicropl: the smallest part of a picture that a random crop shows, not the published 0.08.",
    ),
    click.option(
        "--upstream-compat", is_flag=True, help="hicropl: as the authors' released code, which overwrites its prompts."
    ),
    click.option(
        "--leave-out",
        metavar="CLASS",
        multiple=True,
        help="clip-mini: pretrain without this class's images and captions. Repeatable.",
    ),
)
