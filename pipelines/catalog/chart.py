"""Throughput over time, as the numbers of an inline SVG; its colours are the page's."""

from dataclasses import dataclass

from pipelines.catalog.figures import Throughput

WIDTH, HEIGHT = 1000, 160  # of the drawing; the page scales it
UNITS = (("second", 1), ("minute", 60), ("hour", 3600))
STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Chart:
    """A filled staircase between 0 and `top` images per unit, over `seconds`."""

    path: str
    top: float
    unit: str
    seconds: float
    mean: float

    @property
    def mean_height(self) -> float:
        """Where the mean is drawn, from above."""
        return round(HEIGHT * (1 - self.mean / self.top), 1)


def chart(throughput: Throughput) -> Chart:
    """The drawing, in the first unit of time in which the fastest bin has one image or more."""
    fastest = max(throughput.images) / throughput.width
    unit, seconds = next((each for each in UNITS if fastest * each[1] >= 1), UNITS[-1])
    rates = [images * seconds / throughput.width for images in throughput.images]
    top = _rounded_up(max(rates))
    step = WIDTH / len(rates)
    line = "".join(f"V{HEIGHT * (1 - rate / top):.1f}H{(index + 1) * step:.1f}" for index, rate in enumerate(rates))
    mean = sum(rates) / len(rates)
    return Chart(f"M0 {HEIGHT}{line}V{HEIGHT}Z", top, unit, throughput.width * len(rates), mean)


def _rounded_up(value: float) -> float:
    """The next number that is easy to read off an axis."""
    scale = 1.0
    while value > 10 * scale:
        scale *= 10
    while value <= scale:
        scale /= 10
    return next((step * scale for step in STEPS if step * scale >= value), 10 * scale)
