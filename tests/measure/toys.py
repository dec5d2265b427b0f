"""A model, a pipeline and a clock that take no time of their own: every figure of a bench is known beforehand."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Context, Graph, Node, Registry, node

ANATOMY = values.ModelSizes(
    tower_weights=3 * 512,
    tower_layers=3,
    whole_tower=(4 * 512, 4),
    tower_width=8,
    patch_weights=96,
    prefix=1,
    patches=1,
    projector_weights=100,
    layers=4,
    layer_weights=900,
    width=10,
    inner=20,
    query_width=10,
    head_weights=500,
    step_bytes=10_000,
)
TILE = 20  # visual tokens
TEXT = 5  # tokens of the prompt
TOKEN_BYTES = 8  # of one token's keys and values in one layer


class Clock:
    """Seconds that pass only when somebody says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_ms(self, ms: float) -> None:
        self.now += ms / 1e3


clock = Clock()
runs: list[str] = []  # what generated, in order
projects_all = [False]  # whether encoding projects
first_step = [3.0]  # milliseconds of the step that may do work that is done once
capturing = [0.0]  # milliseconds that capturing takes, once for each number of tokens until the model forgets it
captured: set[tuple[int, int]] = set()  # what is captured: kept tokens and new ones
slow: dict[str, float] = {}  # node type -> how much longer everything takes from now on


class Family:
    """As much of a model family as the bench asks for."""

    forgotten = 0

    def model_sizes(self) -> values.ModelSizes:
        return ANATOMY

    def forget(self) -> None:
        Family.forgotten += 1
        captured.clear()


class Handle(values.ModelHandle):
    """A model on the CPU."""

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def dtype(self) -> str:
        return "float32"


class Encoded(values.VisionFeatures):
    """Features of one tile; preparing its picture takes two milliseconds."""

    def report(self) -> dict[str, Any]:
        return {"preprocess_ms": 2.0, "tile_tokens": [TILE], "tower_tokens": [TILE + 1], "projected": projects_all[0]}


@node(category="load")
class LoadToy(Node):
    """Takes ten seconds, which no figure may show."""

    def run(self, name: str = "toy") -> values.ModelHandle:
        clock.pass_ms(10_000)
        return Handle(name, Family())  # type: ignore[arg-type]


@node(category="encode")
class EncodeToy(Node):
    """Two milliseconds of preparing, eight of encoding."""

    def run(self, model: values.ModelHandle) -> values.VisionFeatures:
        clock.pass_ms(10)
        return Encoded((), ())


@node(category="score")
class ScoreToy(Node):
    """One millisecond."""

    def run(self, features: values.VisionFeatures) -> float:
        clock.pass_ms(1)
        return 1.0


@node(category="prune")
class PruneToy(Node):
    """Half a millisecond."""

    def run(
        self,
        score: float,
        ratio: Annotated[float, Field(gt=0, le=1)] = 0.25,
        tokens: Annotated[int | None, Field(ge=1)] = None,
        fails: bool = False,
    ) -> float:
        if fails:
            raise values_error()
        clock.pass_ms(0.5)
        return ratio


def values_error() -> Exception:
    from fopru_graph.errors import UserError

    return UserError("this pruner is broken", "mend it")


class Answered:
    """What a generating node tells: one millisecond of prefill a visual token, steps of three milliseconds."""

    def __init__(self, kept: int, new_tokens: int, factor: float) -> None:
        self.kept, self.new, self.factor = kept, new_tokens, factor
        self._told = self._figures()

    def report(self) -> dict[str, Any]:
        return self._told

    def _figures(self) -> dict[str, Any]:
        lengths = [TEXT + self.kept + self.new - 1] * ANATOMY.layers
        steps = [ms * self.factor for ms in [*first_step, *[3.0] * self.new][: self.new - 1]]
        tpot = sum(steps[1:]) / len(steps[1:]) if steps[1:] else None
        if tpot is not None and (self.kept, self.new) not in captured:
            captured.add((self.kept, self.new))
            steps[0] += capturing[0]
        return {
            "visual_tokens": {"encoded": TILE, "kept": self.kept, "final": self.kept, "layer_average": self.kept},
            "visual_per_layer": [self.kept] * ANATOMY.layers,
            "prefill_ms": self.kept * self.factor,
            "step_ms": steps,
            "samples": 1,
            "new_tokens": self.new,
            "kv_lengths": lengths,
            "kv_bytes": sum(lengths) * TOKEN_BYTES,
            "tpot_ms": tpot,
            "one_time_ms": None if tpot is None else steps[0] - tpot,
            "loop": "static",
            "captured": capturing[0] > 0,
            "device": "cpu",
            "dtype": "float32",
        }


@node(category="generate")
class GenerateToy(Node):
    """Keeps the product of all ratios."""

    def run(
        self,
        ctx: Context,
        model: values.ModelHandle,
        features: values.VisionFeatures,
        kept: float = 1.0,
        then: float = 1.0,
        max_new_tokens: int = 64,
        min_new_tokens: int = 0,
    ) -> Any:
        ctx.check_cancelled()
        assert max_new_tokens == min_new_tokens, "the bench forces the length of answers"
        runs.append(f"{ctx.node} {kept * then:.3g}")
        answered = Answered(round(TILE * kept * then), max_new_tokens, slow.get("generate", 1.0))
        report = answered.report()
        clock.pass_ms(report["prefill_ms"] + sum(report["step_ms"]) + 4)  # 4: telling what came of it
        return answered


def registry() -> Registry:
    """These node types alone."""
    made = Registry()
    made.add(LoadToy, EncodeToy, ScoreToy, PruneToy, GenerateToy)
    return made


def pipeline(name: str, stages: int = 0, **prune: Any) -> Graph:
    """A pipeline with so many pruning stages."""
    g = Graph(name, registry=registry())
    model = g.LoadToy(id="model")
    features = g.EncodeToy(id="encode", model=model)
    links: dict[str, Any] = {}
    if stages:
        score = g.ScoreToy(id="score", features=features)
        links["kept"] = g.PruneToy(id="prune", score=score, **prune)
    if stages > 1:
        links["then"] = g.PruneToy(id="prune_again", score=score)
    g.output("text", g.GenerateToy(id="generate", model=model, features=features, **links))
    return g
