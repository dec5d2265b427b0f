"""What a configuration says of its vision tower, held against what a family serves. Looked at before weights load."""

from __future__ import annotations

from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.family import Family


def check_tower(family: type[Family], config: Any, name: str) -> None:
    """Refuse a checkpoint whose vision tower the family cannot read right.

    Which tokens of the tower are patches follows from the tower: CLIP has a CLS token before them, SigLIP has none.
    ``vision_feature_select_strategy`` only says whether the model drops the first token, whatever that is.

    Args:
        family: the family of ``config.model_type``.
        config: the checkpoint's configuration, as transformers reads it.
        name: the checkpoint's, for the message.

    Raises:
        UserError: the tower is of an unknown kind, the strategy would drop a patch or keep CLS among the patches, or
            the configuration names a layer that the tower does not have.
    """
    if not family.towers:
        return
    kind = config.vision_config.model_type
    if kind not in family.towers:
        raise UserError(
            f"{name}: a {kind!r} vision tower in a {family.model_type!r} model is not supported",
            f"towers supported there: {', '.join(family.towers)}",
        )
    strategy = getattr(config, "vision_feature_select_strategy", None)
    if strategy is not None:
        _check_strategy(strategy, kind, family.towers[kind], name)
    named = getattr(config, "vision_feature_layer", -1)
    for layer in named if isinstance(named, list | tuple) else [named]:
        read_layer(layer, config.vision_config.num_hidden_layers)


def _check_strategy(strategy: str, kind: str, prefix: int, name: str) -> None:
    right = "default" if prefix else "full"
    if strategy == right:
        return
    does = "keeps its CLS token among the patches" if prefix else "drops its first patch, as it has no CLS token"
    raise UserError(
        f"{name}: vision_feature_select_strategy {strategy!r} with a {kind!r} tower {does}, which is not supported",
        f"if the model was trained on the patches alone, write {right} in its config.json",
    )


def read_layer(named: Any, depth: int) -> int:
    """The encoder layer whose output ``vision_feature_layer`` names: ``hidden_states[i]`` is that of layer ``i − 1``.

    Raises:
        UserError: it names none of the ``depth`` layers, or several although the model reads one.
    """
    index = depth if not isinstance(named, int) else named - 1 if named >= 0 else depth + named
    if not 0 <= index < depth:
        raise UserError(
            f"vision_feature_layer {named} does not name the output of one of {depth} encoder layers",
            "use −depth … −1 or 1 … depth in the checkpoint's config.json",
        )
    return index
