"""How weights move: eight rules, gradient centralisation, penalties, clipping. Floor 2, engine.

Imports layers, floor 0, this room and torch. The arithmetic is torch.optim's, and `muon`'s; this
file chooses groups and kernels, gives Muon the matrices it wants, and keeps the state by parameter
name and in logical axis order, so that a checkpoint neither knows nor cares about memory layout,
device or kernel.

Where torch's rules differ from the textbook ones (the tests hold both against NumPy):

- Momentum: torch keeps `h = αh + g` and steps `w −= ηh`, the textbook keeps `h = αh + ηg`. The two
  are one rule while η is constant; when η falls, torch's step falls with it at once.
- Nesterov: torch stores the point at which the gradient is taken, `v = w − αh`, in place of w, and
  steps `v −= η(g + αh)`. For constant η its parameters are the textbook's look-ahead points.
- Adagrad and RMSprop: torch divides by `√G + ε`, the textbook by `√(G + ε)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neocog.engine.muon import Muon
from neocog.engine.slots import MatrixSlot, Slot
from neocog.errors import ConfigError, RunError
from neocog.layers import output_layer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from neocog.config import OptimRecipe

__all__ = [
    "DECAY",
    "FUSED",
    "RATES",
    "Optimizers",
    "build",
    "centralize",
    "clip",
    "head_names",
    "penalty",
]

RATES: dict[str, float] = {
    "sgd": 0.1,
    "momentum": 0.05,
    "nesterov": 0.05,
    "adagrad": 0.02,
    "rmsprop": 0.001,
    "adam": 0.002,
    "adamw": 0.002,
    "muon": 0.004,
}
"""Peak rates for batch normalised networks, batches of 128 and a one-cycle schedule. Muon's stands
beside AdamW's because its steps are scaled to AdamW's size, see `build`."""

DECAY: dict[str, float] = {"momentum": 5e-4, "nesterov": 5e-4, "adamw": 0.05, "muon": 0.05}
"""Weight decay where the recipe gives none; rules that are not named have none."""

FUSED = {
    "cpu": frozenset({"momentum", "nesterov", "adagrad", "adam", "adamw"}),
    "cuda": frozenset({"sgd", "momentum", "nesterov", "adam", "adamw"}),
}
"""Rules whose fused kernel is the fastest. On the processor fused Adam takes half the time of the
loop over tensors; fused SGD without momentum takes three times as long, and foreach never wins."""


class Optimizers:
    """One or two torch optimisers that step as one, over the trainable parameters of one network.

    The parts share one learning rate. It also looks like a torch optimiser to
    `torch.amp.GradScaler` (`param_groups` lists the network's own parameters).
    """

    def __init__(
        self, rule: str, lr: float, parts: Sequence[tuple[torch.optim.Optimizer, Sequence[Slot]]]
    ) -> None:
        self.rule = rule
        self.lr = lr
        """The learning rate of the next step."""
        self._parts = tuple((optimizer, tuple(slots)) for optimizer, slots in parts)
        # The rates of all groups keep the ratio to it that they begin with.
        self._ratios = tuple(
            tuple(group["lr"] / lr for group in one.param_groups) for one, _ in self._parts
        )
        self._slots = tuple(slot for _, slots in self._parts for slot in slots)
        self._matrices = [slot for slot in self._slots if isinstance(slot, MatrixSlot)]
        self._plain = [one.parameter for one in self._slots if one.target is one.parameter]
        self.parameters: tuple[nn.Parameter, ...] = tuple(slot.parameter for slot in self._slots)
        self._places = self._where()

    @property
    def parts(self) -> list[torch.optim.Optimizer]:
        """The torch optimisers."""
        return [one for one, _ in self._parts]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """One group with the network's own parameters; read only."""
        return [{"params": list(self.parameters), "lr": self.lr}]

    def set_lr(self, lr: float) -> None:
        """Set the learning rate, and that of every group in proportion."""
        self.lr = lr
        for (optimizer, _), ratios in zip(self._parts, self._ratios, strict=True):
            for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                group["lr"] = lr * ratio

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients that the parameters hold; those without one stay."""
        if self._where() != self._places:
            # The network was moved or laid out anew since the last step. Views would write into
            # the old memory, and fused kernels would pair the wrong elements: both in silence.
            self.load_state_dict(self.state_dict())
        for parameter in self._plain:
            grad = parameter.grad
            if grad is not None and grad.stride() != parameter.stride():
                # Fused kernels walk both in memory order without a look at the strides.
                parameter.grad = torch.empty_like(parameter).copy_(grad)
        for matrix in self._matrices:
            matrix.before()
        for optimizer, _ in self._parts:
            optimizer.step()
        for matrix in self._matrices:
            matrix.after()

    def state_dict(self) -> dict[str, Any]:
        """What the rule remembers, by parameter name, in each parameter's own shape.

        Tensors are live, not copies. Settings are not in it: those come from the recipe.
        """
        state: dict[str, dict[str, Any]] = {}
        for optimizer, slots in self._parts:
            for slot in slots:
                held = optimizer.state.get(slot.target)
                if held:
                    state[slot.name] = {key: slot.unflatten(value) for key, value in held.items()}
        return {"rule": self.rule, "lr": self.lr, "state": state}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take up where `saved` was taken; its tensors are copied.

        Raises:
            RunError: another rule, a parameter this network lacks, or one of another shape.
        """
        if saved["rule"] != self.rule:
            raise RunError(
                f"the optimiser's state belongs to {saved['rule']}, this recipe says {self.rule}",
                f"set optim.name={saved['rule']}",
            )
        known = {slot.name: slot for slot in self._slots}
        for name, held in saved["state"].items():
            if name not in known:
                raise RunError(
                    f"the optimiser's state has {name}, which this network does not train",
                    "resume with the model and the frozen layers the run began with",
                )
            shape = known[name].parameter.shape
            for key, value in held.items():
                if isinstance(value, Tensor) and value.dim() and value.shape != shape:
                    raise RunError(
                        f"the optimiser's {key} of {name} has shape {tuple(value.shape)}, "
                        f"the network has {tuple(shape)}"
                    )
        for slot in self._slots:
            slot.bind()
        for optimizer, slots in self._parts:
            state = {
                number: {
                    key: slot.flatten(value) for key, value in saved["state"][slot.name].items()
                }
                for number, slot in enumerate(slots)
                if slot.name in saved["state"]
            }
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.set_lr(saved["lr"])
        self._places = self._where()

    def _where(self) -> list[tuple[int, tuple[int, ...]]]:
        """Address and strides of every parameter."""
        return [(p.data_ptr(), p.stride()) for p in self.parameters]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """How one torch optimiser is made."""

    make: type[torch.optim.Optimizer]
    settings: dict[str, Any]


def build(
    model: nn.Module,
    recipe: OptimRecipe,
    *,
    beside: Collection[str] | None = None,
    rates: Mapping[str, float] | None = None,
    own: bool = False,
) -> Optimizers:
    """The optimiser of a recipe, over the parameters of `model` that require a gradient.

    Decay touches only parameters of two and more axes: never a bias, never a norm. Build it after
    the network is on its device and in its memory layout.

    Muon (Jordan et al. 2024, arXiv 2502.16982) orthogonalises the momentum of matrices; kernels
    are flattened to out × rest. Parameters of fewer than two axes, those that flatten to a single
    row or column (layer scales, position tables), depthwise kernels, embeddings and the head go to
    AdamW. Of torch's two step sizes, `match_rms_adamw` (0.2·√max(rows, columns)) is used, not the
    original √max(1, rows/columns): it gives every matrix the step of an AdamW step, so that one
    rate and one decay serve both parts and the rate carries over between networks of all widths.
    With `normalize` the weights have a norm of √rows and the original step of spectral norm
    √max(1, rows/columns) is a share of them (as in the CIFAR-10 speed record of Jordan 2024).

    Args:
        model: the network.
        recipe: the rule and its settings; `lr` and `weight_decay` default to `RATES` and `DECAY`.
        beside: muon: names of the matrices that AdamW takes. None: `head_names(model)`.
        rates: name of a parameter → factor of its rate; 1 for those that are not named.
        own: with `normalize`, matrices keep the norm that they have now: what was learnt elsewhere
            goes with the statistics of norms that were learnt with it.

    Raises:
        ConfigError: nothing to train, or a name in `beside` that is no trainable parameter.

    >>> from neocog.config import OptimRecipe
    >>> optimizers = build(nn.Linear(2, 2), OptimRecipe(name="sgd", lr=0.5))
    >>> optimizers.lr
    0.5
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise ConfigError("the network has no parameter to train", "freeze fewer layers")
    matrices: set[str] = set()
    if recipe.name == "muon":
        matrices = _matrix_names(model)
        chosen = head_names(model) if beside is None else frozenset(beside)
        unknown = chosen - {name for name, _ in named} if beside is not None else frozenset()
        if unknown:
            raise ConfigError(f"no trainable parameter is called {sorted(unknown)[0]!r}")
        matrices -= chosen
    kinds = {parameter.device.type for _, parameter in named}
    rules = _rules(recipe, kinds.pop() if len(kinds) == 1 else "mixed")
    parts: list[tuple[torch.optim.Optimizer, list[Slot]]] = []
    for rule in rules:
        if rule.make is Muon:
            mine: list[Slot] = [
                MatrixSlot(n, p, recipe.normalize, own) for n, p in named if n in matrices
            ]
        else:
            mine = [Slot(n, p) for n, p in named if n not in matrices]
        if mine:
            parts.append(_part(rule, mine, rates or {}))
    return Optimizers(recipe.name, _rate(recipe), parts)


def head_names(model: nn.Module) -> frozenset[str]:
    """Names of the head's weights: the last `nn.Linear` in the order of registration.

    Where there is none, as in a fully convolutional network, the last matrix or kernel.

    >>> sorted(head_names(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))))
    ['2.weight']
    """
    path = output_layer(model)
    if isinstance(model.get_submodule(path), nn.Linear):
        prefix = f"{path}." if path else ""
        return frozenset(
            name for name, p in model.named_parameters() if name.startswith(prefix) and p.dim() >= 2
        )
    matrices = _matrix_names(model)
    ordered = [name for name, _ in model.named_parameters() if name in matrices]
    return frozenset(ordered[-1:])


def _matrix_names(model: nn.Module) -> set[str]:
    """Names of the parameters that are matrices once flattened; see `build`."""
    tables = {
        id(p)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for p in module.parameters(recurse=False)
    }
    depthwise = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        and module.groups == module.in_channels > 1
    }
    return {
        name
        for name, p in model.named_parameters()
        if p.dim() >= 2
        and min(p.shape[0], p[0].numel()) > 1
        and id(p) not in tables
        and id(p) not in depthwise
    }


def _rate(recipe: OptimRecipe) -> float:
    return RATES[recipe.name] if recipe.lr is None else recipe.lr


def _rules(recipe: OptimRecipe, device: str) -> list[_Rule]:
    """The torch optimisers of a recipe with their settings."""
    name = recipe.name
    decay = recipe.weight_decay if recipe.weight_decay is not None else DECAY.get(name, 0.0)
    shared = {"lr": _rate(recipe), "weight_decay": decay}

    def kernel(rule: str) -> dict[str, bool]:
        if rule in FUSED.get(device, ()):
            return {"fused": True}
        return {"foreach": device == "cuda"}

    adam = {"betas": recipe.betas, "eps": recipe.eps}
    if name == "muon":
        muon = {
            "momentum": recipe.momentum,
            "scale": "original" if recipe.normalize else "match_rms_adamw",
        }
        beside = shared | adam | kernel("adamw") | {"lr": shared["lr"] * recipe.beside}
        if recipe.normalize:
            muon["weight_decay"] = 0.0  # the norm is fixed already
        return [
            _Rule(make=Muon, settings=shared | muon),
            _Rule(make=torch.optim.AdamW, settings=beside),
        ]
    table: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
        "sgd": (torch.optim.SGD, {}),
        "momentum": (torch.optim.SGD, {"momentum": recipe.momentum}),
        "nesterov": (torch.optim.SGD, {"momentum": recipe.momentum, "nesterov": True}),
        "adagrad": (torch.optim.Adagrad, {"eps": recipe.eps}),
        "rmsprop": (torch.optim.RMSprop, {"alpha": recipe.alpha, "eps": recipe.eps}),
        "adam": (torch.optim.Adam, adam),
        "adamw": (torch.optim.AdamW, adam),
    }
    make, own = table[name]
    if own.get("nesterov") and recipe.momentum <= 0:
        raise ConfigError(
            f"nesterov needs a momentum above 0, got {recipe.momentum}", "optim.name=sgd has none"
        )
    return [_Rule(make=make, settings=shared | own | kernel(name))]


def _part(
    rule: _Rule, slots: list[Slot], rates: Mapping[str, float]
) -> tuple[torch.optim.Optimizer, list[Slot]]:
    """A torch optimiser with a decayed and an undecayed group for each rate, or one where nothing
    decays, and its slots in torch's order."""
    groups: list[dict[str, Any]] = []
    ordered: list[Slot] = []
    factors = [rates.get(slot.name, 1.0) for slot in slots]
    decays = bool(rule.settings.get("weight_decay"))
    for factor in sorted(set(factors), reverse=True):
        for is_decayed in (True, False):
            mine = [
                slot
                for slot, own in zip(slots, factors, strict=True)
                if own == factor and (decays and slot.parameter.dim() >= 2) is is_decayed
            ]
            if not mine:
                continue
            group: dict[str, Any] = {"params": [slot.target for slot in mine]}
            group["lr"] = rule.settings["lr"] * factor
            if not is_decayed:
                group["weight_decay"] = 0.0
            groups.append(group)
            ordered += mine
    make: Any = rule.make
    return make(groups, **rule.settings), ordered


