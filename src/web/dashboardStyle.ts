/** How the dashboard looks: as the index page does, wider, with figures that line up; from a phone's width up, light and dark. */
import { uPlotStyle } from "./dashboardScript.ts"

const style = `
:root {
  color-scheme: light dark;
  --ground: #fbfaf7; --raised: #fff; --ink: #1f2430; --soft: #5d6472; --line: #e4dfd4; --link: #0b5d8a; --code: #f4f1ea; --on: #fff;
  --good: #1f8a4c; --warn: #96650a; --bad: #b3391e; --calls: #3d7ea6; --revenue: #dd9b1f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171d; --raised: #1b1f27; --ink: #e9e6df; --soft: #a0a6b1; --line: #2e343f; --link: #79bfe8; --code: #10131a; --on: #10131a;
    --good: #52c282; --warn: #e6b450; --bad: #f0805e; --calls: #5aa7d6; --revenue: #f2b233;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; overflow-wrap: anywhere; }
main { max-width: 72rem; margin: 0 auto; padding: 1.25rem 1.25rem 3rem; }
a { color: var(--link); text-underline-offset: .18em; text-decoration-thickness: .06em; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: .3rem; }
h1, h2, h3, p, figure, dl, dd { margin: 0; }
h1 { font-size: 1.75rem; line-height: 1.2; letter-spacing: -.02em; }
h2 { margin: 2.5rem 0 .9rem; font-size: .8125rem; font-weight: 600; letter-spacing: .08em; text-transform: uppercase; color: var(--soft); }
code { font: .875rem/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: .3rem 1.25rem; margin-bottom: 1.5rem; }
header > a:first-child { display: flex; align-items: center; gap: .5rem; color: inherit; font-weight: 700; text-decoration: none; }
header img { width: 1.6rem; height: 1.6rem; }
header p { margin-left: auto; font-size: .875rem; }
.soft, header p { color: var(--soft); }
.card { padding: 1rem 1.15rem; background: var(--raised); border: 1px solid var(--line); border-radius: .7rem; min-width: 0; }
.tiles { display: grid; grid-template-columns: repeat(9, minmax(0, 1fr)); gap: .75rem; margin-top: 1.25rem; }
.tiles > div { display: flex; flex-direction: column-reverse; padding: .8rem .75rem; }
.tiles > div:nth-child(-n+2) { grid-column: span 2; }
.tiles dt { font-size: .8125rem; color: var(--soft); }
.tiles dd { font-size: 1.375rem; font-weight: 650; line-height: 1.25; letter-spacing: -.01em; font-variant-numeric: tabular-nums; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .75rem; align-items: start; }
.pair h2 { margin-top: 2.5rem; }
figcaption { display: flex; flex-wrap: wrap; align-items: baseline; gap: .2rem .75rem; margin-bottom: .5rem; }
figcaption h3 { font-size: .9375rem; font-weight: 600; }
figcaption output { color: var(--soft); font-size: .9375rem; font-variant-numeric: tabular-nums; }
.plot { height: 190px; overflow: hidden; }
.plot:empty { display: none; }
details { margin-top: .75rem; font-size: .9375rem; }
summary { color: var(--link); cursor: pointer; width: fit-content; }
table { width: 100%; border-collapse: collapse; font-size: .9375rem; }
th, td { padding: .55rem 0 .55rem 1rem; border-top: 1px solid var(--line); text-align: right; vertical-align: top; font-weight: 400; font-variant-numeric: tabular-nums; white-space: nowrap; }
thead th { border-top: 0; padding-top: 0; color: var(--soft); font-size: .8125rem; }
th:first-child { padding-left: 0; text-align: left; white-space: normal; }
tbody th bdi { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; font-weight: 500; }
tbody th small { color: var(--soft); font-size: .8125rem; }
tbody th small bdi { display: inline-block; max-width: 10rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; vertical-align: bottom; font-weight: 400; }
.bar { display: block; width: 100%; height: .45rem; margin-top: .35rem; border-radius: .25rem; background: var(--code); }
.bar rect { fill: var(--calls); }
.good { color: var(--good); } .warn { color: var(--warn); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.door { max-width: 26rem; margin: clamp(1rem, 10vh, 7rem) auto 0; }
.door form { display: grid; grid-template-columns: 1fr auto; gap: .4rem .5rem; margin: 1.25rem 0 .9rem; }
.door label { grid-column: 1 / -1; color: var(--soft); font-size: .875rem; }
.door input { min-width: 0; padding: .55rem .7rem; border: 1px solid var(--line); border-radius: .5rem; background: var(--raised); color: var(--ink); font: inherit; }
.door button { padding: .55rem 1rem; border: 1px solid var(--link); border-radius: .5rem; background: var(--link); color: var(--on); font: inherit; font-weight: 600; cursor: pointer; }
.door [role=alert] { min-height: 1.5em; color: var(--soft); }
@media (max-width: 72rem) {
  .tiles { grid-template-columns: repeat(10, minmax(0, 1fr)); }
  .tiles > div { grid-column: span 2; } .tiles > div:nth-child(-n+2) { grid-column: span 5; }
}
@media (max-width: 44rem) {
  main { padding: 1rem 1rem 2.5rem; }
  .pair { grid-template-columns: minmax(0, 1fr); }
  .tiles > div:nth-child(n) { grid-column: span 5; } .tiles > div:first-child { grid-column: 1 / -1; }
  .card { padding: .9rem .9rem; }
  table { font-size: .875rem; }
  th, td { padding-left: .6rem; }
  header p { margin-left: 0; }
}
`

let whole: string | undefined

/** With the charts' own style, from its package. */
export const dashboardStyle = (): string => whole ??= uPlotStyle() + style
