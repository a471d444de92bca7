"""Charts as SVG files that need nothing else: readable on light and on dark pages, and as text by `<title>`."""

from html import escape

STYLE = """
  .card { fill: #ffffff; stroke: #d8dbe0; }
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
  .head { font-size: 16px; font-weight: 600; }
  .small { font-size: 12px; fill: #57606a; }
  .grid { stroke: #e3e6ea; stroke-width: 1; }
  .range { stroke: #24292f; stroke-width: 1.5; }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
  .floor { --c: #818b98; } .nginx { --c: #8250df; } .nchan { --c: #d4622a; }
  .compact { --c: #1f6fd0; } .plain { --c: #12875d; }
  .bar, .dot { fill: var(--c); } .line { stroke: var(--c); }
  @media (prefers-color-scheme: dark) {
    .card { fill: #161b22; stroke: #3d444d; }
    text { fill: #e6edf3; } .small { fill: #9da7b3; }
    .grid { stroke: #2b323b; } .range { stroke: #e6edf3; }
    .floor { --c: #8b949e; } .nginx { --c: #b392f0; } .nchan { --c: #ef8a54; }
    .compact { --c: #58a6ff; } .plain { --c: #3fb98a; }
  }
"""
WIDTH = 720


def document(height, title, parts):
    """A whole file."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def text(x, y, words, kind="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def steps(top, wanted=5):
    """Round values from 0 to at least `top` for an axis."""
    if top <= 0:
        return [0, 1]
    unit = 10 ** len(str(int(top))) / 100
    for factor in (1, 2, 5, 10, 20, 50, 100, 200, 500):
        step = unit * factor / 10
        if top / step <= wanted:
            break
    return [step * n for n in range(int(-(-top // step)) + 1)]


def number(value):
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2g}" if value < 1 else f"{value:.1f}"


def bars(title, subtitle, rows):
    """Horizontal bars. A row: (class, name, middle, low, high, label); a row of only a text is a heading."""
    left, right, top, step = 130, 175, 76, 30
    height = top + step * len(rows) + 42
    axis = steps(max((r[4] for r in rows if len(r) > 1), default=1))
    scale = (WIDTH - left - right) / axis[-1]
    bottom = top + step * len(rows)
    parts = [text(20, 32, title, "head"), text(20, 53, subtitle, "small")]
    for value in axis:
        x = left + value * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{top - 8}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(text(x, bottom + 20, number(value), "small", "middle"))
    for n, row in enumerate(rows):
        y = top + step * n
        if len(row) == 1:
            parts.append(text(20, y + 16, row[0], "small"))
            continue
        kind, name, middle, low, high, label = row
        end = left + max(high, middle) * scale
        parts.append(text(left - 10, y + 14, name, "", "end"))
        parts.append(
            f'<rect class="bar {kind}" x="{left}" y="{y}" width="{max(middle * scale, 1):.1f}" height="19" rx="2">'
            f"<title>{escape(name)}: {escape(label)}</title></rect>"
        )
        if high > low:
            parts.append(
                f'<path class="range" d="M{left + low * scale:.1f} {y + 9.5}H{left + high * scale:.1f}'
                f'M{left + low * scale:.1f} {y + 5}v9M{left + high * scale:.1f} {y + 5}v9"/>'
            )
        parts.append(text(end + 8, y + 14, label))
    return document(height, title, parts)


def curves(title, subtitle, shares, rows, unit):
    """Lines over quantiles. `shares`: the quantiles in percent; a row: (class, name, values)."""
    left, right, top, bottom, height = 64, 130, 76, 336, 400
    axis = steps(max(max(values) for _, _, values in rows))
    x_of = [left + (WIDTH - left - right) * share / 100 for share in shares]
    scale = (bottom - top) / axis[-1]
    parts = [text(20, 32, title, "head"), text(20, 53, subtitle, "small")]
    for value in axis:
        y = bottom - value * scale
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{WIDTH - right}" y2="{y:.1f}"/>')
        parts.append(text(left - 8, y + 4, number(value), "small", "end"))
    parts.append(text(left - 8, top - 10, unit, "small", "end"))
    for share in (0, 25, 50, 75, 90, 100):
        x = left + (WIDTH - left - right) * share / 100
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 5}"/>')
        parts.append(text(x, bottom + 20, f"{share} %", "small", "middle"))
    parts.append(text((left + WIDTH - right) / 2, bottom + 42, "of the deliveries took no longer", "small", "middle"))
    labels = []
    for kind, name, values in sorted(rows, key=lambda row: -row[2][-1]):
        points = " ".join(f"{x:.1f},{bottom - v * scale:.1f}" for x, v in zip(x_of, values))
        parts.append(f'<polyline class="line {kind}" points="{points}"><title>{escape(name)}</title></polyline>')
        # Names stand where their lines end, pushed down where they would cover each other.
        y = max([bottom - values[-1] * scale, *[taken + 18 for taken in labels[-1:]]])
        labels.append(y)
        parts.append(f'<circle class="dot {kind}" cx="{WIDTH - right + 10}" cy="{y:.1f}" r="4"/>')
        parts.append(text(WIDTH - right + 20, y + 4, name))
    return document(height, title, parts)
