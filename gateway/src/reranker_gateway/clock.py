"""The clock as a parameter: seconds that only go forward."""

from collections.abc import Callable

Clock = Callable[[], float]
