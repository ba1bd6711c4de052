import { describe, expect, it } from "vitest"
import { traceIdOf } from "../../../src/domain/traceContext.ts"

const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
const parent = "00f067aa0ba902b7"

describe("a traceparent", () => {
  it.each([`00-${trace}-${parent}-01`, `00-${trace}-${parent}-00`, `01-${trace}-${parent}-01-more`])("%s names its trace", (text) => {
    expect(traceIdOf(text)).toBe(trace)
  })

  it.each([
    "", `00-${trace}-${parent}`, `00-${trace}-${parent}-01-more`, `ff-${trace}-${parent}-01`, `00-${trace.toUpperCase()}-${parent}-01`,
    `00-${"0".repeat(32)}-${parent}-01`, `00-${trace}-${"0".repeat(16)}-01`, `00-${trace}-${parent}-01\n`, ` 00-${trace}-${parent}-01`, `01-${trace}-${parent}-01more`
  ])("%j is none", (text) => expect(traceIdOf(text)).toBeUndefined())
})
