import { describe, expect, it } from "vitest"
import { type IndexFacts, indexPage } from "../../../src/web/indexPage.ts"

const facts: IndexFacts = {
  publicUrl: "https://gate.example", demo: false, version: "1.2.3",
  dialects: [{ name: "a/b", title: "<i>A</i>", description: "Takes `<b>` & \"more\"", mounts: ["/'a'"] }]
}
const isReady = { ready: true, reasons: [] }

describe("the index page", () => {
  it("escapes what a dialect says of itself, and shows its code as code", () => {
    const { html } = indexPage(facts, isReady)
    expect(html).toContain("<h3>&lt;i&gt;A&lt;/i&gt;</h3>")
    expect(html).toContain("Takes <code>&lt;b&gt;</code> &amp; &quot;more&quot;")
    expect(html).toContain("<code>/&#39;a&#39;</code>")
    expect(html).toContain(`href="/docs?dialect=a%2Fb"`)
  })

  it("says why the gateway is not ready", () => {
    const { html } = indexPage(facts, { ready: false, reasons: ["draining", "the database does not answer"] })
    expect(html).toContain(`data-ready="false"`)
    expect(html).toContain("draining, the database does not answer")
  })

  it("has commands to try only where the demo's agents are", () => {
    expect(indexPage(facts, isReady).html).not.toContain("curl")
    expect(indexPage({ ...facts, demo: true }, isReady).html).toContain("curl -i https://gate.example/v1/proxy/ECHO")
  })
})
