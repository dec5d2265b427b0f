"""The style of the page: one sheet for screens of any width, light and dark, and for paper."""

from __future__ import annotations

from fopru_graph.report.page.style import DARK, name_of

_LIGHT = {"ink": "#1f2328", "soft": "#57606a", "line": "#d9dce1", "paper": "#ffffff", "shade": "#f4f5f7"}
_LIGHT |= {"link": "#0a58a8", "warn": "#fff4e0"} | {name_of(colour): colour for colour in DARK}
_DARK = {"ink": "#e6e8eb", "soft": "#a3abb5", "line": "#3d444d", "paper": "#16191d", "shade": "#21262c"}
_DARK |= {"link": "#79b8f0", "warn": "#3a2e14"} | {name_of(colour): other for colour, other in DARK.items()}


def _colours(named: dict[str, str]) -> str:
    return ":root { " + " ".join(f"--{name}: {colour};" for name, colour in named.items()) + " }"


STYLE = f"""
{_colours(_LIGHT)}
@media (prefers-color-scheme: dark) {{ {_colours(_DARK)} }}
@media print {{ {_colours(_LIGHT)} }}
"""
STYLE += """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1.25rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink); }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
body { overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: 1.1rem; margin: 1.75rem 0 .5rem; }
h4 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p, ul, ol { margin: .5rem 0; }
a { color: var(--link); }
header p { margin: .25rem 0; }
nav ol { display: flex; flex-wrap: wrap; gap: .15rem 1.25rem; padding: 0; list-style: none; }
aside.warning { background: var(--warn); border: 1px solid var(--line); border-radius: .4rem; }
aside.warning { padding: .5rem 1rem; margin: 1rem 0; }
aside h2 { font-size: 1rem; margin: .25rem 0; border: 0; }
code, pre { font-family: ui-monospace,Menlo,Consolas,monospace; font-size: .85em; }
pre { white-space: pre-wrap; background: var(--shade); padding: .6rem .8rem; border-radius: .4rem; }
.scroll { overflow-x: auto; }
.figure svg { display: block; width: 100%; min-width: 44rem; height: auto; }
figure { margin: 1rem 0 2rem; }
figcaption, .note { color: var(--soft); font-size: .875rem; max-width: 60rem; }
img { max-width: 100%; height: auto; background: #fff; }
.table { margin: 1rem 0 2rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; min-width: min(100%,30rem); }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { padding: .2rem .6rem; text-align: right; vertical-align: top; white-space: nowrap; }
th { font-weight: 400; text-align: left; }
thead th { font-weight: 600; text-align: right; white-space: normal; vertical-align: bottom; }
thead th { border-bottom: 2px solid var(--ink); }
thead th.head { text-align: left; }
tbody { border-bottom: 1px solid var(--line); }
tbody tr:hover { background: var(--shade); }
small { display: block; white-space: pre-line; color: var(--soft); font-size: .78em; }
.pinned tbody th { position: sticky; left: 0; background: var(--paper); }
td.heat { background: rgb(0 114 178/calc(var(--heat)*.45)); }
td.lower { background: rgb(213 94 0/.16); }
td.higher { background: rgb(0 158 115/.18); }
.sign { font-size: .8em; }
@media (max-width:40rem) {
  body { padding: .75rem .75rem 3rem; }
  h1 { font-size: 1.35rem; }
  th, td { padding: .2rem .4rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  .scroll { overflow: visible; }
  .figure svg { min-width: 0; }
  figure, tr { break-inside: avoid; }
  h2, h3, h4, caption { break-after: avoid; }
  table { font-size: 7.5pt; }
  th, td { padding: .1rem .3rem; }
  td { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
