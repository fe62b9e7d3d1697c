"""What the other processes do, where torchrun started several: a share of every step, as the first one says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

from napari_unet import distributed, threads
from napari_unet.dataset import Case
from napari_unet.learning import Learner
from napari_unet.orders import Order, State, Task
from napari_unet.progress import Progress
from napari_unet.sampling import Sampler, read_example
from napari_unet.splits import arrange
from napari_unet.torch_runtime import choose_device


def assist(cases: tuple[Case, ...]) -> Iterator[Progress]:
    """Help the process that calls `train`, with all its models one after the other, until it is done; nothing is written.

    Raises UNetError for faulty cases, and where another process has ended.
    """
    with distributed.joined(), ExitStack() as stack:
        while (word := distributed.told(Task, State, Order)) is not None:
            if isinstance(word, Task):
                stack.enter_context(threads.limited(word.config.threads))
                by_name, _ = arrange(tuple(replace(case, rule=word.rule) for case in cases), word.config)
                examples, device = [], choose_device(word.config.device)
                for n, name in enumerate(word.training):
                    yield Progress("preparing", n, len(word.training))
                    examples.append(read_example(by_name[name], word.spec)[0])
                learner = Learner(word.spec, word.config, device, Sampler(examples, word.spec, word.config, device))
            elif isinstance(word, State):
                learner.take_over(word)
            else:
                learner.learn(word)
                yield Progress("training", word.step + 1, word.steps)
