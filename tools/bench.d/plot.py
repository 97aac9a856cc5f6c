"""The figures as a drawing: a small bar chart for each row, every bar measured by HAProxy's."""

from html import escape

from rows import ROWS, median
from table import number

# A column for each; what stands in it, and under which heading.
COLUMNS = [
    [("terminate", "TLS ends at the proxy")],
    [("pass", "TLS is passed through"), ("mesh", "TLS ends, mutual TLS begins")],
]
# What the others ought to be compared with. In a row that the first one lacks it is the second one.
MEASURES = ["haproxy", "envoy"]
# No gateways: they do less.
PLAIN = ["relay", "splice", "direct"]
# One of both ends of a distribution is enough to look at.
LEFT_OUT = ["terminate: 1 ping-pong, p99", "terminate: 32 ping-pongs, p50"]

MARGIN, COLUMN, GAP = 24, 440, 32
LABEL, BARS, LINE, BAR = 74, 250, 17, 11
LONGEST = 2.0

STYLE = """
  .page { fill: #ffffff } text { fill: #24292f; font: 13px system-ui, sans-serif } .quiet { fill: #57606a; font-size: 12px }
  .title { font-size: 17px; font-weight: 600 } .heading { font-size: 14px; font-weight: 600 } .ours { fill: #0b7285 } text.ours { font-weight: 600 }
  .other { fill: #9aa4ae } .plain { fill: none; stroke: #9aa4ae; stroke-dasharray: 2 2 } .measure { stroke: #57606a; stroke-dasharray: 3 3 }
  .cut { stroke: #ffffff; stroke-width: 3 } .goal { stroke: #c2410c; stroke-width: 2 } .rule { stroke: #d0d7de }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } text { fill: #e6edf3 } .quiet { fill: #9198a1 } .ours { fill: #3bc9db } .other { fill: #6e7681 }
    .plain { stroke: #6e7681 } .measure { stroke: #9198a1 } .cut { stroke: #0d1117 } .goal { stroke: #ff9d5c } .rule { stroke: #30363d }
  }
"""


def drawing(report):
    parts, bottom = [], 0
    for number_of_column, groups in enumerate(COLUMNS):
        left, top = MARGIN + number_of_column * (COLUMN + GAP), 104
        for mode, heading in groups:
            panels = [panel for row in ROWS if (panel := bars(report, row, mode))]
            if not panels:
                continue
            parts.append(f'<text class="heading" x="{left}" y="{top}">{escape(heading)}</text>'
                         f'<line class="rule" x1="{left}" x2="{left + COLUMN}" y1="{top + 8}" y2="{top + 8}"/>')
            top += 32
            for row, measure, lines in panels:
                parts.append(panel_drawn(row, measure, lines, left, top))
                top += 24 + len(lines) * LINE + 14
            top += 14
        bottom = max(bottom, top)
    width = 2 * MARGIN + len(COLUMNS) * COLUMN + (len(COLUMNS) - 1) * GAP
    height = bottom + 4
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">\n'
            f"<title>{escape(told(report))}</title>\n<style>{STYLE}</style>\n"
            f'<rect class="page" width="{width}" height="{height}" rx="8"/>\n{legend(report)}\n' + "\n".join(parts) + "\n</svg>\n")


def told(report):
    return f"What Portcullis costs beside others, {report['date']}, commit {report['commit']}"


def legend(report):
    y = 66
    return (f'<text class="title" x="{MARGIN}" y="34">{escape(told(report))}</text>'
            f'<text class="quiet" x="{MARGIN}" y="{y}">Shorter is better.</text>'
            f'<rect class="other" x="144" y="{y - 10}" width="26" height="{BAR}"/><text class="quiet" x="176" y="{y}">a proxy</text>'
            f'<rect class="plain" x="236.5" y="{y - 9.5}" width="26" height="{BAR - 1}"/><text class="quiet" x="269" y="{y}">no gateway: plain relays, the server alone</text>'
            f'<line class="measure" x1="540" x2="540" y1="{y - 12}" y2="{y + 3}"/><text class="quiet" x="547" y="{y}">HAProxy (else Envoy)</text>'
            f'<line class="goal" x1="686" x2="686" y1="{y - 12}" y2="{y + 3}"/><text class="quiet" x="693" y="{y}">the goal of Portcullis</text>')


def bars(report, row, mode):
    """Each subject's figure, and the one that is measured by; nothing, if there is none of either."""
    if not row.name.startswith(f"{mode}: ") or row.name in LEFT_OUT:
        return None
    found = [(subject, median(report, row, subject)) for subject in report["subjects"]]
    lines = [(subject, figure) for subject, figure in found if figure is not None]
    known = dict(lines)
    measure = next((known[name] for name in MEASURES if known.get(name)), None)
    if measure is None:
        return None
    goal = min((bound * known[subject] if subject else bound for subject, bound in row.goals if subject is None or subject in known), default=None)
    return row, (measure, goal), lines


def panel_drawn(row, measures, lines, left, top):
    measure, goal = measures
    scale = BARS / LONGEST / measure
    start = left + LABEL
    _, _, title = row.name.partition(": ")
    title = title[0].upper() + title[1:]
    parts = [f'<text x="{left}" y="{top + 4}">{escape(title)} <tspan class="quiet">({escape(row.unit)})</tspan></text>']
    first = top + 14
    for index, (subject, figure) in enumerate(lines):
        y = first + index * LINE
        length = min(figure * scale, BARS)
        kind = "ours" if subject == "portcullis" else "plain" if subject in PLAIN else "other"
        # An outline lies half a unit outside of its shape.
        inset = 0.5 if kind == "plain" else 0
        parts.append(f'<text class="{"ours" if kind == "ours" else "quiet"}" x="{left}" y="{y + 10}">{subject}</text>')
        parts.append(f'<rect class="{kind}" x="{start + inset}" y="{y + inset}" width="{max(length - 2 * inset, 0.5):.1f}" height="{BAR - 2 * inset}"/>')
        if figure * scale > BARS:
            x = start + BARS - 14
            parts.append(f'<line class="cut" x1="{x}" x2="{x + 5}" y1="{y + BAR + 1}" y2="{y - 1}"/>')
        share = figure / measure
        parts.append(f'<text class="{"ours" if kind == "ours" else "quiet"}" x="{start + max(length, BARS / LONGEST) + 8:.1f}" y="{y + 10}">'
                     f"{number(figure)} <tspan>· {share:.2f}×</tspan></text>")
        if kind == "ours" and goal is not None and goal * scale <= BARS:
            x = start + goal * scale
            parts.append(f'<line class="goal" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 3}" y2="{y + BAR + 3}"/>')
    x, last = start + BARS / LONGEST, first + len(lines) * LINE - (LINE - BAR)
    parts.append(f'<line class="measure" x1="{x}" x2="{x}" y1="{first - 4}" y2="{last + 4}"/>')
    return "".join(parts)
