/** Examples of chat: its sessions over REST, and the handshake of its socket. What goes over that is in `real/chat*.test.ts`. */
import { ChatSocket } from "../../support/ChatSocket.ts"
import type { Person, World } from "../../support/World.ts"
import type { Examples } from "../Example.ts"

const noSession = { detail: "No such chat session among yours" }
const respond = () => ({ headers: { "content-type": "text/plain" }, body: "All is well" })
const active = { id: "<session>", agent_ticker: "<ticker>", status: "active", message_count: 1, consumed_usd: "0.50", started_at: "<time>", closed_at: null }

/** A session with so many turns at $0.50; its id. */
const chatted = async (world: World, caller: Person, turns: number, isClosed: boolean): Promise<string> => {
  const agent = await world.agent({ price: "0.50", respond })
  await caller.fund("5.00")
  const chat = await ChatSocket.open(world, agent.ticker, (await caller.key("orders")).key)
  for (let turn = 0; turn < turns; turn++) await chat.turn("Analyze this data")
  if (isClosed) chat.send({ type: "close" })
  else chat.close()
  await chat.closed
  return chat.session["session_id"] as string
}
const ofAnother = (path: string, more: object = {}) => ({
  NotFound: {
    request: async (world: World) => ({ path: `/sessions/${await chatted(world, await world.user(), 1, true)}${path}`, ...more }),
    status: 404, answer: noSession
  }
})

export const sessions: Examples = {
  "autx.sessions.list": {
    success: {
      request: async (world, caller) => {
        await chatted(world, caller, 1, false)
        await chatted(world, caller, 1, true)
        return { path: "/sessions/?status=active" }
      },
      answer: [active]
    },
    refusals: {}
  },
  "autx.sessions.get": {
    success: { request: async (world, caller) => ({ path: `/sessions/${await chatted(world, caller, 1, true)}` }), answer: { ...active, status: "closed", closed_at: "<time>" } },
    refusals: ofAnother("")
  },
  "autx.sessions.messages": {
    success: {
      request: async (world, caller) => ({ path: `/sessions/${await chatted(world, caller, 1, false)}/messages` }),
      answer: [
        { role: "user", content: "Analyze this data", created_at: "<time>" },
        { role: "assistant", content: "All is well", order_id: "<id>", created_at: "<time>" }
      ]
    },
    refusals: ofAnother("/messages")
  },
  "autx.sessions.close": {
    success: { request: async (world, caller) => ({ path: `/sessions/${await chatted(world, caller, 1, false)}` }), answer: undefined },
    refusals: ofAnother("")
  },
  "autx.sessions.receipt": {
    success: {
      request: async (world, caller) => ({ path: `/sessions/${await chatted(world, caller, 1, true)}/receipt` }),
      answer: undefined,
      headers: { "content-type": /^application\/pdf$/, "content-length": /^\d{4,}$/ }
    },
    refusals: {
      ...ofAnother("/receipt"),
      InvalidRequest: {
        request: async (world, caller) => ({ path: `/sessions/${await chatted(world, caller, 1, false)}/receipt` }),
        status: 400, answer: { detail: "path.id: The session is still active: close it first", errors: [{ loc: ["path", "id"], msg: "The session is still active: close it first" }] }
      }
    }
  },
  "autx.chat": {
    success: {
      request: async (world) => ({ path: `/ws/agent/${(await world.agent()).ticker}` }),
      answer: undefined,
      headers: { "sec-websocket-accept": /^HSmrc0sMlYUkAGmm5OPpG2HaGWk=$/ }
    },
    refusals: {
      OriginForbidden: {
        request: async (world) => ({ path: `/ws/agent/${(await world.agent()).ticker}`, headers: { origin: "https://elsewhere.example" } }),
        status: 403, answer: { detail: "Pages of this origin may not connect: the operator allows origins with ALLOWED_ORIGINS" }
      }
    }
  }
}
