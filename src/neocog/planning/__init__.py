"""What a network is and what it will cost, before it runs. Floor 4; imports analysis, engine and
report.

One executed graph answers all of it: the network is run on tensors without memory, once in use and
once through a training step, and everything is read off what ran.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from neocog.planning import text
from neocog.planning.nouns import Costs, How, Network, Range

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from neocog.analysis.summary import Layer
    from neocog.config import OptimRecipe

__all__ = ["Costs", "How", "Network", "Plan", "Range", "plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A network, layer by layer, and its costs. Prints as a table, draws itself in a notebook."""

    network: Network
    """What it is."""
    costs: Costs | None
    """What running it takes; None where it cannot be trained."""
    refusal: str = ""
    """Why it cannot."""

    @property
    def parameters(self) -> int:
        """Numbers to learn, shared ones once."""
        return self.network.graph.parameter_count

    @property
    def idle_parameters(self) -> int:
        """Of them those that no layer of the table reads: heads for training alone."""
        return self.parameters - sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one sample, forward."""
        return sum(layer.macs for layer in self.layers)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The lines of the table."""
        return self.network.layers

    @property
    def receptive_field(self) -> tuple[int, ...] | None:
        """Input positions along each axis that an element of the largest kind sees, of the maps
        that still have positions; None where there are none."""
        return self.network.fields.whole()

    def why(self, layer: str) -> str:
        """The arithmetic of one layer, as in a lecture.

        Raises:
            ConfigError: no such layer, with the near one.
        """
        from neocog.analysis.why import why

        return why(self.network.graph, self.network.fields, self.layers, layer)

    def drawing(self) -> str:
        """The network as a picture: one `<svg>` element."""
        from neocog.report.network import network_drawing

        return network_drawing(
            self.layers,
            (1, *self.network.input),
            title=self.network.name,
            subtitle=text.headline(self.network),
        )

    @property
    def json(self) -> dict[str, Any]:
        """What `plan --json` prints.

        A layer's `macs`, `backward_macs` and `bytes` are for one sample, its `activation_bytes` for
        the batch of `training`, as is everything there.
        """
        costs, whole = self.costs, self.receptive_field
        return {
            "name": self.network.name,
            "input": list(self.network.input),
            "parameters": self.parameters,
            "idle_parameters": self.idle_parameters,
            "macs": self.macs,
            "receptive_field": list(whole) if whole else None,
            "sees_everything": any(one.everything for one in self.layers),
            "unknown": [asdict(one) for one in self.network.unknown],
            "layers": [_layer(self, at) for at in range(len(self.layers))],
            "remarks": [asdict(one) for one in self.network.remarks],
            "training": _training(costs) if costs else None,
            "refusal": self.refusal,
        }

    def __str__(self) -> str:
        found = text.lines(self.network, self.costs)
        if self.refusal:
            found += ["", f"a training step cannot be planned: {self.refusal}"]
        return "\n".join(found)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """For notebooks: the drawing, and the table below it."""
        return (
            f"<div style='overflow-x:auto'>{self.drawing()}</div>"
            f"<pre style='line-height:1.3'>{escape(str(self))}</pre>"
        )


def _layer(plan: Plan, at: int) -> dict[str, Any]:
    layer, costs = plan.layers[at], plan.costs
    fields = layer.field
    return {
        "name": layer.name,
        "op": layer.kind,
        "path": layer.path,
        "source": layer.source,
        "inputs": list(layer.before),
        "output": list(layer.shape[1:]),
        "parameters": layer.parameters,
        "shared_parameters": layer.shared,
        "macs": layer.macs,
        "bytes": {"read": layer.read, "written": layer.written},
        "intensity": layer.intensity,
        "receptive_field": [one.size for one in fields] if fields else None,
        "jump": [float(one.jump) for one in fields] if fields else None,
        "offset": [float(one.offset) for one in fields] if fields else None,
        "sees_everything": layer.everything,
        "aligned": all(one.aligned for one in fields) if fields else True,
        "activation_bytes": costs.kept[at] if costs else None,
        "backward_macs": costs.macs_back[at] // costs.how.batch if costs else None,
        "bound": costs.bounds[at] if costs and costs.bounds else None,
    }


def _training(costs: Costs) -> dict[str, Any]:
    return {
        **asdict(costs.how),
        "peak_bytes": asdict(costs.peak),
        "step_seconds": asdict(costs.seconds) if costs.seconds else None,
        "macs": costs.macs,
        "weight_bytes": costs.weights,
        "gradient_bytes": costs.gradients,
        "optimizer_bytes": costs.state,
        "activation_bytes": costs.activations,
        "free_bytes": costs.free,
        "largest_batch": costs.largest_batch,
        "timed": costs.timed,
        "rough": list(costs.rough),
        "busy": costs.busy,
        "use": {
            "peak_bytes": asdict(costs.use_peak),
            "seconds": asdict(costs.use_seconds) if costs.use_seconds else None,
        },
    }


def plan(
    module: nn.Module,
    sample: Sequence[int] | Tensor,
    *,
    name: str = "",
    how: How | None = None,
    rule: OptimRecipe | None = None,
    time: bool = True,
    measure: bool = False,
) -> Plan:
    """What a network is and what it costs, without running it.

    Args:
        module: any network; it comes back untouched.
        sample: shape of one sample without the batch (C×H×W), or a tensor that is one.
        name: for people; by default the class.
        how: batch, precision, layout, device, rule.
        rule: the optimiser with all its settings; None: the usual ones of `how.optimizer`.
        time: say how long, too; that needs a profile of this machine, measured once in seconds.
        measure: time every distinct operation of this network, for a closer answer.

    Raises:
        TraceError: its path depends on numbers, or it holds an operation of which nobody knows the
            shape, or it does not take such a sample; with module path and source line.
    """
    from neocog.analysis.trace import TraceError
    from neocog.planning.make import costs, describe, remarked

    network = describe(module, sample, name)
    try:
        found = costs(
            module, sample, network.layers, how or How(), rule=rule, time=time, measure=measure
        )
    except TraceError as error:
        return Plan(network=remarked(network, None), costs=None, refusal=error.message)
    return Plan(network=remarked(network, found), costs=found)
