"""Pictures of a run's data, and what its network makes of them. Floor 5, room verbs."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neocog import html, tasks
from neocog.analysis.trace import trace
from neocog.errors import ConfigError
from neocog.explain.layers import layers_of
from neocog.explain.look import embedding
from neocog.explain.look.dream import dream
from neocog.explain.look.exciting import exciting
from neocog.explain.look.first_layer import first_kernels, kernel_tiles
from neocog.explain.still.steady import steadiness
from neocog.report.embedded import Points
from neocog.report.within import Dreamt, Excited
from neocog.verbs.tracer import clickable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from neocog.data.dataset import Dataset
    from neocog.engine.task import Task
    from neocog.explain.look.sheets import Scale, Tiles
    from neocog.explain.still.steady import Steadiness
    from neocog.run import Run

__all__ = ["Look"]

_TOGETHER = 64
"""Pictures in a pass."""
_PACED = 16
"""Pictures that tell how long one takes."""
_LAYERS, _CHANNELS, _PATCHES = 4, 6, 8
"""Layers, channels of each, and patches of each whose excitement is shown."""
_DREAMS, _STEPS, _BACK = 12, 160, 3
"""Classes that are dreamt of, at most; steps of a dream; and what a step takes, in passes."""


class Look:
    """A look at a network with the pictures of its data.

    Args:
        run: a finished one.
        data: its data set.
        device: where it computes.
        progress: told what is done, how much of it, and of how much.
    """

    def __init__(
        self,
        run: Run,
        data: Dataset,
        device: torch.device,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.data, self.device, self._progress = data, device, progress
        self.predictor = run.predictor(device)
        self.network = self.predictor.network
        self.task: Task = tasks.build(run.bundle.task)
        self.spec = run.bundle.input
        self.part = next(name for name in ("test", "val", "train") if name in data.splits)

    def _tell(self, what: str) -> Callable[[int, int], None]:
        tell = self._progress or (lambda *_: None)
        return lambda done, total: tell(what, done, total)

    def ids(self, part: str, most: int) -> Tensor:
        """Some samples of a part, drawn once and for all, in order."""
        ids = self.data.splits[part]
        return ids[torch.from_numpy(embedding.sampled(len(ids), most))]

    def raw(self, ids: Tensor) -> Tensor:
        """B×C×H×W uint8; where pictures are answered for whole, the middle of each."""
        return self.data.images.gather(ids, self.data.size)

    def prepared(self, ids: Tensor) -> Tensor:
        """As the network takes them."""
        raw = self.raw(ids).to(self.device)
        found: Tensor = self.predictor.normalize(self.predictor.fit(raw))
        return found

    def _batches(self, ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for some in torch.split(ids, _TOGETHER):
            yield some, self.prepared(some)

    @cached_property
    def pace(self) -> float:
        """Seconds for one picture, measured once."""
        ids = self.ids(self.part, _PACED)
        x = self.prepared(ids)
        with torch.no_grad():
            self.network(x[:2])
            began = time.perf_counter()
            self.network(x)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        return max(1e-7, (time.perf_counter() - began) / len(ids))

    def _decoded(self, raw: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = self.predictor(raw.to(self.device))
        return found

    def kernels(self) -> tuple[Tiles, str]:
        """Of the first layer, and its name."""
        found = first_kernels(self.network, (self.spec.channels, *self.spec.size))
        colour = found.values.shape[1] == 3
        scale: Scale = "range" if colour else "signed"
        return kernel_tiles(found.values, scale=scale, most=128), found.layer

    def points(self, most: int) -> Points:
        """The embedding of so many pictures at most."""
        self._only_classes("each point has the colour of one class")
        ids = self.ids(self.part, most)
        found = embedding.features(
            self.network, self._batches(ids), pictures=len(ids), progress=self._tell("embedding")
        )
        flat = embedding.principal(found.values)
        enough = len(ids) >= 5
        raw = self.raw(ids)
        answers = torch.cat(
            [self._decoded(some).argmax(1).cpu() for some in torch.split(raw, _TOGETHER)]
        )
        truth = self.data.targets[ids]
        names = self.data.classes
        titles = [
            f"{self.data.names[int(sample)]}: {names[int(true)]}"
            + ("" if true == answer else f", taken for {names[int(answer)]}")
            for sample, true, answer in zip(ids, truth, answers, strict=True)
        ]
        return Points(
            layer=found.layer,
            part=self.part,
            principal=flat.places,
            explained=(float(flat.explained[0]), float(flat.explained[1])),
            neighbours=embedding.tsne(found.values) if enough else None,
            kinds=[int(one) for one in truth],
            classes=names,
            titles=titles,
            pictures=list(raw.permute(0, 2, 3, 1).numpy()),
            wrong=frozenset((truth != answers).nonzero()[:, 0].tolist()),
        )

    def clicked(self, budget: int) -> tuple[str, html.Tracer]:
        """A picture, and its activations to click through, which take so many bytes at most."""
        ids = self.data.splits[self.part][:1]
        name = self.data.names[int(ids[0])]
        pixels = self.raw(ids)[0].permute(1, 2, 0).contiguous().numpy()
        block = clickable(
            self.network,
            self.prepared(ids),
            pixels,
            name=name,
            labels=self.data.classes,
            budget=budget,
        )
        return name, block

    def excited(self, most: int) -> list[Excited]:
        """What excites some channels of some layers, among so many pictures."""
        ids = self.ids(self.part, most)
        layers = self._map_layers()
        answers = exciting(
            self.network,
            self._batches(ids),
            layers,
            top=_PATCHES,
            pictures=len(ids),
            progress=self._tell("exciting patches"),
        )
        found = []
        for one in answers:
            order = np.argsort(-one.values[:, 0], kind="stable")[:_CHANNELS]
            for channel in (int(at) for at in order):
                if not one.values[channel, 0] > 0:
                    continue
                patches = list(self._patches(one.ids[channel], one.boxes[channel]))
                values = [float(value) for value in one.values[channel][: len(patches)]]
                found.append(
                    Excited(layer=one.layer, channel=channel, patches=patches, values=values)
                )
        return found

    def _map_layers(self) -> list[str]:
        """Some layers that answer with a map, evenly from the picture on, the last among them."""
        graph = trace(self.network, (1, self.spec.channels, *self.spec.size))
        by_value = {one.value: name for name, one in layers_of(graph).items() if one.axes}
        names = [by_value[value] for value in sorted(by_value) if by_value[value]]
        if not names:
            raise ConfigError("no layer of this network answers with a map", "it has no channels")
        count = min(_LAYERS, len(names))
        return [names[round((at + 1) * len(names) / count) - 1] for at in range(count)]

    def _patches(self, ids: Any, boxes: Any) -> Iterator[Any]:
        pictures = self.raw(torch.as_tensor(ids)).permute(0, 2, 3, 1).numpy()
        for picture, (top, bottom, left, right) in zip(pictures, boxes.tolist(), strict=True):
            if top >= 0:
                yield np.ascontiguousarray(picture[top : bottom + 1, left : right + 1])

    def dreams(self, seconds: float) -> list[Dreamt]:
        """A picture for each class, for as many as the time allows; at least one."""
        self._only_classes("what is dreamt of is a class")
        if _STEPS * _BACK * self.pace > seconds:
            raise ConfigError("there was no time for one", "--minutes gives more")
        began = time.monotonic()
        count = min(_DREAMS, len(self.data.classes))
        tell, found = self._tell("dreams"), list[Dreamt]()
        while len(found) < count:
            spent = time.monotonic() - began
            if found and spent + spent / len(found) > seconds:
                break
            found.append(self._dream(len(found)))
            tell(len(found), count)
        return found

    def _dream(self, kind: int) -> Dreamt:
        """A picture for one class."""
        made = dream(
            self.network,
            (self.spec.channels, *self.spec.size),
            kind,
            mean=self.spec.mean,
            std=self.spec.std,
            steps=_STEPS,
        )
        assert made.pixels is not None  # mean and deviation were given
        raw = torch.from_numpy(made.pixels).permute(2, 0, 1)[None]
        answer = self.task.answer(self._decoded(raw).cpu())[0]
        return Dreamt(
            name=self.data.classes[kind],
            picture=made.pixels,
            answer=str(answer["label"]),
            probability=answer.get("probability"),
        )

    def steady(self, most: int) -> Steadiness:
        """What becomes of answers while so many pictures are changed."""
        self._only_classes("changes are followed where a picture has one answer")
        ids = self.ids(self.part, most)
        return steadiness(
            self._decoded,
            [self.raw(some) for some in torch.split(ids, _TOGETHER)],
            truth=self.data.targets[ids],
            progress=self._tell("changes"),
        )

    def _only_classes(self, why: str) -> None:
        """Refuse what is about one class a picture.

        Raises:
            ConfigError: another kind of target.
        """
        if self.task.spec.name != "classify":
            raise ConfigError(f"{why}, and this network has another task", "nothing is wrong")
