/** How the chat page looks: one column, the talk between what never scrolls away, from a phone's width up, light and dark. */
export const chatStyle = `
:root {
  color-scheme: light dark;
  --ground: #fbfaf7; --raised: #fff; --ink: #1f2430; --soft: #5d6472; --line: #e4dfd4; --link: #0b5d8a; --mine: #e3eef5; --good: #1f8a4c; --bad: #b3541e; --on: #fff;
}
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171d; --raised: #1b1f27; --ink: #e9e6df; --soft: #a0a6b1; --line: #2e343f; --link: #79bfe8; --mine: #1d3040; --good: #52c282; --bad: #f0a35e; --on: #10131a; }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
html, body { height: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; overflow-wrap: anywhere; }
main { display: flex; flex-direction: column; height: 100dvh; max-width: 46rem; margin: 0 auto; padding: 0 1rem; }
a { color: var(--link); }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: .3rem; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: .35rem 1rem; padding: .8rem 0 .7rem; border-bottom: 1px solid var(--line); }
header a { display: flex; align-items: center; gap: .5rem; color: inherit; font-weight: 700; text-decoration: none; }
header img { width: 1.6rem; height: 1.6rem; }
#money { margin-left: auto; color: var(--soft); font-size: .875rem; font-variant-numeric: tabular-nums; text-align: right; }
#money b { color: var(--ink); }
form { margin: 0; }
#setup { display: grid; grid-template-columns: 1fr 1fr; gap: .7rem 1rem; padding: .9rem 0; border-bottom: 1px solid var(--line); }
#setup p { grid-column: 1 / -1; margin: 0; color: var(--soft); font-size: .9375rem; }
label { display: flex; flex-direction: column; gap: .2rem; font-size: .8125rem; color: var(--soft); }
input, select, textarea { width: 100%; padding: .5rem .65rem; border: 1px solid var(--line); border-radius: .5rem; background: var(--raised); color: var(--ink); font: inherit; }
button { white-space: nowrap; padding: .5rem .9rem; border: 1px solid var(--line); border-radius: .5rem; background: var(--raised); color: var(--ink); font: inherit; cursor: pointer; }
button:hover:not(:disabled) { border-color: var(--soft); }
button:disabled { opacity: .5; cursor: default; }
button.main { background: var(--link); border-color: var(--link); color: var(--on); font-weight: 600; }
#setup.talking label:nth-of-type(2), #setup.talking p { display: none; }
#setup.talking { grid-template-columns: 1fr; padding: .6rem 0; }
#key { display: flex; gap: .5rem; }
#log { flex: 1; min-height: 0; overflow-y: auto; padding: 1rem 0; }
#log > * { margin: 0 0 .8rem; }
.mine, .theirs { width: fit-content; max-width: min(100%, 38rem); padding: .55rem .85rem; border-radius: .9rem; white-space: pre-wrap; }
.mine { margin-left: auto !important; background: var(--mine); border-bottom-right-radius: .2rem; }
.theirs { background: var(--raised); border: 1px solid var(--line); border-bottom-left-radius: .2rem; min-width: 3rem; min-height: 2.7rem; }
.theirs[aria-busy="true"]::after { content: "▍"; color: var(--soft); }
@media (prefers-reduced-motion: no-preference) { .theirs[aria-busy="true"]::after { animation: blink 1s steps(2) infinite; } }
@keyframes blink { 50% { opacity: 0; } }
.note { color: var(--soft); font-size: .8125rem; font-variant-numeric: tabular-nums; }
.note.bad { color: var(--bad); }
#composer { display: flex; gap: .5rem; align-items: flex-end; padding: .7rem 0; border-top: 1px solid var(--line); }
#prompt { flex: 1; resize: none; max-height: 11rem; field-sizing: content; }
footer { display: flex; flex-wrap: wrap; gap: .3rem 1rem; align-items: center; padding: 0 0 .8rem; color: var(--soft); font-size: .8125rem; }
footer button { padding: .15rem .6rem; font-size: .8125rem; }
#state { margin-right: auto; }
@media (max-width: 34rem) { #setup { grid-template-columns: 1fr; } main { padding: 0 .8rem; } }
`
