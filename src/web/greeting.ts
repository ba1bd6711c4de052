/** What a first start prints: where the gateway is, and lines to paste that prove it works. */
import type { Settings } from "../config.ts"
import type { DemoFile } from "../kernel/Demo.ts"

export const greeting = (settings: Settings, demo: DemoFile): string => {
  const base = demo.base_url
  const auth = `-H 'Authorization: Bearer ${demo.api_key}'`
  const json = "-H 'Content-Type: application/json'"
  const summ = demo.agents.find((agent) => agent.ticker === "SUMM")
  return `
  Tollgate is listening on ${base}   (chat: ${base}/chat, docs: ${base}/docs)

  A free call through the gateway to the agent ECHO:
    curl -i ${base}/v1/proxy/ECHO ${auth} ${json} -d '{"prompt":"hello"}'

  A paid order, $0.01, to the agent SUMM:
    curl ${base}/v1/orders/ ${auth} ${json} -d '{"agent_id":"${summ?.id ?? ""}","prompt":"Tollgate meters calls. It loses none. It is small."}'

  What it cost:
    curl ${base}/v1/credits/balance ${auth}
    curl ${base}/v1/credits/transactions ${auth}

  The same agent as a service of the Agent Commerce Framework:
    curl -i ${base}/acf/api/v1/proxy/${summ?.id ?? ""} -H 'Authorization: Bearer ${demo.acf_key}' ${json} -d '{"prompt":"hello"}'

  A chat with SUMM in another terminal, $0.01 a message:
    npm run chat -- SUMM

  Login, key and agents: ${settings.dataDir}/demo.json   Stop: Ctrl-C

`
}
