"""Inputs of every kind with a few faults in them: from a seed and a number to the files and the command.

A case starts from an input that works. Its values, keys and text are changed as people and programs spoil files: other
types, odd numbers, deletions, duplicates, deep nesting, anchors, signs of other scripts, bytes, a cut.
"""

import csv
import io
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

from llmsim.catalogue.shipped import shipped
from llmsim.cluster.reading.keys import KEYS
from llmsim.scenario.complaints import known_keys
from llmsim.scenario.schema import Scenario

DENSE = {"layers": 4, "hidden": 512, "heads": 8, "kv_heads": 4, "ffn_hidden": 1024, "vocab": 8192, "gated_mlp": True}
SCENARIO: dict[str, Any] = {
    "name": "small",
    "model": DENSE | {"moe": {"experts": 8, "top_k": 2, "expert_ffn_hidden": 256, "every": 2}},
    "cluster": {"topology": "dgx-h100", "nodes": 2, "overrides": {"node.nic.bandwidth": "200 Gbps"}},
    "parallelism": {"tp": 2, "pp": 2, "ep": 2, "zero": 1, "schedule": "1f1b", "stage_layers": [2, 2]},
    "training": {
        "seq_len": "2Ki", "global_batch": 16, "micro_batch": 1, "tokens": 1e9,
        "recompute": {"mode": "full", "layers": 1}, "overlap": {"grad_reduce": True}, "offload": {"optimizer": "cpu"},
        "host": {"kernel": "3 us"},
    },
    "data": {"storage": {"kind": "shared", "bandwidth": "10 GB/s"}, "workers": 2},
    "simulation": {"detail": "block", "iterations": 1},
    "faults": [
        {"kind": "slow_gpu", "gpu": "node0.gpu1", "factor": 0.5, "from": 0, "until": "1 s"},
        {"kind": "slow_link", "link": "node1.nic2", "factor": 0.5},
    ],
    "background": [{"from": "node0", "to": "node1", "rate": "1 GB/s"}],
    "economics": {"gpu_hour_usd": 2.5, "pue": 1.1},
}  # fmt: skip
PLAIN = {**SCENARIO, "parallelism": {}, "faults": [], "background": []} | {
    "model": DENSE,
    "training": {"seq_len": 2048, "global_batch": 16},
}
SWEEP = {
    "scenario": "scenario.json",
    "set": {"training.micro_batch": 1},
    "grid": {"parallelism.tp": [1, 2], "cluster.nodes": {"range": [1, 2]}},
    "zip": {"parallelism.pp": [1], "parallelism.vpp": [1]},
}
CALIBRATION = {
    "kernels": {"hopper": {"issue": 1.1, "power": 0.9, "launch": 1.0, "hbm": 0.95}},
    "speeds": {"math": 0.9, "hbm": 0.9, "inside": 0.8, "between": 0.8},
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512, "intermediate_size": 1024,
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 8192,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip
GRAPH = {
    "directed": False, "multigraph": False, "graph": {},
    "nodes": [
        *({"id": f"node{n}.gpu{i}", "kind": "gpu", "gpu": "h100-sxm"} for n in (0, 1) for i in (0, 1)),
        *({"id": f"node{n}.nic0", "kind": "nic"} for n in (0, 1)),
        {"id": "leaf0", "kind": "leaf"},
    ],
    "links": [
        *({"source": f"node{n}.gpu0", "target": f"node{n}.gpu1", "bandwidth": "450 GB/s", "kind": "nvlink"}
          for n in (0, 1)),
        *({"source": f"node{n}.gpu{i}", "target": f"node{n}.nic0", "bandwidth": 5e10} for n in (0, 1) for i in (0, 1)),
        *({"source": f"node{n}.nic0", "target": "leaf0", "bandwidth": "400 Gbps", "latency": "1 us", "lanes": 1}
          for n in (0, 1)),
    ],
}  # fmt: skip
GRAPHML = """<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<key id="k" for="node" attr.name="kind" attr.type="string"/><key id="g" for="node" attr.name="gpu" attr.type="string"/>
<key id="b" for="edge" attr.name="bandwidth" attr.type="double"/>
<graph edgedefault="undirected">
<node id="node0.gpu0"><data key="k">gpu</data><data key="g">h100-sxm</data></node>
<node id="node0.gpu1"><data key="k">gpu</data><data key="g">h100-sxm</data></node>
<edge source="node0.gpu0" target="node0.gpu1"><data key="b">450000000000</data></edge>
</graph></graphml>
"""
XML = (
    '<system version="1"><cpu numaid="0" affinity="ff" arch="x86_64">'
    + "".join(
        f'<pci busid="0000:b{i}:00.0" class="0x060400" link_speed="32.0 GT/s PCIe" link_width="16">\n'
        f'<pci busid="0000:a{i}:00.0" class="0x030200" vendor="0x10de" device="0x2330" link_speed="32.0 GT/s PCIe" '
        f'link_width="16"><gpu dev="{i}" sm="90" rank="{i}" gdr="1"><nvlink target="0000:c0:00.0" count="18" '
        f'tclass="0x068000"/></gpu></pci>\n<pci busid="0000:f{i}:00.0" class="0x020700" vendor="0x15b3"><nic>'
        f'<net name="mlx5_{i}" dev="{i}" speed="400000" port="1" guid="0x{i}"/></nic></pci></pci>\n'
        for i in range(2)
    )
    + "</cpu></system>\n"
)
LOG = "\n".join([
    "# nThread 1 nGpus 1 minBytes 1048576 maxBytes 67108864 step: 4(factor) warmup iters: 5 iters: 20 validation: 1",
    *(f"#  Rank {r:2} Group  0 Pid {4000 + r} on      node{r // 8} device {r % 8} [0000:1b:00] NVIDIA H100 80GB HBM3"
      for r in range(16)),
    "#       size         count      type   redop    root     time   algbw   busbw #wrong",
    "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)       ",
    *(f"{size:12}  {size // 4:12}     float     sum      -1  {1e6 * t:7.2f} {size / t / 1e9:7.2f} "
      f"{size / t / 1e9 * 15 / 8:7.2f}      0"
      for size in (2**20, 2**22, 2**24, 2**26) for t in (1e-5 + size / 100e9,)),
    "# Out of bounds values : 0 OK", "# Avg bus bandwidth    : 100.0", "",
])  # fmt: skip
RUNS = (
    "id,model_name,layers,hidden,heads,vocab,gpu,n_gpus,gpus_per_node,seq_len,micro_batch,global_batch_sequences,tp,pp,"
    "zero_stage,precision,recompute,iteration_time_s\n"
    "a,tiny,4,512,8,8192,H100-80GB-SXM,8,8,2048,1,16,2,2,0,bf16,full,0.5\n"
)
ORDER = "rank,kind,stage,micro_batch\n" + "".join(
    f"{rank},{op},{rank},{batch}\n" for rank in (0, 1) for op in ("F", "BW") for batch in range(2)
)
TRACE = (
    "rank,ranks,stage,stream,kind,name,phase,micro_batch,chunk,layer,group,start_s,end_s,flops,bytes,iteration\n"
    "0,8,0,compute,compute,mlp,forward,0,0,1,,0.0,0.5,1e12,0,0\n"
    "0,8,0,compute,compute,mlp,backward,0,0,1,,0.5,1.5,2e12,0,0\n"
    "0,8,0,dp,collective,all_reduce,backward,-1,-1,-1,dp,1.5,1.75,0,1e9,0\n"
)

ODD: tuple[Any, ...] = (
    *(None, True, False, "", " ", "none", "null", "auto", [], {}, [[]], [None]),
    *({"a": 1}, {"": {}}, [1, 2, 3], "../..", "/"),
    *(0, -1, 1, 2, 3, 7, 8, 64, 10**4, 10**6, 10**9, 10**12, 10**18, 10**30, -(10**9), 2**31, 2**63, 10**150),
    *(0.1, -0.5, 1e-300, 1e-9, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 1.5),
    *("8", "4k", "1e400", "nan", "inf", "400 Gbps", "-3 us", "1e30 GB/s", "5 parsecs", "80 GiB", "[", "*", "node0.*"),
    *("node9.gpu0", "é", "全部", "\u202e", "🚀", "\x00", "\ufeff", "a\nb", "%s{}", "x" * 5000, "ſ", "１２"),
    *("Ⅷ", "off", "~"),
)  # fmt: skip
SMALL = tuple(value for value in ODD if not isinstance(value, int | float) or abs(value) < 100)


def _spots(tree: Any) -> list[tuple[Any, Any]]:
    """(holder, key or index) of every value of a tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [spot for key, value in pairs for spot in [(tree, key), *_spots(value)]]


def _nested(levels: int, mapping: bool) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value} if mapping else [value]
    return value


def spoil_tree(rng: Random, tree: Any, odd: tuple[Any, ...] = ODD) -> Any:
    """A copy of the tree with one value or key changed."""
    tree = deepcopy(tree)
    spots = _spots(tree)
    if not spots:
        return rng.choice(odd)
    holder, key = rng.choice(spots)
    how = rng.randrange(10)
    if how < 5:
        holder[key] = rng.choice(odd)
    elif how == 5:
        del holder[key]
    elif how == 6:
        other, there = rng.choice(spots)
        holder[key] = deepcopy(other[there])
    elif how == 7 and isinstance(holder, dict):
        holder[rng.choice([str(key)[:-1], f"{key}s", str(key).upper(), "", "é", "__class__", "0"])] = holder.pop(key)
    elif how == 8:
        holder[key] = _nested(rng.choice([3, 40, 70, 300]), rng.random() < 0.5)
    elif isinstance(holder, list):
        holder.extend([deepcopy(holder[key])] * rng.choice([1, 3, 200]))
    else:
        holder[key] = [deepcopy(holder[key])] * 2
    return tree


def spoil_text(rng: Random, text: str) -> str | bytes:
    """The text with a cut, other signs, repeated or missing lines, aliases, or bytes that are no text."""
    at = rng.randrange(len(text) + 1)
    lines = text.split("\n")
    line = rng.randrange(len(lines))
    match rng.randrange(12):
        case 0:
            return text[:at]
        case 1:
            return (
                text[:at]
                + rng.choice(
                    ["\x00", "é", "\u2028", "🚀", "\t", "'", '"', "{", "]", ":", "&a ", "*a", "%", ",", "\r", "<", "&"]
                )
                + text[at:]
            )
        case 2:
            return "\n".join(lines[:line] + [lines[line]] * rng.choice([2, 3, 50]) + lines[line + 1 :])
        case 3:
            return "\n".join(lines[:line] + lines[line + 1 :])
        case 4:
            return text[:at] + "".join(rng.choices("0123456789abc-.e \n", k=rng.choice([1, 5, 400]))) + text[at:]
        case 5:
            return (
                text[:at].encode()
                + rng.choice([b"\xff\xfe", b"\x80", b"\x00\x01\x02", b"\xed\xa0\x80"])
                + text[at:].encode()
            )
        case 6:
            return text.encode(rng.choice(["utf-16", "utf-8-sig", "utf-32"]))
        case 7:
            return rng.randbytes(rng.choice([1, 100, 5000]))
        case 8:
            depth = rng.choice([50, 200, 5000])
            return text[:at] + rng.choice(["[", "{a: ", "- ", "(", "<a>"]) * depth + text[at:]
        case 9:
            bombs = [
                f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'lol'}]" for i in range(rng.choice([3, 12]))
            ]
            return "\n".join(bombs) + "\n" + text
        case 10:
            digits = [i for i, sign in enumerate(text) if sign.isdigit()]
            place = rng.choice(digits) if digits else 0
            return (
                text[:place]
                + rng.choice(["-1", "0", "99999999999", "1e99", "NaN", "", "1.5", "٣", "9" * 400])
                + text[place + 1 :]
            )
        case _:
            last = lines.index(lines[line])
            rng.shuffle(lines)
            return "\n".join(lines if last % 2 else lines[::-1])


def _written(rng: Random, tree: Any) -> str:
    if rng.random() < 0.5:
        return _as_json(rng, tree)
    try:
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=rng.random() < 0.5)
    except RecursionError:  # nested deeper than YAML can be written
        return _as_json(rng, tree)


def _as_json(rng: Random, tree: Any) -> str:
    return json.dumps(tree, indent=1, ensure_ascii=rng.random() < 0.5)


def _tree(
    rng: Random, tree: Any, odd: tuple[Any, ...] = ODD, written: Callable[[Random, Any], str] = _written
) -> str | bytes:
    for _ in range(rng.choice([1, 1, 2, 3])):
        tree = spoil_tree(rng, tree, odd)
    text = written(rng, tree)
    return spoil_text(rng, text) if rng.random() < 0.25 else text


def _text(rng: Random, text: str) -> str | bytes:
    for _ in range(rng.choice([1, 1, 2, 3])):
        if isinstance(text, str):
            text = spoil_text(rng, text)
    return text


def _cells(rng: Random, text: str) -> str | bytes:
    """A CSV table with some cells, columns or lines spoilt."""
    rows = list(csv.reader(io.StringIO(text)))
    for _ in range(rng.choice([1, 1, 2])):
        row = rng.choice(rows)
        if row:
            row[rng.randrange(len(row))] = str(rng.choice(ODD))
    if rng.random() < 0.2:
        column = rng.randrange(len(rows[0]))
        rows = [row[:column] + row[column + 1 :] for row in rows]
    out = io.StringIO()
    csv.writer(out).writerows([cell.replace("\x00", "") for cell in row] for row in rows)
    return spoil_text(rng, out.getvalue()) if rng.random() < 0.3 else out.getvalue()


@dataclass(frozen=True)
class Case:
    """arguments: of the command line; `{}` in them is the folder that holds the files."""

    kind: str
    arguments: tuple[str, ...]
    files: dict[str, str | bytes]

    def call(self, folder: Path) -> list[str]:
        """The files written into the folder, and the arguments with its name in them."""
        for name, content in self.files.items():
            data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
            (folder / name).write_bytes(data)
        return [argument.replace("{}", str(folder), 1) for argument in self.arguments]


_BASE, _PLAIN = json.dumps(SCENARIO), json.dumps(PLAIN)


def _scenario(rng: Random) -> Case:
    name = rng.choice(["scenario.json", "scenario.yaml"])
    return Case("scenario", ("run", f"{{}}/{name}", "--json"), {name: _tree(rng, SCENARIO)})


def _topology(rng: Random) -> Case:
    base = yaml.safe_load(
        shipped("topologies")[
            rng.choice(["dgx-h100", "example-dragonfly", "example-torus-2d", "pcie-a100-box"])
        ].read_text()
    )
    files = {"t.yaml": _tree(rng, base), "scenario.json": _BASE}
    nodes = str(rng.choice([1, 2, 16]))
    if rng.random() < 0.5:
        return Case("topology", ("topology", "{}/t.yaml", "--nodes", nodes, "--json"), files)
    return Case(
        "topology",
        ("run", "{}/scenario.json", "--set", "cluster.topology={}/t.yaml", "--set", "cluster.overrides=null"),
        files,
    )


def _sweep(rng: Random) -> Case:
    files = {"s.yaml": _tree(rng, SWEEP, SMALL), "scenario.json": _PLAIN}
    return Case("sweep", ("sweep", "{}/s.yaml", "-o", "{}/out.csv", "--workers", "1"), files)


def _calibration(rng: Random) -> Case:
    files = {"c.yaml": _tree(rng, CALIBRATION), "scenario.json": _BASE}
    return Case("calibration", ("run", "{}/scenario.json", "--set", "simulation.calibration={}/c.yaml"), files)


def _log(rng: Random) -> Case:
    more = ("-o", "{}/out.yaml") if rng.random() < 0.5 else ("--json",)
    return Case("log", ("calibrate", "{}/log.txt", "--topology", "dgx-h100", *more), {"log.txt": _text(rng, LOG)})


def _xml(rng: Random) -> Case:
    return Case("xml", ("topology", "{}/s.xml", "--json"), {"s.xml": _text(rng, XML)})


def _graph(rng: Random) -> Case:
    if rng.random() < 0.3:
        return Case("graph", ("topology", "{}/g.graphml"), {"g.graphml": _text(rng, GRAPHML)})
    files = {"g.json": _tree(rng, GRAPH, written=_as_json), "scenario.json": _PLAIN}
    if rng.random() < 0.5:
        return Case("graph", ("topology", "{}/g.json", "--nodes", "2", "--json"), files)
    changes = ("--set", "cluster.topology={}/g.json", "--set", "cluster.overrides=null")
    return Case("graph", ("run", "{}/scenario.json", *changes), files)


def _override(rng: Random) -> Case:
    keys = [*known_keys(Scenario), *(f"cluster.overrides.{key}" for key in KEYS), *(f"model.{key}" for key in DENSE)]
    chosen = []
    for _ in range(rng.choice([1, 1, 2])):
        key, value = rng.choice(keys), rng.choice(ODD)
        key = key.replace("faults.", "faults.0.").replace("background.", "background.0.")
        text = value if isinstance(value, str) and rng.random() < 0.7 else json.dumps(value)
        chosen += ["--set", f"{key}={text}".replace("\x00", "")]
    return Case("override", ("run", "{}/scenario.json", *chosen), {"scenario.json": _BASE})


def _config(rng: Random) -> Case:
    files = {"config.json": _tree(rng, CONFIG, written=_as_json), "scenario.json": _PLAIN}
    return Case("config", ("run", "{}/scenario.json", "--set", "model={}/config.json"), files)


def _order(rng: Random) -> Case:
    return Case("schedule", ("schedule", "{}/mine.csv", "--json"), {"mine.csv": _cells(rng, ORDER)})


def _trace(rng: Random) -> Case:
    kind = rng.choice(["timeline", "utilization", "breakdown"])
    return Case("trace", ("plot", "{}/t.csv", "--kind", kind, "-o", "{}/out.svg"), {"t.csv": _cells(rng, TRACE)})


def _runs(rng: Random) -> Case:
    return Case("runs", ("validate", "--table", "{}/r.csv", "--json", "--workers", "1"), {"r.csv": _cells(rng, RUNS)})


KINDS: tuple[tuple[Callable[[Random], Case], int], ...] = (
    *((_scenario, 8), (_override, 8), (_topology, 4), (_sweep, 2), (_calibration, 2), (_log, 3), (_xml, 3)),
    *((_graph, 4), (_config, 3), (_order, 2), (_trace, 1), (_runs, 2)),
)  # fmt: skip


def case(seed: int, number: int) -> Case:
    """The case of this number: always the same for a seed."""
    rng = Random(f"{seed}:{number}")
    make = rng.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])[0]
    return make(rng)
