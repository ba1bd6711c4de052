/** Chat sessions, over REST and as the socket they live on. */
import { Effect, Schema } from "effect"
import { NotImplemented } from "../../domain/errors.ts"
import { socket } from "../../http/endpoint.ts"
import { later } from "./later.ts"

const tag = "Sessions"
const row = { tag, scope: "orders" }

export const sessions = [
  later({ ...row, id: "autx.sessions.list", method: "GET", path: "/sessions", status: 200, feature: "Listing chat sessions" }),
  later({ ...row, id: "autx.sessions.get", method: "GET", path: "/sessions/{id}", status: 200, feature: "Reading a chat session" }),
  later({ ...row, id: "autx.sessions.messages", method: "GET", path: "/sessions/{id}/messages", status: 200, feature: "Reading a chat session's messages" }),
  later({ ...row, id: "autx.sessions.close", method: "DELETE", path: "/sessions/{id}", status: 204, feature: "Closing a chat session" }),
  later({ ...row, id: "autx.sessions.receipt", method: "GET", path: "/sessions/{id}/receipt", status: 200, feature: "The receipt of a chat session" }),
  socket({
    id: "autx.chat", method: "GET", path: "/ws/agent/{ticker}",
    docs: { summary: "Chat with an agent", description: "Not there yet: the upgrade answers 501. The credential will come in the first frame.", tag },
    params: Schema.Struct({ ticker: Schema.String }), errors: ["NotImplemented"],
    accept: () => Effect.fail(new NotImplemented({ feature: "Chat" }))
  })
]
