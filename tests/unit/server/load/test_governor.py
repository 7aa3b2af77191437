"""Slots: never more than there are, fairly shared, nobody starves, and trees do not change."""

import asyncio
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.recording import Fault, no_fault
from tests.support.scenarios import Watch, engines, job_of, plain, scenarios
from treepo.engines.base import Chunk, PathRequest, Sampling
from treepo.errors import EngineError
from treepo.sampler import sample_tree
from treepo.tree import TreeFinish
from treepo_server.load.governed import GovernedEngine
from treepo_server.load.governor import Governor

LIMIT_S = 20.0


def ignore(request_id, chunk):
    """Watches nothing."""


def request(name):
    return PathRequest(name, "t", [1, 2], 0, Sampling(8))


class Gate:
    """An engine whose paths end when told to; it remembers in which order they began."""

    info = None

    def __init__(self):
        self.begun = []
        self.aborted = []
        self.ends = {}
        self.news = asyncio.Event()

    async def generate(self, request):
        self.begun.append(request.id)
        self.news.set()
        self.ends[request.id] = asyncio.Event()
        await self.ends[request.id].wait()
        yield Chunk((1,), finish_reason="stop")

    async def began(self, count):
        while len(self.begun) < count:
            self.news.clear()
            await self.news.wait()

    async def abort(self, request_ids):
        self.aborted.extend(request_ids)


async def settle():
    for _ in range(8):
        await asyncio.sleep(0)


async def read(engine, name):
    return [chunk async for chunk in engine.generate(request(name))]


def start(engine, *names):
    return [asyncio.create_task(read(engine, name)) for name in names]


async def end_all(gate, tasks):
    while not all(task.done() for task in tasks):
        for event in gate.ends.values():
            event.set()
        await settle()


async def test_the_first_path_of_each_tree_comes_before_the_second_of_any():
    gate, governor = Gate(), Governor(3)
    first, second, third = (GovernedEngine(gate, governor.seat(), ignore) for _ in range(3))
    tasks = start(first, "a1", "a2", "a3", "a4")
    await settle()
    tasks += start(second, "b1", "b2", "b3") + start(third, "c1", "c2")
    await settle()
    assert gate.begun == ["a1", "a2", "a3"]
    assert governor.num_waiting_trees == 2
    for name in ("a1", "a2"):
        gate.ends[name].set()
        await settle()
    assert gate.begun[3:] == ["b1", "c1"]
    gate.ends["a3"].set()
    await settle()
    assert gate.begun[5:] == ["a4"], "the tree that holds no slot, though it had most before"
    await end_all(gate, tasks)
    assert governor.num_live == 0


async def test_a_lower_priority_comes_first_and_then_the_shares_are_fair():
    gate, governor = Gate(), Governor(1)
    plain_one, urgent, other = (
        GovernedEngine(gate, governor.seat(priority), ignore) for priority in (0, -1, -1)
    )
    tasks = start(plain_one, "a1", "a2")
    await settle()
    tasks += start(urgent, "b1", "b2") + start(other, "c1")
    for name in ("a1", "b1", "b2", "c1"):
        await settle()
        gate.ends[name].set()
    await settle()
    assert gate.begun == ["a1", "b1", "b2", "c1", "a2"], "b and c are equals while neither runs"
    await end_all(gate, tasks)


async def test_a_crowded_cache_does_not_hold_a_first_path_behind_a_lower_priority():
    gate, governor = Gate(), Governor(4, lambda: True)
    urgent, plain_one = (GovernedEngine(gate, governor.seat(n), ignore) for n in (-1, 0))
    tasks = start(urgent, "a1", "a2") + start(plain_one, "b1", "b2")
    await settle()
    assert gate.begun == ["a1", "b1"]
    await end_all(gate, tasks)


async def test_a_path_given_up_while_it_waits_never_reaches_the_engine():
    gate, governor = Gate(), Governor(1)
    engine = GovernedEngine(gate, governor.seat(), ignore)
    running, waiting, cancelled = start(engine, "a", "b", "c")
    await settle()
    await engine.abort(["b", "b"])
    cancelled.cancel()
    await settle()
    assert [chunk.finish_reason for chunk in waiting.result()] == ["abort"]
    assert cancelled.cancelled()
    assert (gate.aborted, governor.num_waiting_paths) == ([], 0)
    await end_all(gate, [running])
    assert gate.begun == ["a"]
    assert governor.num_live == 0


