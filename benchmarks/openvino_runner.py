"""Would OpenVINO run our layers faster than packed torch? The trial behind the answer in docs/performance.md.

    pip install openvino && python benchmarks/openvino_runner.py --dtype bfloat16

The tower and all decoder layers are one graph each, traced from the stock modules; keys and values are the graph's
state. It cannot cut inside the decoder. Both ways answer by turns in one process with one thread. Times are those that
the process computed, from the picture to the first token, and a step: medians and quartiles.
"""

from __future__ import annotations

import argparse
import time
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import PIL.Image
import torch
from openvino import opset13 as ops

from fopru_graph.lvlm.decoding import generate as generating
from fopru_graph.lvlm.decoding.masks import additive_mask
from fopru_graph.lvlm.decoding.segments import SegmentRunner
from fopru_graph.lvlm.loading.compat import cache_argument
from fopru_graph.lvlm.loading.load import load_model
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.nodes.significance import Significance
from fopru_graph.values import Image

HINTS = {"float32": "f32", "bfloat16": "bf16"}
MODEL = "random:llava-cpu"


class Decoder(torch.nn.Module):
    """Hidden states (B, Q, E) and all past keys and values → logits (B, V), all keys and values."""

    def __init__(self, family: Any) -> None:
        super().__init__()
        self.model = family.model

    def forward(self, hidden: Any, mask: Any, cos: Any, sin: Any, *past: Any) -> Any:
        """Trace the layers; this module is their cache too."""
        self.past, self.filled = past, []
        for layer in self.model.model.language_model.layers:
            options = {"attention_mask": mask, "position_embeddings": (cos, sin), cache_argument(): self}
            hidden = layer(hidden, use_cache=True, **options)
        return self.model.lm_head(self.model.model.language_model.norm(hidden)[:, -1]), *self.filled

    def update(self, keys: Any, values: Any, layer: int, *_: Any, **__: Any) -> Any:
        """What the layers call on their cache."""
        pair = [torch.cat([self.past[2 * layer + i], new], 2) for i, new in enumerate((keys, values))]
        self.filled += pair
        return pair


class Tower(torch.nn.Module):
    """Pixels (T, 3, H, W) → features, queries and keys as `Llava._run_tower` gives them."""

    def __init__(self, family: Any) -> None:
        super().__init__()
        self.tower, self._run = family.tower, family._run_tower

    def forward(self, pixels: Any) -> Any:
        """Trace the tower."""
        *tensors, self.scale = self._run(pixels)
        return tuple(tensors)


