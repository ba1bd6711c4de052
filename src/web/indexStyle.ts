/** How the index page looks: light and dark as the reader has it, from a phone's width up, with the fonts of the reader's machine. */
export const indexStyle = `
:root {
  color-scheme: light dark;
  --ground: #fbfaf7; --raised: #fff; --ink: #1f2430; --soft: #5d6472; --line: #e4dfd4; --link: #0b5d8a; --code: #f4f1ea; --good: #1f8a4c; --bad: #b3541e;
}
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171d; --raised: #1b1f27; --ink: #e9e6df; --soft: #a0a6b1; --line: #2e343f; --link: #79bfe8; --code: #10131a; --good: #52c282; --bad: #f0a35e; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", sans-serif; overflow-wrap: break-word; }
main { max-width: 46rem; margin: 0 auto; padding: clamp(1.5rem, 6vw, 4rem) 1.25rem 3rem; }
a { color: var(--link); text-underline-offset: .18em; text-decoration-thickness: .06em; }
a:hover { text-decoration-thickness: .12em; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: .2rem; }
h1, h2, h3, p { margin: 0; }
h1 { display: flex; align-items: center; gap: .7rem; font-size: 2.1rem; line-height: 1.2; letter-spacing: -.02em; font-weight: 700; }
h1 img { width: 2.5rem; height: 2.5rem; }
h2 { margin: 3rem 0 1rem; font-size: .8125rem; font-weight: 600; letter-spacing: .08em; text-transform: uppercase; color: var(--soft); }
h3 { font-size: 1.0625rem; }
.lead { margin-top: 1rem; font-size: 1.1875rem; line-height: 1.5; max-width: 36rem; }
.soft { color: var(--soft); }
.status { display: flex; flex-wrap: wrap; align-items: baseline; gap: .3rem .6rem; margin-top: 1.25rem; font-size: .9375rem; color: var(--soft); }
.status b { font-weight: 600; color: var(--state); }
.status b::before { content: ""; display: inline-block; width: .6rem; height: .6rem; margin-right: .5rem; border-radius: 50%; background: var(--state); }
.status[data-ready="true"] { --state: var(--good); } .status[data-ready="false"] { --state: var(--bad); }
.status[data-ready="true"] .not, .status[data-ready="false"] .yes { display: none; }
ol { list-style: none; margin: 0; padding: 0; counter-reset: step; }
li { counter-increment: step; }
li + li { margin-top: 1.75rem; }
li > div { display: flex; align-items: baseline; gap: .75rem; }
li > div::before { content: counter(step); color: var(--soft); font-variant-numeric: tabular-nums; }
li p { flex: 1; }
li button { padding: .1rem .65rem; border: 1px solid var(--line); border-radius: .4rem; background: var(--raised); color: var(--soft); font: inherit; font-size: .8125rem; cursor: pointer; }
li button:hover { color: var(--ink); border-color: var(--soft); }
code, pre { font: .875rem/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { margin: .6rem 0 0; padding: .85rem 1rem; background: var(--code); border: 1px solid var(--line); border-radius: .6rem; overflow-x: auto; }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
.card { padding: 1.1rem 1.25rem 1.2rem; background: var(--raised); border: 1px solid var(--line); border-radius: .7rem; }
.card p { margin-top: .4rem; }
.card code { padding: .1rem .35rem; background: var(--code); border-radius: .3rem; }
.links { display: flex; flex-wrap: wrap; gap: .4rem 1.25rem; margin-top: .9rem; }
.links a { padding: .2rem 0; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .55rem 0; border-top: 1px solid var(--line); text-align: left; vertical-align: top; font-weight: 400; }
th { width: 9rem; padding-right: 1rem; }
tr:last-child > * { border-bottom: 1px solid var(--line); }
`