async def test_a_path_given_up_in_the_turn_that_grants_its_slot_gives_it_back():
    gate, governor = Gate(), Governor(1)
    engine = GovernedEngine(gate, governor.seat(), ignore)
    seat = governor.seat()
    turn = seat.ask()
    waiting = start(engine, "a")[0]
    await settle()
    seat.withdraw(turn)
    await engine.abort(["a"])
    await settle()
    assert waiting.done()
    assert (gate.begun, governor.num_live) == ([], 0)


async def test_a_crowded_cache_holds_back_further_paths_but_never_a_first_one():
    crowded = [True]
    gate = Gate()
    governor = Governor(8, lambda: crowded[0])
    first, second = (GovernedEngine(gate, governor.seat(), ignore) for _ in range(2))
    tasks = start(first, "a1", "a2") + start(second, "b1", "b2")
    await settle()
    assert gate.begun == ["a1", "b1"]
    gate.ends["a1"].set()
    await settle()
    assert gate.begun[2:] == ["a2"], "its only path"
    crowded[0] = False
    async with asyncio.timeout(LIMIT_S):
        await gate.began(4)
    await end_all(gate, tasks)


async def test_a_tree_told_to_end_answers_with_what_it_has_while_its_paths_wait():
    gate, governor = Gate(), Governor(1)
    scenario = plain()
    gate.info = engines(scenario)[0].info
    ending = asyncio.get_running_loop().create_future()
    job = replace(job_of(scenario), ending=ending)
    governor.seat().ask()
    tree = asyncio.create_task(sample_tree(GovernedEngine(gate, governor.seat(), ignore), job))
    await settle()
    ending.set_result(TreeFinish.CANCELLED)
    done = await asyncio.wait_for(tree, LIMIT_S)
    assert (done.finish, done.trajectories) == (TreeFinish.CANCELLED, ())
    assert (gate.begun, governor.num_waiting_paths) == ([], 0)


def fails_at(every: int) -> Fault:
    def fault(request, num_chunks):
        path = int(request.id.rpartition("-")[2])
        return EngineError("refused") if path % every == every - 1 and path else None

    return fault


@settings(max_examples=60)
@given(st.data())
def test_many_trees_never_exceed_the_slots_and_every_tree_ends(data):
    num_slots = data.draw(st.integers(1, 4), "slots")
    faults = st.sampled_from([no_fault, no_fault, fails_at(3)])
    drawn = data.draw(st.lists(st.tuples(scenarios(), faults), min_size=2, max_size=4), "trees")
    crowded = data.draw(st.lists(st.booleans(), min_size=1, max_size=5), "crowded")
    looks = iter(range(1 << 30))
    live, most = set(), 0

    async def grow(number, governor, scenario, fault):
        nonlocal most
        _, engine = engines(replace(scenario, fault=fault))

        def saw(request_id, chunk):
            nonlocal most
            key = (number, request_id)
            if chunk is None:
                live.add(key)
                most = max(most, governor.num_live)
                assert governor.num_live <= num_slots
            elif chunk.finish_reason is not None:
                live.discard(key)

        governed = GovernedEngine(engine, governor.seat(), saw)
        job = replace(job_of(scenario, Watch(scenario.config.width)), id=f"t{number}")
        return await sample_tree(governed, job)

    async def all_trees():
        governor = Governor(num_slots, lambda: crowded[next(looks) % len(crowded)])
        trees = (grow(n, governor, *tree) for n, tree in enumerate(drawn))
        found = await asyncio.wait_for(asyncio.gather(*trees, return_exceptions=True), LIMIT_S)
        assert (governor.num_live, governor.num_waiting_paths) == (0, 0)
        return found

    for tree in asyncio.run(all_trees()):
        assert isinstance(tree, EngineError) or tree.finish is not None
    assert 0 < most <= num_slots


@settings(max_examples=20)
@given(scenarios(branching="even", fallback="none"), st.integers(1, 3))
def test_masses_and_tokens_are_those_of_a_tree_that_never_waited(scenario, num_slots):
    async def grow(slots):
        _, engine = engines(scenario)
        governed = GovernedEngine(engine, Governor(slots).seat(), ignore)
        return await asyncio.wait_for(sample_tree(governed, job_of(scenario)), LIMIT_S)

    free, held = asyncio.run(grow(1 << 10)), asyncio.run(grow(num_slots))
    assert {leaf(free, t) for t in free.trajectories} == {leaf(held, t) for t in held.trajectories}


def leaf(tree, trajectory):
    return tuple(tree.token_ids(trajectory)), round(tree.nodes[trajectory.leaf].mass, 9)
