"""The page's style sheet: light and dark by the reader's preference, one column on a phone, and on paper as it is.

Gains and losses are blue and orange, which all kinds of colour vision tell apart; every cell's text keeps its contrast.
"""

from __future__ import annotations

from collections.abc import Mapping

_SYSTEM_FONTS = 'system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif'
_LIGHT = {
    "paper": "#ffffff", "ink": "#1c2127", "soft": "#5c6670", "rule": "#d9dee3", "grid": "#e8ebee",
    "good": "#1b6fae", "bad": "#c0392b",
    "bar": "#7f98b2", "mark": "#1c2127", "running": "#b4bfca",
    "missed": "#d9691e", "recovered": "#1b6fae", "lost": "#a4133c", "skipped": "#8a8f98",
    "live": "#cfd6dd", "recovering": "#e9a15b", "stale": "#8e5ea2", "down": "#3a4149",
    "s0": "#1b6fae", "s1": "#d9691e", "s2": "#3f8f5f", "s3": "#8e5ea2", "s4": "#b08900", "s5": "#5c6670",
}  # fmt: skip
_DARK = {
    "paper": "#14181c", "ink": "#e3e7eb", "soft": "#9aa5b0", "rule": "#333b44", "grid": "#242b32",
    "good": "#5aa9e6", "bad": "#ff7b6b",
    "bar": "#66809b", "mark": "#e3e7eb", "running": "#4d5864",
    "missed": "#f08c3e", "recovered": "#5aa9e6", "lost": "#ff6b8b", "skipped": "#8a939e",
    "live": "#39424c", "recovering": "#b9702c", "stale": "#b58acb", "down": "#c3cad2",
    "s0": "#5aa9e6", "s1": "#f08c3e", "s2": "#6fc08f", "s3": "#c39bd8", "s4": "#d9b63b", "s5": "#9aa5b0",
}  # fmt: skip
# From nothing to the largest; the ink of the scheme is legible on all of them.
_LIGHT_HEAT = {
    "p": ("#edf4fa", "#d8e8f5", "#c1dbef", "#a8cde9", "#8dbde2", "#74afdb"),
    "n": ("#fdf1e7", "#fbe2cd", "#f8d1b0", "#f5be90", "#f1aa70", "#ec9650"),
}
_DARK_HEAT = {
    "p": ("#17222c", "#193044", "#1b3e5c", "#1d4c74", "#1f5a8c", "#2268a4"),
    "n": ("#261d16", "#3a2617", "#502f17", "#673916", "#7f4314", "#984e12"),
}

_RULES = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:14px/1.45 FONTS;font-variant-numeric:tabular-nums;
-webkit-text-size-adjust:100%}
main{max-width:1180px;margin:0 auto;padding:28px 24px 48px}
h1{font-size:26px;line-height:1.2;margin:0}
h1 span{font-weight:400;color:var(--soft);font-size:16px;margin-left:10px}
h2{font-size:17px;margin:36px 0 10px;padding-top:10px;border-top:1px solid var(--rule)}
p{margin:8px 0}
.verdict{margin:10px 0 14px;font-size:15px}
.verdict b{margin-right:8px;color:var(--good)}
.verdict.bad b{color:var(--bad)}
.note{color:var(--soft);font-size:12.5px;max-width:110ch}
dl.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:6px 28px;margin:12px 0 0}
dl.facts div{min-width:0}
dt{color:var(--soft);font-size:12px}
dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto;max-width:100%}
.table{margin:12px 0;min-width:0}
table{border-collapse:collapse;font-size:13px}
caption{text-align:left;font-weight:600;padding:0 0 4px;white-space:nowrap}
th,td{padding:3px 18px 3px 0;text-align:left;vertical-align:top;white-space:nowrap}
thead th{font-weight:400;color:var(--soft);border-bottom:1px solid var(--rule)}
tbody th{font-weight:400}
tbody tr+tr>*{border-top:1px solid var(--grid)}
.n{text-align:right}
.z{color:var(--soft)}
td.alert{color:var(--bad);font-weight:600}
.heat th,.heat td{padding:4px 10px}
.heat th:first-child{padding-left:0}
.heat tbody tr+tr>*{border-top:1px solid var(--paper)}
.heat td{border-left:1px solid var(--paper);min-width:76px}
figure{margin:12px 0;min-width:0}
figcaption{font-weight:600;font-size:13px;margin-bottom:4px}
svg{display:block;width:100%;height:auto;overflow:visible}
.wide svg{min-width:760px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:4px 40px;align-items:start}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,262px),1fr));gap:4px 20px}
.tables{display:flex;flex-wrap:wrap;gap:4px 40px;align-items:flex-start}
text{font:11px FONTS;font-variant-numeric:tabular-nums;fill:var(--ink)}
text.soft{fill:var(--soft)}
text.small{font-size:10px;fill:var(--soft)}
text.name{font-weight:600}
path{fill:none}
.grid{stroke:var(--grid)}
.axis{stroke:var(--rule)}
.mark{stroke:var(--mark);stroke-width:.8;opacity:.75}
.mark.strong{stroke-width:1.8;opacity:1}
.end{stroke:var(--bad);stroke-dasharray:3 3}
.line{stroke-width:1.4;stroke-linejoin:round}
.dot{stroke-width:3.6;stroke-linecap:round}
.whisker{stroke-width:1.2;opacity:.5}
footer{margin-top:36px;padding-top:10px;border-top:1px solid var(--rule)}
@media (max-width:600px){main{padding:18px 14px 32px}h1 span{display:block;margin:4px 0 0}.heat td{min-width:64px}
.heat th,.heat td{padding:4px 6px}th,td{padding-right:14px}}
@media print{main{max-width:none;padding:0}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
figure,tr,.table,.note{break-inside:avoid}h2{break-after:avoid}.scroll{overflow:visible}.wide svg{min-width:0}
table{font-size:11px}
.pair{grid-template-columns:1fr 1fr}.charts{grid-template-columns:repeat(3,1fr)}h2+.note{break-after:avoid}h2{margin-top:22px}
.heat td{min-width:56px}}
@page{margin:14mm}
"""


def style() -> str:
    """The whole sheet. On paper the light colours hold, whatever the screen has."""
    filled = ("bar", "running", "missed", "recovered", "lost", "skipped", "live", "recovering", "stale", "down")
    series = ("s0", "s1", "s2", "s3", "s4", "s5")
    rules = "".join(f".{name}{{fill:var(--{name})}}" for name in filled)
    rules += "".join(f".{name}{{stroke:var(--{name})}}" for name in series)
    rules += "".join(f"td.{side}{step}{{background:var(--{side}{step})}}" for side in "pn" for step in range(1, 7))
    light, dark = _variables(_LIGHT, _LIGHT_HEAT), _variables(_DARK, _DARK_HEAT)
    return (
        f":root{{color-scheme:light dark;{light}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        f"{_RULES.replace('FONTS', _SYSTEM_FONTS)}{rules}"
    )


def _variables(colours: Mapping[str, str], heat: Mapping[str, tuple[str, ...]]) -> str:
    steps = {f"{side}{step}": colour for side, all_of in heat.items() for step, colour in enumerate(all_of, 1)}
    return "".join(f"--{name}:{colour};" for name, colour in {**colours, **steps}.items())
