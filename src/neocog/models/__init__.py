"""Architectures from papers, one file a family. Floor 2, room models.

Nothing is imported here: `catalog` lists the names without loading torch, and resolves one when it
is asked for.

The contract. A model is a plain `nn.Module` made by a factory with keywords only:
`factory(*, channels, size, outputs, …)`, where every further keyword has a default that JSON can
hold. The module has `forward(x)`, B×C×H×W → B×outputs; `forward_features(x)`, which returns a
pyramid of levels B×C'×H'×W', finest first; and `features`, one `FeatureInfo` for each level. What
`forward` answers is a function of the last level alone. Modules never write into a tensor that
somebody else may hold (no in-place activations), so levels, hooks and traces see what was computed.

A network for masks answers B×outputs×H×W for pictures of any H and W from its smallest size on, and
from all levels; `size` is that of training crops. Its levels are those of its way down, a child
called `backbone`, which weights of a classifier find by that name. In the catalogue it has
`gives="map"`.

Networks with auxiliary heads declare `auxiliary_weight`, that of each such head's loss in the sum,
and have `forward_auxiliary(x)`: the outputs, then those of each auxiliary head, B×outputs each.
`forward` leaves the auxiliary heads out.
"""
