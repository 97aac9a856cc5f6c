"""The figures as Markdown, so that they can be pasted."""

import statistics

from rows import CALM, IDLE, MEASUREMENTS, RATES, Row, median, ratio, ratios, shown, values

NOTHING = "–"


def whole(report, earlier=None):
    """All there is to say of a run."""
    parts = [heading(report), figures(report, earlier), "What one CPU did (rates move with the machine):", rates(report)]
    parts += ["How even that was: portcullis in the best and in the worst round, and what other programs took of one CPU:", evenness(report)]
    return "\n\n".join(parts) + "\n"


def heading(report):
    options, machine = report["options"], report["machine"]
    rounds = len(report["rounds"])
    told = (f"{report['date']}, commit {report['commit']}: {plural(rounds, 'round')} of {options['secs']:g} s, medians;"
            f" {options['idle']:,} idle connections.")
    return f"{told}\n{place(machine)}, {report['congestion_control']}.\n\n{versions(report['versions'])}"


def place(machine):
    return f"{machine['cpu']}, {plural(machine['cpus'], 'CPU')}, Linux {machine['kernel']}, {machine['system']}"


def versions(found):
    return "\n".join(f"- {name}: {version}" for name, version in found.items())


def figures(report, earlier):
    subjects = report["subjects"]
    head = ["", "unit", *subjects, "goal"]
    lines = [head + (["earlier", "of relay's, then → now"] if earlier else [])]
    for row in shown(report):
        line = [row.name, row.unit, *(number(median(report, row, subject)) for subject in subjects), goals(report, row)]
        if earlier:
            then, now = ratio(earlier, row, "portcullis", "relay"), ratio(report, row, "portcullis", "relay")
            line += [number(median(earlier, row, "portcullis")), f"{number(then)} → {number(now)}"]
        lines.append(line)
    return table(lines)


def goals(report, row):
    """Each goal with what was reached, in the median of the rounds; it is an open question where others had the machine."""
    told, disturbed = [], (others(report, row) or 0) > CALM
    for subject, bound in row.goals:
        reached = median(report, row, "portcullis") if subject is None else ratio(report, row, "portcullis", subject)
        if reached is None:
            continue
        mark = "?" if disturbed else "✓" if reached <= bound else "✗"
        if subject is None:
            told.append(f"≤ {bound:g} {row.unit} {mark}")
        else:
            told.append(f"{reached:.2f} of {subject}, ≤ {bound:.2f} {mark}")
    return "; ".join(told)


def rates(report):
    lines = [["", "", *report["subjects"]]]
    for measurement, row in first_rows(report):
        if measurement.command in RATES:
            unit, key = RATES[measurement.command]
            rate = Row(row.name, unit, row.of, key)
            lines.append([row.name.removesuffix(", p50"), unit, *(number(median(report, rate, subject)) for subject in report["subjects"])])
    return table(lines)


def evenness(report):
    lines = [["", "unit", "best", "worst", "others took"]]
    for row in shown(report):
        own = values(report, row, "portcullis")
        if own:
            lines.append([row.name, row.unit, number(min(own)), number(max(own)), share(others(report, row))])
    return table(lines)


def others(report, row):
    """What programs that have no part in it took of one CPU, in the median; none, where only memory was measured."""
    measured = (figures.get(row.of, {}).values() for figures in report["rounds"])
    found = [figure["foreign"] for figures in measured for figure in figures if "foreign" in figure]
    return statistics.median(found) if found else None


def comparison(report):
    """This build beside another one."""
    lines = [["", "unit", "base", "this build", "ratio", "by round", "others took", ""]]
    for row in shown(report):
        each = ratios(report, row, "portcullis", "base")
        if each:
            taken = others(report, row)
            lines.append([row.name, row.unit, number(median(report, row, "base")), number(median(report, row, "portcullis")),
                          number(statistics.median(each)), f"{number(min(each))}–{number(max(each))}", share(taken), verdict(row, each, taken)])
    return table(lines)


def verdict(row, each, taken):
    """Something has changed only if every round says so, there were three, and the machine was calm. Memory is no matter of chance."""
    if (taken or 0) > CALM:
        return "disturbed"
    if len(each) < 3 and row.key != IDLE:
        return "too few rounds"
    if min(each) > 1.02:
        return "dearer"
    if max(each) < 0.98:
        return "cheaper"
    return ""


def first_rows(report):
    """Of each measurement, its first row."""
    for measurement in MEASUREMENTS:
        row = next((row for row in shown(report) if row.of == measurement.name), None)
        if row:
            yield measurement, row


def number(value):
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def share(value):
    return "" if value is None else f"{value:.0%}"


def plural(count, what):
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def table(lines):
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines = [lines[0], ["-" * max(width, 3) for width in widths], *lines[1:]]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines)