def convert(module: torch.nn.Module, names: list[str], examples: list[Any], shapes: list[list[int]]) -> Any:
    """The graph of a module, whose inputs have these names and shapes; −1 is any length."""
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")
        graph = openvino.convert_model(module, example_input=tuple(examples))
    for port, name, shape in zip(graph.inputs, names, shapes, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(openvino.PartialShape(shape))
        port.get_node().set_element_type(openvino.Type.f32)
    graph.validate_nodes_and_infer_types()
    return graph


def decoder_graph(family: Any) -> Any:
    """The decoder with its keys and values as state."""
    config, count = family.language_model.config, 2 * len(family.layers)
    width, heads = config.hidden_size, config.num_key_value_heads
    size = width // config.num_attention_heads
    kv, rotary = [-1, heads, -1, size], torch.zeros(1, 3, size)
    names = ["hidden", "mask", "cos", "sin", *(f"past{i}" for i in range(count))]
    past = [torch.zeros(1, heads, 2, size)] * count
    examples = [torch.zeros(1, 3, width), torch.zeros(1, 1, 3, 5), rotary, rotary, *past]
    shapes = [[-1, -1, width], [-1, 1, -1, -1], [-1, -1, size], [-1, -1, size], *[kv] * count]
    graph = convert(Decoder(family), names, examples, shapes)
    part_mlps(graph)
    rows = ops.parameter(openvino.PartialShape([-1]), openvino.Type.i32, name="rows")
    rows.output(0).get_tensor().set_names({"rows"})
    empty = ops.concat([ops.shape_of(rows), ops.constant(np.array([heads, 0, size], np.int64))], 0)
    sinks, results = [], graph.get_results()
    for name, result in zip(names[4:], results[1:], strict=True):
        initial = ops.broadcast(ops.constant(np.float32(0)), empty)
        state = ops.read_value(initial, name, openvino.Type.f32, openvino.PartialShape(kv))
        kept = ops.gather(state, rows, ops.constant(0, dtype=np.int64))  # so that cache and attention are one kernel
        for port in graph.input(name).get_target_inputs():
            port.replace_source_output(kept.output(0))
        sinks.append(ops.assign(result.input_value(0).get_node(), name))
    inputs = [graph.input(name).get_node() for name in names[:4]]
    return openvino.Model(results[:1], sinks, [*inputs, rows], "decoder")


def part_mlps(graph: Any) -> None:
    """Keep the plugin from its MLP kernel, which with bfloat16, AMX and one thread ends the process by SIGFPE.

    See openvinotoolkit/openvino#33300. A reshape before an MLP's last product is enough.
    """
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "Multiply" or node.input_value(0).get_node().get_type_name() != "Swish":
            continue
        (down,) = node.output(0).get_target_inputs()
        width, product = node.output(0).get_partial_shape()[2].get_length(), down.get_node()
        targets = product.output(0).get_target_inputs()
        down.replace_source_output(ops.reshape(node, ops.constant(np.array([-1, width], np.int64)), False).output(0))
        first, axis = ops.constant(np.array([0, 1], np.int64)), ops.constant(0, dtype=np.int64)
        sides = ops.gather(ops.shape_of(node), first, axis)
        whole = ops.reshape(product, ops.concat([sides, ops.constant(np.array([-1], np.int64))], 0), False)
        for port in targets:
            port.replace_source_output(whole.output(0))


def compiled(graph: Any, dtype: str) -> Any:
    """What runs a graph on one thread."""
    precision = {"INFERENCE_PRECISION_HINT": HINTS[dtype], "KV_CACHE_PRECISION": HINTS[dtype]}
    options = {"INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    return openvino.Core().compile_model(graph, "CPU", precision | options).create_infer_request()


def with_openvino(dtype: str) -> tuple[Any, type[SegmentRunner]]:
    """The model with its tower run by OpenVINO, and the runner of its decoder."""
    family = load_model(MODEL, "cpu", "float32", packed="never").family
    side = family.tower.config.image_size
    tower = Tower(family)
    encoder = compiled(convert(tower, ["pixels"], [torch.zeros(1, 3, side, side)], [[-1, 3, side, side]]), dtype)
    request = compiled(decoder_graph(family), dtype)

    def run_tower(pixels: torch.Tensor) -> tuple[Any, ...]:
        found = encoder.infer([pixels.numpy()], share_inputs=True)
        return *(torch.from_numpy(found[i]) for i in range(3)), tower.scale

    class Runner(SegmentRunner):
        def prefill(self) -> torch.Tensor:
            request.reset_state()
            length = self.prompt.embeds.shape[1]
            self._at = torch.arange(length)[None]
            return self.ask(self.prompt.embeds, self._at, self._at)

        def step(self, ids: torch.Tensor) -> torch.Tensor:
            self._at = torch.arange(self._at.shape[1] + 1)[None]
            return self.ask(self.family.embed(ids[:, None]), self._at[:, -1:], self._at)

        def ask(self, hidden: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
            cos, sin = self.family.language_model.rotary_emb(hidden, queries)
            mask = additive_mask(queries, keys, torch.float32)
            inputs = {"hidden": hidden, "mask": mask, "cos": cos, "sin": sin}
            arrays = {name: tensor.numpy() for name, tensor in inputs.items()} | {"rows": np.zeros(1, np.int32)}
            return torch.from_numpy(request.infer(arrays, share_inputs=True)[0])

        def filled(self) -> list[Any]:
            return []

    family._run_tower = run_tower
    return family, Runner


@torch.inference_mode()
def answer(family: Any, choose: Callable[..., Any], image: Image, ratio: float) -> tuple[float, float, Any, Any]:
    """Time to first token and median step in ms, the token ids and the first logits."""
    generating._runner_class, logits = choose, []
    begin = time.process_time()
    features, selection = family.encode([image]), None
    if ratio < 1:
        selection = Reorder().run(RankPrune().run(Significance().run(features), ratio))
    tokens = family.project(features, selection)
    before = (time.process_time() - begin) * 1e3
    done = generating.generate(
        family, tokens, ["what is it?"], max_new_tokens=16, on_step=lambda _, row: logits.append(row.float().clone())
    )
    return before + done.prefill_ms, float(np.median(done.step_ms)), done.token_ids, logits[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=HINTS, default="bfloat16")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    generating.time = types.SimpleNamespace(perf_counter=time.process_time)
    family, runner = with_openvino(given.dtype)
    torch_family, chosen = load_model(MODEL, "cpu", given.dtype).family, generating._runner_class
    ways = {"torch": (torch_family, chosen), "OpenVINO": (family, lambda *_: runner)}
    pixels = np.random.default_rng(0).integers(0, 255, (672, 672, 3), dtype=np.uint8)
    image = Image(PIL.Image.fromarray(pixels), "random")
    for ratio in (1.0, 0.25):
        turns = [{way: answer(*parts, image, ratio) for way, parts in ways.items()} for _ in range(given.rounds + 1)]
        expected, found = (turns[0][way] for way in ways)
        print(
            f"ratio {ratio}: same tokens {expected[2] == found[2]}, first logits {(expected[3] - found[3]).abs().max()}"
        )
        for way in ways:
            times = np.quantile([turn[way][:2] for turn in turns[1:]], (0.25, 0.5, 0.75), axis=0)
            (low, ttft, high), (least, tpot, most) = times.T
            print(f"  {way:8} TTFT {ttft:.0f} ms ({low:.0f}–{high:.0f})  TPOT {tpot:.1f} ms ({least:.1f}–{most:.1f})")


if __name__ == "__main__":
    main()
