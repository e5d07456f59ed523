"""What the engine costs: events a second beside bare simpy timeouts in the same run, and budgets of whole commands.

python benchmarks/engine_speed.py
"""

import gc
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import simpy

import llmsim
from llmsim.engine.player import play
from llmsim.program.build import build_program

SCENARIO = "scenarios/gpt3-175b-a100-1024.yaml"
COMMANDS = (  # arguments of `llmsim`, seconds, MB
    (("--help",), 0.3, None),
    (("run", "scenarios/quickstart.yaml"), 2.0, None),
    (("run", SCENARIO, "--detail", "block"), 2.0, None),
    (("run", SCENARIO, "--detail", "kernel"), 8.0, None),
    (("run", "scenarios/gpt3-1t-a100-3072.yaml", "--detail", "block"), 4.0, None),
    (("run", "scenarios/llama3-405b-h100-16384.yaml", "--detail", "block"), 4.0, 600),
)


def bare_simpy(events: int) -> float:
    """Seconds that one process takes for so many timeouts."""

    def process(env: simpy.Environment):
        for _ in range(events):
            yield env.timeout(1.0)

    env = simpy.Environment()
    env.process(process(env))
    return timed(env.run)[0]


def timed(call: Callable) -> tuple[float, object]:
    gc.collect()
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def engine() -> None:
    program = build_program(llmsim.load_scenario(SCENARIO, ["simulation.detail=kernel"]))
    seconds, played = timed(lambda: play(program.plan))
    bare = bare_simpy(played.events)
    print(f"{SCENARIO}, kernel detail: {played.events:,} events")
    print(f"  engine      {played.events / seconds:>12,.0f} events/s")
    print(f"  bare simpy  {played.events / bare:>12,.0f} events/s")
    print(f"  ratio       {bare / seconds:>12.2f}   (budget: at least 0.33)")
    block = llmsim.load_scenario(SCENARIO, ["simulation.detail=block"])
    llmsim.simulate(block)
    best = min(timed(lambda: llmsim.simulate(block))[0] for _ in range(3))
    print(f"  simulate() in block detail, imported: {best:.3f} s   (budget: 0.15 s)\n")


def commands() -> None:
    print(f"{'command':<70} {'wall s':>8} {'budget':>7} {'MB':>6} {'budget':>7}")
    for arguments, budget, megabytes in COMMANDS:
        began = time.perf_counter()
        measure = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        llm = [sys.executable, "-c", "from llmsim.cli import main; main()", *arguments]
        shown = subprocess.run([sys.executable, "-c", measure, *llm], capture_output=True, text=True, check=True)
        seconds, peak = time.perf_counter() - began, int(shown.stdout) / 1024
        print(
            f"llmsim {' '.join(arguments):<63} {seconds:>8.2f} {budget:>7.2f} {peak:>6.0f} {megabytes or '':>7}",
            flush=True,
        )
    print(f"\nthis process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    engine()
    commands()