@torch.no_grad()
def centralize(parameters: Iterable[nn.Parameter]) -> None:
    """Subtract from each gradient its mean over all axes but the first, in place.

    Gradient centralisation (arXiv 2004.01461), for parameters of two and more axes. Weights with
    one element a row are left alone: their gradient would be zero for good.

    >>> weight = nn.Parameter(torch.zeros(2, 2))
    >>> weight.grad = torch.tensor([[1.0, 3.0], [0.0, 4.0]])
    >>> centralize([weight])
    >>> weight.grad
    tensor([[-1.,  1.],
            [-2.,  2.]])
    """
    grads = [
        p.grad
        for p in parameters
        if p.grad is not None and p.dim() >= 2 and p.grad.numel() > p.shape[0]
    ]
    if grads:
        means = [grad.mean(dim=tuple(range(1, grad.dim())), keepdim=True) for grad in grads]
        torch._foreach_sub_(grads, means)


def penalty(parameters: Iterable[nn.Parameter], recipe: OptimRecipe) -> Tensor | None:
    """`l1·Σ|w| + l2·Σw² + λ(β·Σw² + Σ|w|)` over the trainable weights of two and more axes.

    Returns:
        A scalar to add to the loss, or None where the recipe asks for no penalty.

    >>> from neocog.config import OptimRecipe
    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, -3.0)
    >>> penalty(model.parameters(), OptimRecipe(l1=1.0, l2=0.5)).item()
    15.0
    """
    absolute = recipe.l1 + recipe.elastic
    squared = recipe.l2 + recipe.elastic * recipe.elastic_beta
    weights = [p for p in parameters if p.requires_grad and p.dim() >= 2]
    if not weights or not (absolute or squared):
        return None
    terms = []
    for weight in weights:
        if absolute:
            terms.append(absolute * weight.abs().sum())
        if squared:
            terms.append(squared * weight.square().sum())
    return torch.stack(terms).sum()


def clip(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients so that their common 2-norm is at most `max_norm`, in place.

    Args:
        parameters: those whose gradients count.
        max_norm: the bound; 0 only measures.

    Returns:
        The norm before, a scalar. If it is not finite, so are the gradients not: look before
        you step.
    """
    held = [p for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in held if p.grad is not None])
    if max_norm > 0:
        nn.utils.clip_grads_with_norm_(held, max_norm, norm)
    return norm
