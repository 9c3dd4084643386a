"""The rates as a picture: a group of bars for each logic, size and parallelism. SVG by hand, so that nothing has to be installed."""

import html
import itertools

COLOURS = {
    "native": "#4e79a7",
    "bridge-c": "#f28e2b",
    "bridge-builtin": "#ffbe7d",
    "bridge-python": "#e15759",
    "pyflink-process": "#bab0ac",
    "pyflink-thread": "#79706e",
}
LINE, BAR, LEFT, WIDTH = 18, 14, 230, 900


def draw(figures: dict[str, tuple[float, str]]) -> str:
    """The SVG."""
    rows = []
    for name, (value, _) in figures.items():
        kind, *words = name.split(".")
        if kind == "rate":
            logic, engine, size, parallelism = words
            rows.append((f"{logic}, {size.removesuffix('b')} B, parallelism {parallelism[1:]}", engine, value))
    most = max((value for *_, value in rows), default=1)
    shapes, y = [], 10
    for group, members in itertools.groupby(rows, lambda row: row[0]):
        y += LINE
        shapes.append(f'<text x="10" y="{y}" font-weight="bold">{html.escape(group)}</text>')
        for _, engine, value in members:
            width = value / most * (WIDTH - LEFT - 120)
            shapes.append(f'<text x="{LEFT - 10}" y="{y + LINE}" text-anchor="end">{html.escape(engine)}</text>')
            shapes.append(f'<rect x="{LEFT}" y="{y + LINE - BAR + 3}" width="{width:.1f}" height="{BAR}" fill="{COLOURS.get(engine, "#76b7b2")}"/>')
            shapes.append(f'<text x="{LEFT + width + 6:.1f}" y="{y + LINE}">{value / 1000:,.0f} k records/s</text>')
            y += LINE
        y += LINE // 2
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + LINE}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, *shapes, "</svg>", ""])
