"""The plot of a benchmark as SVG: pages a second (line) and p95 seconds a page (dashed) over pages in flight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from ocr_pipeline.benchmark.steps import Step, recommended

WIDTH, HEIGHT, EDGE = 760, 420, 60
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df")


def svg(measured: Mapping[str, Sequence[Step]]) -> str:
    """`measured`: backend name to its steps. Each has a colour; a ring marks the recommended step."""
    steps = [step for found in measured.values() for step in found]
    most = max((step.in_flight for step in steps), default=1)
    rate = max((step.pages_per_second for step in steps), default=0.0) or 1.0
    late = max((step.p95 or 0.0 for step in steps), default=0.0) or 1.0

    def x(step: Step) -> float:
        return EDGE + (WIDTH - 2 * EDGE) * step.in_flight / most

    def y(share: float) -> float:
        return HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * share

    def line(found: Sequence[Step], share: Callable[[Step], float]) -> str:
        return " ".join(f"{x(step):.1f},{y(share(step)):.1f}" for step in found)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<path d="M{EDGE} {EDGE}V{HEIGHT - EDGE}H{WIDTH - EDGE}V{EDGE}" fill="none" stroke="#888"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 15}" text-anchor="middle">pages in flight</text>',
        f'<text x="{EDGE}" y="{EDGE - 10}">pages/s (line, top: {rate:.2f})</text>',
        f'<text x="{WIDTH - EDGE}" y="{EDGE - 10}" text-anchor="end">p95 s a page (dashed, top: {late:.1f})</text>',
    ]
    for number in sorted({step.in_flight for step in steps}):
        at = EDGE + (WIDTH - 2 * EDGE) * number / most
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - EDGE + 16}" text-anchor="middle">{number}</text>')
    for index, (name, found) in enumerate(measured.items()):
        colour = COLOURS[index % len(COLOURS)]
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="2" '
            f'points="{line(found, lambda step: step.pages_per_second / rate)}"/>'
            f'<polyline fill="none" stroke="{colour}" stroke-dasharray="4 4" '
            f'points="{line(found, lambda step: (step.p95 or 0.0) / late)}"/>'
            f'<text x="{EDGE + 10}" y="{EDGE + 18 * (index + 1)}" fill="{colour}">{escape(name)}</text>'
        )
        if (best := recommended(found)) is not None:
            at = y(best.pages_per_second / rate)
            parts.append(f'<circle cx="{x(best):.1f}" cy="{at:.1f}" r="7" fill="none" stroke="{colour}"/>')
    return "".join(parts) + "</svg>\n"
