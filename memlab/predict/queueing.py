"""How long calls wait for one of several places: M/M/c exactly, M/G/c approximately, and places that share a machine.

For those that share there are two answers: the stationary mean of Poisson arrivals and exponential service, and a play of the
arrivals as they come, with service times as uneven as measured ones and the time that a resting machine takes to wake.

Source: Erlang 1917; Kleinrock 1975, Queueing Systems I, 3.5 (M/M/c and its waiting times). For general service times the wait
of M/M/c is scaled by (1 + cv²) / 2: Lee, Longton 1959, doi 10.1057/jors.1959.7; close when places are mostly busy, and not for
light traffic with heavy tails, where little waits anyway. Service that is longer for who ends a rest: Welch 1964, Operations
Research 12, 736-752.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from memlab.errors import validation

Floats = npt.NDArray[np.float64]

_MOST_STATES = 100_000


@dataclasses.dataclass(frozen=True)
class Queue:
    """A line in front of equal places.

    Attributes:
        rate_per_s: of Poisson arrivals.
        service_s: mean time that a call holds a place.
        places: that serve side by side.
        cv: standard deviation of the service time over its mean; 1 is M/M/c, 0 is M/D/c.
    Raises:
        MemlabError: VALIDATION `range`: the places cannot keep up, or a value makes no sense.

    >>> round(Queue(rate_per_s=2.0, service_s=1.0, places=3).waits, 4)
    0.4444
    """

    rate_per_s: float
    service_s: float
    places: int
    cv: float = 1.0

    def __post_init__(self) -> None:
        if not (self.rate_per_s > 0 and self.service_s > 0 and self.places >= 1 and self.cv >= 0):
            raise validation("range", "a queue needs a rate, a service time and places above 0, and a cv of 0 or more")
        if self.utilisation >= 1:
            most = self.places / self.service_s
            raise validation("range", f"{self.rate_per_s:g} calls/s: {self.places} places answer {most:.4g} a second at most")

    @property
    def utilisation(self) -> float:
        """Busy share of the places."""
        return self.rate_per_s * self.service_s / self.places

    @property
    def waits(self) -> float:
        """Share of the calls that find no place free: Erlang's C, by the recursion of Erlang's B, which never overflows."""
        offered = self.rate_per_s * self.service_s
        blocked = 1.0
        for servers in range(1, self.places + 1):
            blocked = offered * blocked / (servers + offered * blocked)
        return blocked / (1 - self.utilisation * (1 - blocked))

    @property
    def mean_wait_s(self) -> float:
        """Mean time in line."""
        return self.waits * self._mean_wait_of_waiting_s

    @property
    def mean_response_s(self) -> float:
        """Mean time in line and in service."""
        return self.mean_wait_s + self.service_s

    def wait_s(self, q: float) -> float:
        """Return the time in line that a share *q* of the calls does not exceed: 0 for those that find a place.

        Who waits does so for an exponential time, exactly in M/M/c.
        """
        if q <= 1 - self.waits:
            return 0.0
        return self._mean_wait_of_waiting_s * math.log(self.waits / (1 - q))

    @property
    def _mean_wait_of_waiting_s(self) -> float:
        return self.service_s / (self.places * (1 - self.utilisation)) * (1 + self.cv**2) / 2


def sharing_response_s(rate_per_s: float, places: int, throughput_per_s: Callable[[int], float]) -> float:
    """Return the mean response time before places that hinder each other: n calls inside are answered at throughput_per_s(n).

    A birth-death chain, exact for Poisson arrivals and exponential service (Kleinrock 1975, 3.2); Little's law makes a time of
    the mean number of calls. With n / service_s for *throughput_per_s* it is M/M/c.

    Args:
        throughput_per_s: of so many calls at once, such as `scalability.Scalability.throughput_per_s`; asked for 1 to *places*.
    Raises:
        MemlabError: VALIDATION `range`: the places cannot keep up.
    """
    pace = [throughput_per_s(inside) for inside in range(1, places + 1)]
    if rate_per_s >= pace[-1]:
        raise validation("range", f"{rate_per_s:g} calls/s: {places} places answer {pace[-1]:.4g} a second at most")
    share, total, calls = 1.0, 1.0, 0.0
    for inside in range(1, _MOST_STATES):
        share *= rate_per_s / pace[min(inside, places) - 1]
        total += share
        calls += inside * share
        if inside > places and inside * share < 1e-12 * calls:
            break
    return calls / total / rate_per_s


@dataclasses.dataclass(frozen=True)
class SharedPlaces:
    """Places that hinder each other, as they were measured.

    Attributes:
        throughput_per_s: of so many calls at once, asked for 1 to the number of places; each makes the n-th part of it.
        work: what measured calls took over their mean; (calls,), any order, mean 1.
        woken_s: by seconds of rest, what the call that ends it takes longer; between them by interpolation, and above the longest
            as after that; empty where rest makes no difference.
    Raises:
        MemlabError: VALIDATION `service`: no work, or some that is not above 0.
    """

    throughput_per_s: Callable[[int], float]
    work: Floats
    woken_s: Mapping[float, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.work) or not (self.work > 0).all() or not np.isfinite(self.work).all():
            raise validation("service", "what calls take must be finite and above 0")

    def play(self, at_s: Floats, places: int, *, seed: int = 0) -> Floats:
        """Return the response time of every arrival, in seconds: exact for these arrivals and the work that is drawn for them.

        Args:
            at_s: when calls come; seconds, ascending; (calls,).
            places: that serve at once; the others wait in line, first come, first served.
            seed: of the work.
        """
        calls = len(at_s)
        work = self.work[np.random.default_rng(seed).integers(len(self.work), size=calls)].tolist()
        pace = [0.0, *(self.throughput_per_s(inside) / inside for inside in range(1, places + 1))]
        woken = sorted(self.woken_s.items())
        response_s = np.zeros(calls)
        # All inside progress at one pace, so that who has least left ends first, whoever comes: it ends when *done*, what each
        # has been given since the beginning, has reached its mark.
        inside: list[tuple[float, int]] = []
        line: deque[int] = deque()
        done = now = 0.0
        rests_since = -math.inf
        arrived = 0
        while arrived < calls or inside:
            next_arrival = float(at_s[arrived]) if arrived < calls else math.inf
            next_end = now + (inside[0][0] - done) / pace[len(inside)] if inside else math.inf
            if next_end <= next_arrival:
                done, call = heapq.heappop(inside)
                now = next_end
                response_s[call] = now - at_s[call]
                if line:
                    heapq.heappush(inside, (done + work[line[0]], line.popleft()))
                elif not inside:
                    rests_since = now
                continue
            done += (next_arrival - now) * pace[len(inside)]
            now = next_arrival
            if len(inside) == places:
                line.append(arrived)
            else:
                longer_s = _interpolated(now - rests_since, woken) if not inside else 0.0
                heapq.heappush(inside, (done + work[arrived] + longer_s * pace[1], arrived))
            arrived += 1
        return response_s


def _interpolated(rest_s: float, woken: list[tuple[float, float]]) -> float:
    if not woken:
        return 0.0
    return max(float(np.interp(rest_s, [0.0, *(rest for rest, _ in woken)], [0.0, *(longer for _, longer in woken)])), 0.0)
