/**
 * The dashboard's charts: one for the calls and one for the revenue of each day,
 * drawn by uPlot from the page's own table, so that the two can't disagree.
 * Without it the page lacks nothing but the charts.
 */
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"

const fileOf = (name: string): string => readFileSync(createRequire(import.meta.url).resolve(`uplot/dist/${name}`), "utf8")

/** The package's small build, as a module. */
export const uPlotScript = (): string => `${fileOf("uPlot.iife.min.js")}\nexport default uPlot\n`
export const uPlotStyle = (): string => fileOf("uPlot.min.css")

export const chartScript = `import uPlot from "/dashboard/uplot.js"

const height = 190
const days = [...document.querySelectorAll("#days tbody tr")].map(({ dataset, cells }) => ({ ...dataset, texts: [...cells].map((cell) => cell.textContent) }))
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name)
const font = "12px system-ui, -apple-system, 'Segoe UI', sans-serif"
const short = { calls: new Intl.NumberFormat("en-US", { notation: "compact" }), revenue: new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", notation: "compact" }) }

const draw = (figure, column, fill) => {
  const at = figure.querySelector(".plot")
  const said = figure.querySelector("output")
  const total = said.textContent
  const axis = { font, stroke: () => color("--soft"), ticks: { show: false } }
  const plot = new uPlot({
    width: at.clientWidth,
    height,
    padding: [8, 4, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false }, sync: { key: "days" } },
    scales: { x: { time: false, range: [-0.6, days.length - 0.4] }, y: { range: (_, least, most) => [0, most > 0 ? most * 1.08 : 1] } },
    axes: [
      { ...axis, grid: { show: false }, size: 40, splits: () => days.map((_, day) => day), values: () => days.map(({ weekday, date }) => weekday + "\\n" + date) },
      { ...axis, grid: { stroke: () => color("--line"), width: 1 }, border: { show: false }, size: 52, space: 28, incrs: column === "calls" ? [1, 2, 5].flatMap((step) => Array.from({ length: 15 }, (_, zeros) => step * 10 ** zeros)).sort((a, b) => a - b) : undefined, values: (_, ticks) => ticks.map((tick) => short[column].format(tick)) }
    ],
    series: [{}, { fill: () => color(fill), width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.62, 72], radius: [0.12, 0] }) }],
    hooks: { setCursor: [({ cursor }) => {
      const day = days[cursor.idx]
      said.textContent = day === undefined ? total : day.texts[0] + ": " + day.texts[column === "calls" ? 1 : 2]
    }] }
  }, [days.map((_, day) => day), days.map((day) => Number(day[column]))], at)
  new ResizeObserver(() => plot.setSize({ width: at.clientWidth, height })).observe(at)
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot.redraw(false))
}

draw(document.querySelector("#calls"), "calls", "--calls")
draw(document.querySelector("#revenue"), "revenue", "--revenue")
`
