import { it } from "vitest"
import { GatewayProcess, storm, tally } from "../support/GatewayProcess.ts"
import { LoopbackAgent } from "../support/LoopbackAgent.ts"
import { freshDatabase } from "../support/postgres.ts"
import { startCutProxy } from "../support/CutProxy.ts"
it("x", async () => {
  const { env, options } = await freshDatabase()
  const proxy = await startCutProxy(options)
  const g = await GatewayProcess.start({ ...env, PGHOST: proxy.options.host })
  const agent = await new LoopbackAgent().listen()
  const b = await g.person("10.00"), s = await g.person()
  const l = await g.list(s, agent.url, "0.01")
  const f = await g.list(s, agent.url, "0")
  const key = await g.key(b)
  const call = (t: any) => g.call("POST", `/v1/proxy/${t.ticker}`, {token: key, body: {a:1}})
  const said = async (t: any) => { const r = await call(t); return `${r.status} ${r.text.slice(0,150)}` }
  console.log(await said(l), await said(f))
  const t0 = Date.now()
  let n = 0
  const r = await storm(400, 32, async () => { const x = await call(l); if (++n === 100) { proxy.sever(); proxy.restore() } return x })
  console.log(Date.now() - t0, tally(r))
  for (let i = 0; i < 8; i++) {
    const t = Date.now()
    const a = await said(f); const p = await said(l)
    console.log(Date.now() - t0, a, p, (await g.call("GET", "/ready")).text)
    await new Promise((r) => setTimeout(r, 300))
  }
  console.log(g.stderr().slice(0, 8000))
  await g.kill9(); agent.close(); 
}, 60000)
