"""What a batch window does: throughput and response times of a lane that sends waiting calls in groups, from what a group takes.

A group of n calls takes `fixed + n * per_call` seconds: one search, one fetch or one synced transaction, and something for every
member. That is measured for a few sizes (`ServiceTime.fit`). How long calls wait for each other follows from the rules of
`middleware.batch`, which `simulate` plays through call by call: it takes any arrivals, a trace as well as a Poisson process. For
the plain case, where whatever waits leaves when the last group returns, `bulk_queue` has the exact answer, and tests hold the
simulation against it.

Source: group service Bailey 1954, J. R. Stat. Soc. B 16, 80-87, and Neuts 1967, Ann. Math. Stat. 38, 759-770 (from one to a limit
of members); group commit Helland et al. 1987, LNCS 359; groups that share processors: Kleinrock 1967, doi 10.1145/321386.321388.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from memlab.errors import validation
from memlab.middleware.aimd import Aimd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_MOST_QUEUED = 4_000  # states of the exact queue
_FEWEST_SIZES = 2
_LEAST_S = 1e-6
_LONGEST_S = 3600.0  # of a pause: before the first call there was no other
_NEIGHBOURS = 6  # groups that are drawn in a row


@dataclasses.dataclass(frozen=True)
class ServiceTime:
    """What a group takes, alone on the machine.

    Attributes:
        fixed_s, per_call_s: of a group, and of every member; the fit.
        excess_s: by measured size, ascending, what each group took beyond the fit, or below it: a stall adds to a group, however
            small, and meets a long one sooner; in the order of measuring.
    """

    fixed_s: float
    per_call_s: float
    excess_s: Mapping[int, Floats]

    @classmethod
    def fit(cls, sizes: Sequence[int] | Ints, seconds: Sequence[float] | Floats) -> ServiceTime:
        """Return the line through measured groups.

        Weighted by 1 / seconds², so that small groups, which take little, are met as closely as large ones; through the median
        of each size, which a stall does not move.

        Args:
            sizes, seconds: of each measured group; (n,), two sizes or more.
        Raises:
            MemlabError: VALIDATION `service`: too few sizes, or times that are not above 0.

        >>> ServiceTime.fit([1, 11], [0.002, 0.004]).fixed_s.__round__(6)
        0.0018
        """
        sizes, seconds = np.asarray(sizes, dtype=np.int64), np.asarray(seconds, dtype=np.float64)
        known = np.unique(sizes)
        if len(known) < _FEWEST_SIZES or len(sizes) != len(seconds) or known[0] < 1:
            raise validation("service", f"groups of {len(known)} sizes: measure {_FEWEST_SIZES} sizes or more, of 1 call or more")
        if not (seconds > 0).all() or not np.isfinite(seconds).all():
            raise validation("service", "service times must be finite and above 0")
        middle = np.array([np.median(seconds[sizes == size]) for size in known])
        design = np.stack([np.ones(len(known)), known], axis=1)
        fixed_s, per_call_s = np.linalg.lstsq(design / middle[:, None], np.ones(len(known)), rcond=None)[0].tolist()
        if per_call_s < 0 or fixed_s < 0:  # a line that falls, or begins below 0, cannot be what a group takes
            fixed_s, per_call_s = (float(middle.mean()), 0.0) if per_call_s < 0 else (0.0, float(np.median(middle / known)))
        excess = {int(size): seconds[sizes == size] - fixed_s - per_call_s * size for size in known}
        return cls(fixed_s, per_call_s, excess)

    @property
    def most(self) -> int:
        """Members of the largest group that was measured."""
        return max(self.excess_s)

    def draws(self, chance: np.random.Generator) -> Callable[[int], float]:
        """Return what tells the seconds of one group after the other, as uneven as measured groups of the nearest size.

        Neighbours are drawn together: what hindered several groups in a row hinders as many here (circular blocks: Politis,
        Romano 1992, in LePage, Billard, Exploring the Limits of Bootstrap, 263-270).
        """
        place, left = dict.fromkeys(self.excess_s, 0), dict.fromkeys(self.excess_s, 0)
        nearest: dict[int, int] = {}

        def draw(size: int) -> float:
            if size not in nearest:
                nearest[size] = min(self.excess_s, key=lambda one: abs(math.log(one / size)))
            known = nearest[size]
            excess = self.excess_s[known]
            if not left[known]:
                place[known], left[known] = int(chance.integers(len(excess))), _NEIGHBOURS
            left[known] -= 1
            place[known] = (place[known] + 1) % len(excess)
            return max(self.of(size) + float(excess[place[known]]), _LEAST_S)

        return draw

    def of(self, size: int) -> float:
        """Return the usual seconds of a group of *size*."""
        return self.fixed_s + self.per_call_s * size

    def capacity_per_s(self, limit: int) -> float:
        """Return the calls a second that full groups, one after the other, can answer."""
        return limit / self.of(limit)


@dataclasses.dataclass(frozen=True)
class Rule:
    """When a lane sends, as `settings.batch` has it.

    Attributes:
        in_flight: groups executed at once: the limit of the pool, 1 for writes.
    """

    window_ms: float
    limit: int
    adaptive: bool = True
    in_flight: int = 1
    objective_ms: float | None = None


@dataclasses.dataclass(frozen=True)
class Simulated:
    """What became of every call.

    Attributes:
        response_s: from arrival to answer; (calls,).
        group_size: of the group that it travelled in; (calls,).
        groups: sent in all.
        end_s: when the last answer came.
    """

    response_s: Floats
    group_size: Ints
    groups: int
    end_s: float


def simulate(at_s: Floats, rule: Rule, service_s: Callable[[int, float], float], *, processors: float = 1.0) -> Simulated:
    """Play a lane through: exact for its arrivals and service times.

    Args:
        at_s: arrivals, ascending; (calls,).
        service_s: what a group of so many takes alone, after the lane was idle for so many seconds; called once for each group,
            in the order of sending.
        processors: how many groups make full progress side by side; more share them evenly. Below 1 where groups hinder each
            other.
    """
    window_s = rule.window_ms / 1e3
    aimd = Aimd(window_s, rule.objective_ms / 1e3) if rule.objective_ms is not None else None
    if aimd is not None:
        window_s = aimd.window_s
    goes_when_idle = rule.adaptive or not window_s
    one_at_a_time = rule.in_flight == 1
    calls = len(at_s)
    arrives_s = at_s.tolist()
    response_s, group_size = np.zeros(calls), np.zeros(calls, dtype=np.int64)
    waiting: deque[int] = deque()
    running: list[_Group] = []
    line: deque[_Group] = deque()
    arrived = groups = 0
    now = 0.0
    returned = -math.inf

    def send(size: int, *, waited: bool = False) -> None:
        nonlocal groups
        members = [waiting.popleft() for _ in range(size)]
        idle_s = 0.0 if running else now - returned
        groups += 1
        group_size[members] = size
        (running if len(running) < rule.in_flight else line).append(_Group(service_s(size, idle_s), members, waited))

    while arrived < calls or waiting or running:
        while len(waiting) >= rule.limit and not (one_at_a_time and running):
            send(rule.limit)
        if waiting and goes_when_idle and not running:
            send(min(len(waiting), rule.limit))
        pace = min(1.0, processors / len(running)) if len(running) > 1 else 1.0
        next_arrival = arrives_s[arrived] if arrived < calls else math.inf
        returning = min(running, key=lambda group: group.left_s) if running else None
        next_return = now + returning.left_s / pace if returning is not None else math.inf
        next_due = math.inf
        if waiting and window_s and len(running) < rule.in_flight:
            next_due = max(arrives_s[waiting[0]] + window_s, now)
        moment = min(next_arrival, next_return, next_due)
        for group in running:
            group.left_s -= (moment - now) * pace
        now = moment
        if returning is not None and next_return <= moment:
            running.remove(returning)
            returned = now
            response_s[returning.members] = now - at_s[returning.members]
            if aimd is not None:
                window_s = aimd.update(at_s[returning.members].tolist(), now, waited=returning.waited)
            if line:
                running.append(line.popleft())
        elif next_arrival <= moment:
            waiting.append(arrived)
            arrived += 1
        else:
            send(min(len(waiting), rule.limit), waited=True)
    return Simulated(response_s, group_size, groups, now)


class _Group:
    __slots__ = ("left_s", "members", "waited")

    def __init__(self, left_s: float, members: list[int], waited: bool) -> None:
        self.left_s = left_s
        self.members = members
        self.waited = waited


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a model was held against: it answers inside of it alone.

    Attributes:
        rate_per_s, window_ms, limit: the lowest and the highest.
    """

    rate_per_s: tuple[float, float]
    window_ms: tuple[float, float]
    limit: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a setting would do.

    Attributes:
        throughput_per_s: calls answered a second.
        p50_ms, p95_ms: of response times.
        mean_group: calls in the group of a mean call.
        calls_saved: share of the calls into storage that batching saves, 1 - groups / calls.
    """

    throughput_per_s: float
    p50_ms: float
    p95_ms: float
    mean_group: float
    calls_saved: float


@dataclasses.dataclass(frozen=True)
class BatchModel:
    """Predicts what a batch window does.

    Attributes:
        service: of a group in the flow of calls, measured.
        rested: of the first group after a pause of so many seconds, measured: threads have to be woken, and whoever else uses the
            machine goes first. Empty where that makes no difference.
        processors: groups that make full progress side by side, measured; 1 for writes.
        checked: the range in which it was held against measurements; None for a model that was held against none.
    """

    service: ServiceTime
    rested: Mapping[float, ServiceTime] = dataclasses.field(default_factory=dict)
    processors: float = 1.0
    checked: Checked | None = None

    def predict(self, rule: Rule, at_s: Floats, *, seed: int = 0) -> Prediction:
        """Return what a lane would do with arrivals.

        Args:
            at_s: when calls come; seconds, ascending, two or more.
            seed: of how uneven the groups are.
        Raises:
            MemlabError: VALIDATION `range`: outside of what the model was checked on; or groups outgrow those that were measured,
                whether or not it was checked.
        """
        found = self.play(rule, at_s, seed=seed)
        self._refuse_outgrown(found)
        return Prediction(
            len(at_s) / (found.end_s - float(at_s[0])),
            float(np.quantile(found.response_s, 0.5)) * 1e3,
            float(np.quantile(found.response_s, 0.95)) * 1e3,
            float(found.group_size.mean()),
            1 - found.groups / len(at_s),
        )

    def play(self, rule: Rule, at_s: Floats, *, seed: int = 0) -> Simulated:
        """Return what would become of every arrival; arguments as for `predict`.

        A model that was checked raises as `predict` does. One that was not plays whatever it is given: whoever holds it against
        measurements asks whether a group is larger than `service.most`, where the line through the others goes on.
        """
        rate = (len(at_s) - 1) / max(float(at_s[-1] - at_s[0]), 1e-9)
        self._check(rule, rate, len(at_s))
        chance = np.random.default_rng(seed)

        flowing = self.service.draws(chance)
        woken = {pause_s: service.draws(chance) for pause_s, service in self.rested.items()}
        shortest_s = min(woken, default=math.inf) / 2

        def service_s(size: int, idle_s: float) -> float:
            if idle_s < shortest_s or not woken:
                return flowing(size)
            return woken[min(woken, key=lambda pause_s: abs(math.log(pause_s / min(idle_s, _LONGEST_S))))](size)

        found = simulate(at_s, rule, service_s, processors=self.processors)
        if self.checked is not None:
            self._refuse_outgrown(found)
        return found

    def _refuse_outgrown(self, found: Simulated) -> None:
        largest = int(found.group_size.max())
        if largest > self.service.most:
            raise _outside(f"groups of {largest} calls", f"groups of at most {self.service.most} were measured")

    def _check(self, rule: Rule, rate: float, calls: int) -> None:
        if self.checked is None:
            return
        for name, unit, value, (low, high) in (
            ("rate", "calls/s", rate, self.checked.rate_per_s),
            ("window", "ms", rule.window_ms, self.checked.window_ms),
            ("limit", "calls", rule.limit, self.checked.limit),
        ):
            # Arrivals that chance makes differ from the rate that they were made for.
            margin = 3 / np.sqrt(calls) if name == "rate" else 0.0
            if not low * (1 - margin) <= value <= high * (1 + margin):
                raise _outside(f"a {name} of {value:g} {unit}", f"the model was checked from {low:g} to {high:g}")


def bulk_queue(rate_per_s: float, limit: int, service_s: Callable[[int], float]) -> tuple[float, float]:
    """Return the mean size of a group, over groups, and the mean response time in seconds, exactly.

    One group at a time; when it returns, whatever waits leaves, *limit* at most; an arrival at an idle lane leaves alone. Poisson
    arrivals, and groups that all take what their size says. The chain of those left behind at returns is solved for its
    stationary state; Little's law gives the response time.

    Raises:
        MemlabError: VALIDATION `range`: the lane cannot keep up.
    """
    if rate_per_s * service_s(limit) / limit >= 1:
        raise _outside(f"{rate_per_s:g} calls/s", f"a lane with groups of {limit} answers {limit / service_s(limit):.4g} at most")
    states = min(_MOST_QUEUED, int(20 * limit + 50 * rate_per_s * service_s(limit)) + 50)
    size = np.minimum(np.maximum(np.arange(states), 1), limit)
    took = np.array([service_s(int(one)) for one in range(1, limit + 1)])[size - 1]
    left = np.arange(states) - size
    left[0] = 0  # the arrival that ends an idle time is the group itself
    moves = np.zeros((states, states))
    for group in range(1, limit + 1):
        arriving = _poisson(rate_per_s * service_s(group), states)
        for state in np.flatnonzero(size == group):
            moves[state, left[state] :] = arriving[: states - left[state]]
    moves[:, -1] += 1 - moves.sum(axis=1)
    balance = np.vstack([(moves.T - np.eye(states))[:-1], np.ones(states)])
    share = np.linalg.solve(balance, np.append(np.zeros(states - 1), 1.0))
    # Over one step: members wait out their own group, those left behind wait it out as well, arrivals half of it each.
    spent = (size + left) * took + rate_per_s * took**2 / 2
    return float(share @ size), float(share @ spent / (share @ size))


def _poisson(mean: float, states: int) -> Floats:
    chances = np.empty(states)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, states)))])
    chances[:] = np.exp(np.arange(states) * np.log(max(mean, 1e-300)) - mean - logs)
    return chances


def _outside(what: str, range_: str) -> Exception:
    return validation("range", f"{what}: {range_}; measure there first")
