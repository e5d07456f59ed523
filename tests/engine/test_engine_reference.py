"""The engine against a reference that is slow and plain: no simpy, all speeds anew at every event."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.engine.fairness import max_min_speeds
from llmsim.engine.plan import CapacityChange, Fragment, Item, Lane, Op, Part, Plan
from llmsim.engine.player import play

RESOURCES = 3


def reference(plan, steps):
    """Start and end of every op of every lane, by playing the plan with global recomputation."""
    capacity, now = list(plan.capacities), 0.0
    queue = [[(item, op) for item in lane.items for op in item.fragment.ops or (None,)] for lane in plan.lanes]
    position, times = [0] * len(queue), [[] for _ in queue]
    fired, delayed, running, waiting = set(), [], {}, {}
    changes = sorted(plan.changes, key=lambda change: change.time)
    while True:
        moved = True
        while moved:
            moved = False
            for number, ops in enumerate(queue):
                busy = number in waiting or any(number in state[2] for state in running.values())
                if busy or position[number] == len(ops):
                    continue
                item, op = ops[position[number]]
                if any(signal not in fired for signal in item.waits):
                    continue
                moved = True
                if op is None:
                    end_item(item, now, fired, delayed)
                    position[number] += 1
                elif op.meeting >= 0:
                    waiting[number] = op
                    members = [other for other, asked in waiting.items() if asked.meeting == op.meeting]
                    if len(members) == plan.meetings[op.meeting]:
                        for other in members:
                            del waiting[other]
                        running[number] = [unrolled(op, steps), 0, members, now]
                else:
                    running[number] = [unrolled(op, steps), 0, [number], now]
        for state in running.values():
            if len(state) == 4:
                state += [state[0][state[1]].latency, state[0][state[1]].seconds]
        parts = {number: state[0][state[1]] for number, state in running.items()}
        speeds = max_min_speeds([p.demands for p in parts.values()], [p.pace for p in parts.values()], capacity)
        speed = dict(zip(parts, speeds))
        left = {
            number: state[4] + (state[5] / speed[number] if state[5] > 0 and speed[number] > 0 else 0.0)
            if speed[number] > 0 or state[5] <= 0
            else float("inf")
            for number, state in running.items()
        }
        nearest = min([*left.values(), *(t - now for t, _ in delayed), *(c.time - now for c in changes)], default=None)
        if nearest is None:
            return times
        for number, state in running.items():
            latency = min(state[4], nearest)
            state[4] -= latency
            state[5] = max(0.0, state[5] - (nearest - latency) * speed[number])
        now += nearest
        while changes and changes[0].time <= now * (1 + 1e-12):
            change = changes.pop(0)
            capacity[change.resource] = change.capacity
        for entry in [entry for entry in delayed if entry[0] <= now * (1 + 1e-12)]:
            delayed.remove(entry)
            fired.add(entry[1])
        for number in [number for number, rest in left.items() if rest <= nearest * (1 + 1e-12)]:
            state = running.pop(number)
            if state[1] + 1 < len(state[0]):
                running[number] = [state[0], state[1] + 1, state[2], state[3]]
                continue
            for member in state[2]:
                times[member].append((state[3], now))
                item, op = queue[member][position[member]]
                position[member] += 1
                if op is item.fragment.ops[-1]:
                    end_item(item, now, fired, delayed)


def unrolled(op, steps):
    """The parts of an op one after another: each step its own, or the steps of a part as one."""
    if steps:
        return [part._replace(repeat=1) for part in op.parts for _ in range(part.repeat)]
    return [Part(1, p.latency * p.repeat, p.seconds * p.repeat, p.demands, p.pace) for p in op.parts]


def end_item(item, now, fired, delayed):
    for signal, delay in item.signals:
        if delay > 0:
            delayed.append((now + delay, signal))
        else:
            fired.add(signal)


def amount(low, high):
    return st.integers(int(low * 100), int(high * 100)).map(lambda number: number / 100)


@st.composite
def parts(draw):
    used = draw(st.sets(st.integers(0, RESOURCES - 1), max_size=2))
    demands = tuple((resource, draw(amount(0.05, 1.0))) for resource in sorted(used))
    pace = draw(st.sampled_from([1.0, 16.0]))
    return Part(draw(st.integers(1, 3)), draw(amount(0.0, 0.3)), draw(amount(0.1, 2.0)), demands, pace)


@st.composite
def plans(draw):
    """Lanes that wait for signals of lanes before them, and collectives that all lanes take part in, in one order."""
    plan = Plan(capacities=[1.0] * RESOURCES)
    lanes = draw(st.integers(1, 4))
    plan.meetings = [lanes]
    work = st.lists(parts(), min_size=1, max_size=2).map(tuple)
    together = [Op(9, draw(work), 0) for _ in range(draw(st.integers(0, 2)))]
    earlier: list[int] = []
    for number in range(lanes):
        items, own = [], []
        for place in range(len(together) + 1):
            for _ in range(draw(st.integers(0, 2))):
                ops = tuple(Op(len(items), draw(work)) for _ in range(draw(st.integers(0, 2))))
                waits = tuple(draw(st.sets(st.sampled_from(earlier), max_size=2))) if earlier and place == 0 else ()
                own.append(plan.new_signal())
                signals = ((own[-1], draw(st.sampled_from([0.0, 0.0, 0.15]))),)
                items.append(Item(Fragment(ops), number, 0, waits, signals))
                if place > 0:
                    own.pop()
            if place < len(together):
                items.append(Item(Fragment((together[place],)), 7))
        earlier += own
        plan.lanes.append(Lane(number, "compute", items))
    for _ in range(draw(st.integers(0, 3))):
        resource, capacity = draw(st.integers(0, RESOURCES - 1)), draw(st.sampled_from([0.25, 0.5, 1.0, 1.0]))
        plan.changes.append(CapacityChange(draw(amount(0.0, 6.0)), resource, capacity))
    return plan


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(plans(), st.booleans())
def test_play_equals_the_reference(plan, steps):
    played = play(plan, steps=steps)
    for rows, expected in zip(played.rows, reference(plan, steps)):
        assert rows[:, 2:] == pytest.approx(np.array(expected).reshape(-1, 2), rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(plans())
def test_events_are_causal_and_lanes_are_serial(plan):
    """No op begins before its lane's last one and the items it waits for have ended; collectives end together."""
    rows = play(plan).rows
    ended, met = {}, []
    for lane, played in zip(plan.lanes, rows):
        place, before, own = 0, 0.0, []
        for item in lane.items:
            for op in item.fragment.ops:
                begin, end = played[place, 2:]
                assert begin >= before and all(ended[signal] <= begin + 1e-12 for signal in item.waits)
                own += [(begin, end)] if op.meeting >= 0 else []
                place, before = place + 1, end
            # An item without ops passes on what it waited for.
            before = max([before, *(ended[signal] for signal in item.waits)])
            for signal, delay in item.signals:
                ended[signal] = before + delay
        assert place == len(played)
        met.append(own)
    assert all(own == met[0] for own in met)
