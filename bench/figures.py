"""From runs to figures: medians and ranges over rounds, ratios, and what may be said of a difference."""

from dataclasses import dataclass
from statistics import median

# A figure whose rounds lie further apart than this share of the median is marked as unsteady.
UNSTEADY = 0.25


@dataclass(frozen=True)
class Figure:
    """A figure's median and range over rounds."""

    middle: float
    low: float
    high: float
    count: int
    # Other programs used the CPU during all runs there are.
    disturbed: bool = False

    @property
    def unsteady(self):
        return self.high - self.low > UNSTEADY * abs(self.middle)


def at(result, path):
    """A value in a result by its dotted path, or None."""
    for key in path.split("."):
        if not isinstance(result, dict) or result.get(key) is None:
            return None
        result = result[key]
    return result


def disturbed(result):
    """Whether other programs used the CPU during a run, as pushload saw it."""
    return any(note.startswith("disturbed") for note in result["notes"])


def usable(results):
    """The runs that count: the undisturbed ones if there are any, else all."""
    return [r for r in results if not disturbed(r)] or results


def figure(results, path, scale=1.0):
    """A figure over the runs that count, or None if no run has it."""
    used = usable(results)
    values = [at(r, path) for r in used]
    values = [v * scale for v in values if v is not None]
    return Figure(median(values), min(values), max(values), len(values), any(map(disturbed, used))) if values else None


def worst(results, path, scale=1.0):
    """The largest value over all runs, disturbed or not (losses, longest waits), or None."""
    values = [at(r, path) for r in results]
    values = [v * scale for v in values if v is not None]
    return max(values) if values else None


def total(results, path):
    """A counter's sum over all runs."""
    return sum(at(r, path) or 0 for r in results)


def ratio(a, b):
    """Ratio of two medians, or None."""
    return a.middle / b.middle if a and b and b.middle else None


TOO_FEW = "too few rounds to tell"


def compared(a, b):
    """What the rounds say about `a` against `b`: a factor if their ranges lie apart, else that they do not tell."""
    if a is None or b is None:
        return None
    if a.disturbed or b.disturbed:
        return "not told, as other programs used the CPU"
    if min(a.count, b.count) < 3:
        return TOO_FEW
    if a.low <= b.high and b.low <= a.high:
        return f"no difference that these rounds show ({ratio(a, b):.2f} ×, and their ranges overlap)"
    return f"{ratio(a, b):.2f} × (the ranges lie apart)"
