/** Chat sessions over REST; `chat.ts` has the socket that they live on. */
import { Effect } from "effect"
import { Answer, endpoint } from "../../http/endpoint.ts"
import { Chat } from "../../kernel/chat/Chat.ts"
import { commitErrors } from "./errors.ts"
import { page } from "./page.ts"
import * as wire from "./wire.ts"

const tag = "Sessions"

type Stored = Effect.Success<ReturnType<Chat["Service"]["get"]>>

const sessionView = ({ id, ticker, status, messageCount, consumed, startedAt, closedAt }: Stored) => ({
  id, agent_ticker: ticker, status, message_count: messageCount, consumed_usd: consumed, started_at: startedAt, closed_at: closedAt ?? null
})

export const sessions = [
  endpoint({
    id: "autx.sessions.list", method: "GET", path: "/sessions", scope: "orders",
    docs: { summary: "List your chat sessions", description: "Newest first.", tag },
    query: wire.SessionQuery, success: wire.Sessions,
    handle: ({ query }, { caller }) => Chat.use((chat) => chat.list(caller, { status: query.status, limit: query.limit + 1, after: query.cursor })).pipe(
      Effect.flatMap((rows) => page("/sessions", wire.SessionQuery, query, rows, ({ id }) => ({ ...query, cursor: id })))
    ),
    view: (rows) => rows.map(sessionView)
  }),
  endpoint({
    id: "autx.sessions.get", method: "GET", path: "/sessions/{id}", scope: "orders",
    docs: { summary: "Get a chat session", tag },
    params: wire.WithId, success: wire.Session, errors: ["NotFound"],
    handle: ({ params }, { caller }) => Chat.use((chat) => chat.get(caller, params.id)),
    view: sessionView
  }),
  endpoint({
    id: "autx.sessions.messages", method: "GET", path: "/sessions/{id}/messages", scope: "orders", auth: "loginOrKeyOrAgent",
    docs: { summary: "Read a chat session's messages", description: "Of finished turns, oldest first. The session's agent may read them too, with the token that it was called with.", tag },
    params: wire.WithId, query: wire.TurnQuery, success: wire.Messages, errors: ["NotFound"],
    handle: ({ params, query }, { caller }) => Chat.use((chat) => chat.exchanges(caller, params.id, query.limit + 1, query.cursor ?? 0)).pipe(
      Effect.flatMap((rows) => page(`/sessions/${params.id}/messages`, wire.TurnQuery, query, rows, ({ messageIndex }) => ({ ...query, cursor: messageIndex })))
    ),
    view: (turns) => turns.flatMap(({ orderId, prompt, answer, createdAt, completedAt }) => [
      { role: "user", content: prompt, created_at: createdAt },
      { role: "assistant", content: answer, order_id: orderId, created_at: completedAt }
    ])
  }),
  endpoint({
    id: "autx.sessions.close", method: "DELETE", path: "/sessions/{id}", scope: "orders", status: 204,
    docs: { summary: "Close a chat session", description: "A turn that is running ends, and costs nothing. 200 when the session was closed before.", tag },
    params: wire.WithId, success: wire.Session, errors: ["NotFound", ...commitErrors],
    handle: ({ params }, { caller }) => Chat.use((chat) => chat.close(caller, params.id).pipe(
      Effect.flatMap((closed) => Effect.map(chat.get(caller, params.id), (session) => new Answer(session, [], closed ? 204 : 200)))
    )),
    view: sessionView
  }),
  endpoint({
    id: "autx.sessions.receipt", method: "GET", path: "/sessions/{id}/receipt", scope: "orders", media: "application/pdf",
    docs: { summary: "Download the receipt of a closed chat session", description: "400 while the session is active, 422 when it cost nothing.", tag },
    params: wire.WithId, errors: ["NotFound", "InvalidRequest", "Overloaded"],
    handle: ({ params }, { caller }) => Chat.use((chat) => chat.receipt(caller, params.id))
  })
]
