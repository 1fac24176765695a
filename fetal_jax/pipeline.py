"""A stage of a pipeline: threads that work ahead of whoever takes what they make."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def run_ahead(
    make: Callable[[Item], Made],
    items: Iterable[Item],
    *,
    most: int,
    measure: Callable[[Item], int] = lambda item: 0,
    bound: int = 0,
) -> Iterator[Made]:
    """make(item) for each item, in their order; the next ones are made while the caller works.

    What `make` raises is raised in its turn: all that comes before it has been given. However it
    ends, what has begun is finished.

    Args:
      items: taken in the caller's own thread, where they may be what an earlier stage makes.
      most: how many may be there at once, the one that the caller has among them; with 2 they are
        made one after the other, as what writes has to be.
      measure: item -> its size; together they are at most `bound`, or there is one alone.
    """
    there: deque = deque()  # (size, future), the caller's own first
    with ThreadPoolExecutor(most - 1) as pool:
        for item in items:
            size = measure(item)
            while there and (len(there) == most or size + sum(each for each, _ in there) > bound):
                yield there[0][1].result()
                there.popleft()
            there.append((size, pool.submit(make, item)))
        while there:
            yield there[0][1].result()
            there.popleft()
