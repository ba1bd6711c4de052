/**
 * Small line charts as one SVG text, side by side in rows: nodes on a
 * logarithmic axis, values on a linear one or, where they span much, a
 * logarithmic one. No scripts, no fonts of its own; readable on light and dark.
 */
export interface Line {
  readonly name: string
  /** One for each x; NaN is left out. */
  readonly values: ReadonlyArray<number>
  /** A bar or a bound: dashed. */
  readonly isBound?: boolean
}

export interface Panel {
  readonly title: string
  readonly unit: string
  readonly isLog?: boolean
  readonly lines: ReadonlyArray<Line>
}

const [width, height, columns] = [400, 270, 2]
const inner = { left: 56, right: 16, top: 34, bottom: 62 }
const colours = ["#2563eb", "#dc2626", "#059669", "#a855f7"]
const bound = "#8a8a8a"
const ink = "#808080"

export const plot = (title: string, note: string, xs: ReadonlyArray<number>, panels: ReadonlyArray<Panel>): string => {
  const rows = Math.ceil(panels.length / columns)
  const [w, h] = [columns * width, rows * height + 70]
  const drawn = panels.map((panel, at) => `<g transform="translate(${at % columns * width} ${40 + Math.floor(at / columns) * height})">${drawPanel(panel, xs)}</g>`)
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${w} ${h}" font-family="system-ui, sans-serif" font-size="11" fill="${ink}">
<text x="16" y="24" font-size="16">${escape(title)}</text>
${drawn.join("\n")}
<text x="16" y="${h - 12}" font-size="10">${escape(note)}</text>
</svg>
`
}

const drawPanel = ({ title, unit, isLog = false, lines }: Panel, xs: ReadonlyArray<number>): string => {
  const x = scale(Math.min(...xs), Math.max(...xs), inner.left, width - inner.right, true)
  const values = lines.flatMap(({ values }) => values).filter(Number.isFinite)
  const ticks = isLog ? powersOf10(values) : roundTicks(Math.max(...values))
  const y = scale(ticks[0]!, ticks.at(-1)!, height - inner.bottom, inner.top, isLog)
  const parts = [`<text x="${inner.left}" y="18" font-size="12">${escape(title)}, ${escape(unit)}</text>`]
  for (const tick of ticks) {
    parts.push(`<path d="M${inner.left} ${y(tick)}H${width - inner.right}" stroke="${ink}" stroke-opacity=".25"/>`)
    parts.push(`<text x="${inner.left - 6}" y="${round(y(tick) + 4)}" text-anchor="end">${shown(tick)}</text>`)
  }
  for (const tick of labelled(xs)) parts.push(`<text x="${x(tick)}" y="${height - inner.bottom + 15}" text-anchor="middle">${tick}</text>`)
  let bounds = 0
  lines.forEach(({ name, values, isBound = false }, at) => {
    const colour = isBound ? bound : colours[(at - bounds) % colours.length]!
    if (isBound) bounds++
    const points = values.flatMap((value, index) => Number.isFinite(value) ? [`${x(xs[index]!)} ${y(Math.max(value, ticks[0]!))}`] : [])
    parts.push(`<path d="M${points.join("L")}" fill="none" stroke="${colour}" stroke-width="${isBound ? 1 : 2}"${isBound ? ` stroke-dasharray="4 3"` : ""}/>`)
    const [left, top] = [inner.left + at % 2 * 168, height - inner.bottom + 32 + Math.floor(at / 2) * 14]
    parts.push(`<path d="M${left} ${top - 4}h14" stroke="${colour}" stroke-width="2"${isBound ? ` stroke-dasharray="4 3"` : ""}/><text x="${left + 18}" y="${top}">${escape(name)}</text>`)
  })
  return parts.join("")
}

const scale = (from: number, to: number, low: number, high: number, isLog: boolean) => {
  const by = isLog ? Math.log10 : (value: number): number => value
  const span = by(to) - by(from) || 1
  return (value: number): number => round(low + (by(value) - by(from)) / span * (high - low))
}

const round = (value: number): number => Math.round(value * 10) / 10

/** Four or five steps of 1, 2 or 5 times a power of ten from zero to above the largest. */
const roundTicks = (largest: number): ReadonlyArray<number> => {
  const rough = (largest || 1) / 4
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map((times) => times * power).find((each) => each >= rough)!
  return Array.from({ length: Math.ceil(largest / step - 1e-9) + 1 }, (_, at) => at * step)
}

const powersOf10 = (values: ReadonlyArray<number>): ReadonlyArray<number> => {
  const logs = values.filter((value) => value > 0).map(Math.log10)
  const [low, high] = [Math.floor(Math.min(...logs)), Math.ceil(Math.max(...logs))]
  return Array.from({ length: Math.max(1, high - low) + 1 }, (_, at) => 10 ** (low + at))
}

const labelled = (xs: ReadonlyArray<number>): ReadonlyArray<number> => xs.filter((value) => /^[1-9]0*$/.test(String(value)) && [1, 3].includes(Number(String(value)[0])))

const shown = (value: number): string => value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(0) : String(Number(value.toPrecision(3)))

const escape = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
