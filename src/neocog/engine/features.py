"""Training the last layer alone, on features that are computed once. Floor 2, room engine.

Imports this room, data, layers and floor 0. Where everything but the output layer is frozen and the
pictures are not augmented, what the frozen part answers never changes. So it is computed once for
each picture, and what is trained is a network of one layer, by the same loop.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neocog.data.augment import Augment
from neocog.data.batches import eval_batches
from neocog.data.images import Images
from neocog.engine.evaluate import evaluating, together
from neocog.engine.job import plain
from neocog.engine.optim import RATES
from neocog.layers import Fit, Normalize

if TYPE_CHECKING:
    from collections.abc import Callable

    from neocog.config import Recipe
    from neocog.engine.job import Choice, Job, Outcome

__all__ = ["MOST", "Short", "obstacle", "quick", "shortened", "suits"]

STEP = 0.5
"""What a step at the peak rate may change of an answer. On the features of five classes of CIFAR-10
under 20 to 500 pictures of five others, 0.1 to 3 all end within two points of the best."""
LOWEST, HIGHEST = 1e-5, 1.0
"""Ends of the rates that come out of it."""
MOST = 2 << 30
"""Bytes that the features of all pictures may take."""
_CHANGES = (
    *("flip", "flip_vertical", "alternate", "shift", "rotate", "scale", "color", "contrast"),
    *("brightness", "blur", "noise", "cutout", "mixup", "cutmix"),
)
"""Settings of the augmentation, each of which shows a picture in another way every time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Short:
    """A training of the output layer, and the one that it stands for."""

    job: Job
    """Of one layer, on features B×D×1."""
    whole: Job
    """Of the whole network."""
    path: str
    """Of the output layer in the network."""
    seconds: float
    """What computing the features took."""

    def joined(self, outcome: Outcome) -> Outcome:
        """The outcome with the weights of the whole network, which learns the layer."""
        learnt = {name.removeprefix("output."): one for name, one in outcome.weights.items()}
        self.whole.network.get_submodule(self.path).load_state_dict(learnt)
        weights = {
            name: one.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, one in self.whole.network.state_dict().items()
        }
        return dataclasses.replace(outcome, weights=weights)


def suits(job: Job) -> bool:
    """Whether only one linear layer learns, from pictures that are always the same."""
    return bool(_layer(job)) and not obstacle(job)


def obstacle(job: Job) -> str:
    """Why what is frozen has to be computed again for every picture; empty: it need not be."""
    if job.ends is not None:
        return "the run has a time to keep, not epochs"
    changed = [f"augment.{name}" for name in _CHANGES if getattr(job.recipe.augment, name)]
    if job.recipe.schedule.grow < 1:
        changed.append("schedule.grow")
    return f"they are changed by {changed[0]}" if changed else ""


def _layer(job: Job) -> str:
    """Path of the linear layer that alone learns; empty: more does, or another kind of layer."""
    learns = {id(one) for one in job.network.parameters() if one.requires_grad}
    return next(
        (
            path
            for path, part in job.network.named_modules()
            if isinstance(part, nn.Linear) and {id(one) for one in part.parameters()} == learns
        ),
        "",
    )


def quick(job: Job) -> Choice:
    """How one layer is trained: there is nothing to gain from half precision, another layout or
    compiling."""
    asked = dataclasses.replace(
        job.recipe.engine, precision="fp32", layout="contiguous", compile="off"
    )
    return plain(asked, job.device)


def shortened(job: Job, tell: Callable[[int, int], None] | None = None) -> Short | None:
    """The training of the output layer alone; None where the network is more than features and one
    layer, or features would take too much memory.

    Pictures are looked at once, in the centre, in fp32 and in evaluation mode: dropout before the
    layer does not act.

    Args:
        job: one that `suits`.
        tell: told how many pictures of how many are done.
    """
    began = time.monotonic()
    path = _layer(job)
    layer = job.network.get_submodule(path)
    if not isinstance(layer, nn.Linear):
        return None
    width = layer.in_features
    if 4 * width * len(job.data) > MOST:
        return None
    held = [job.data.splits[part] for part in ("train", "val") if part in job.data.splits]
    found = _features(job, layer, torch.cat(held), tell)
    if found is None:
        return None
    parts = OrderedDict[str, nn.Module](flatten=nn.Flatten(), output=copy.deepcopy(layer))
    images = Images.of(found[:, None].numpy())
    data = dataclasses.replace(job.data, images=images, size=(1,), channels=width)
    spec = dataclasses.replace(
        job.input, channels=width, size=(1,), mean=(0.0,) * width, std=(1.0,) * width
    )
    short = dataclasses.replace(
        job,
        recipe=_paced(job.recipe, found[job.data.splits["train"]]),
        network=nn.Sequential(parts),
        data=data,
        input=spec,
        augment=Augment(
            job.recipe.augment,
            seed=job.recipe.seed,
            classes=len(data.classes),
            kind=data.kind,
            mean=spec.mean,
        ),
        choice=quick(job),
        rates={},
        still=(),
    )
    return Short(job=short, whole=job, path=path, seconds=time.monotonic() - began)


def _paced(recipe: Recipe, features: Tensor) -> Recipe:
    """With a rate that fits the features, where none was told: Adam moves every weight by about the
    rate, and so an answer by the rate times the sum of a picture's features."""
    optim = recipe.optim
    if optim.lr is not None or optim.name not in ("adam", "adamw"):
        return recipe
    size = float(features.abs().sum(1).mean())
    rate = min(max(STEP / size, LOWEST), HIGHEST) if size > 0 else RATES[optim.name]
    # Three digits: the last bits of a sum must not decide what a run does.
    rate = float(f"{rate:.3g}")
    return dataclasses.replace(recipe, optim=dataclasses.replace(optim, lr=rate))


@torch.no_grad()
def _features(
    job: Job, layer: nn.Linear, ids: Tensor, tell: Callable[[int, int], None] | None
) -> Tensor | None:
    """What the layer is given for each of the samples `ids`, N×D, others 0; None where its answer
    is not the network's."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    ready = nn.Sequential(Fit(job.input.size), Normalize.of(job.input)).to(job.device)
    found = torch.zeros(len(job.data), layer.in_features)
    done = 0
    try:
        with evaluating(job.network):
            for one in eval_batches(job.data, ids, batch=together(job.data), device=job.device):
                answer = job.network(ready(one.images))
                given = seen.pop()
                fits = not seen and given.shape == (len(one.ids), layer.in_features)
                if not fits or not torch.equal(layer(given), answer):
                    return None
                seen.clear()
                found[one.ids.cpu()] = given.float().cpu()
                done += len(one.ids)
                if tell:
                    tell(done, len(ids))
    finally:
        hook.remove()
    return found
