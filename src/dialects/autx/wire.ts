/**
 * The shapes of autx on the wire: what a caller may send, with a bound on
 * everything, and what it gets. Names and forms are the published reference's.
 *
 * Money comes in as a JSON number or as decimal text; rows that take money hand
 * numbers over as the text that was written (`decimals`), so both are exact.
 * Money goes out as text with 2 to 6 decimals, except where the reference has
 * numbers (`service_price`, `total_revenue`, `amount_paid`, `platform_fee`).
 */
import { Schema } from "effect"
import { limits } from "../../config.ts"
import { Amount, Count, Id, Timestamp, Usd, UsdNumber, object, orElse, read, text } from "../../http/rows/fields.ts"

// Paths and pages.

export const WithId = Schema.Struct({ id: text(255, 1).annotate({ description: "The id" }) })
export const WithAgent = Schema.Struct({ id: text(255, 1).annotate({ description: "The agent's id or ticker; tickers in upper or lower case" }) })

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const textOf = (cursor: string): string => /^[\w-]{1,120}$/.test(cursor) ? Buffer.from(cursor, "base64url").toString("latin1") : ""
const cursorOf = (plain: string): string => Buffer.from(plain, "latin1").toString("base64url")
const notACursor = "Expected the cursor of a page before"
const cursorText = Schema.String.annotate({ description: "Where the next page begins: copy it from the `Link` header" })

/** The id of the last row of the page before. */
const Cursor = cursorText.pipe(Schema.decodeTo(Schema.String, read((cursor) => {
  const id = textOf(cursor)
  return uuid.test(id) ? id : undefined
}, notACursor, cursorOf)))

/** The same for agents, whose order is by a figure first. */
const AgentCursor = cursorText.pipe(Schema.decodeTo(
  Schema.Struct({ figure: Schema.BigInt, id: Schema.String }),
  read((cursor) => {
    const [, figure, id] = /^(\d{1,18}) (.{36})$/.exec(textOf(cursor)) ?? []
    return figure !== undefined && id !== undefined && uuid.test(id) ? { figure: BigInt(figure), id } : undefined
  }, notACursor, ({ figure, id }) => cursorOf(`${figure} ${id}`))
))

const Limit = Schema.String.annotate({ description: `Rows on one page, 1 to ${limits.pageRowsMax}; ${limits.pageRowsDefault} unless given`, examples: ["20"] }).pipe(
  Schema.decodeTo(Schema.Int, read((limit) => {
    const rows = /^\d{1,4}$/.test(limit) ? Number(limit) : 0
    return rows >= 1 && rows <= limits.pageRowsMax ? rows : undefined
  }, `Expected a whole number from 1 to ${limits.pageRowsMax}`, String)),
  orElse(String(limits.pageRowsDefault))
)

export const PageQuery = Schema.Struct({ limit: Limit, cursor: Schema.optionalKey(Cursor) })
export const LimitQuery = Schema.Struct({ limit: Limit })

// Auth.

const Email = text(320, 3).annotate({ description: "An email address", examples: ["ada@example.com"] })
const Password = text(1_024, 1).annotate({ description: "8 to 256 characters", format: "password" })
const Secret = text(512, 1)

export const LoginRequest = Schema.Struct({ email: Email, password: Password }).annotate(object("AutxLoginRequest"))
export const RefreshRequest = Schema.Struct({ refresh_token: Secret }).annotate(object("AutxRefreshRequest"))
export const PasswordChange = Schema.Struct({ current_password: Password, new_password: Password }).annotate(object("AutxPasswordChange"))
export const PasswordForgotten = Schema.Struct({ email: Email }).annotate(object("AutxPasswordForgotten"))
export const PasswordReset = Schema.Struct({ token: Secret, new_password: Password }).annotate(object("AutxPasswordReset"))
export const VerifyQuery = Schema.Struct({ token: Secret.annotate({ description: "From the link in the letter" }) })

export const User = Schema.Struct({
  id: Id, email: Schema.String, email_verified: Schema.Boolean, created_at: Timestamp
}).annotate({ identifier: "AutxUser" })
export const LoggedIn = Schema.Struct({
  access_token: Schema.String, refresh_token: Schema.String, token_type: Schema.Literal("bearer"),
  expires_in: Schema.Int.annotate({ description: "Seconds that the access token lives" }), user: User
}).annotate({ identifier: "AutxLoggedIn" })
/** What was done, or will be, in words. */
export const Done = Schema.Struct({ detail: Schema.String }).annotate({ identifier: "AutxDone" })
export const KeySet = Schema.Struct({
  keys: Schema.Array(Schema.Record(Schema.String, Schema.String))
}).annotate({ identifier: "AutxKeySet", description: "A JSON Web Key Set (RFC 7517)" })

// Links.

export const NewLink = Schema.Struct({
  dialect: text(50).annotate({ description: "The other product: `acf`" }),
  key: text(1_024, 1).annotate({ description: "A key of it, as it is sent behind `Bearer`: `key_id:secret`" })
}).annotate(object("AutxNewLink"))
export const Link = Schema.Struct({ dialect: Schema.String, owner_id: Schema.String, balance_usd: Usd }).annotate({ identifier: "AutxLink" })

// API keys.

const scopes = ["proxy", "orders", "agents", "*"] as const
const Scope = Schema.Literals(scopes)
const isScope = (name: string): name is typeof Scope.Type => scopes.some((scope) => scope === name)

const Scopes = Schema.Union([text(200), Schema.Array(text(50)).check(Schema.isMaxLength(20))]).annotate({
  description: "What the key may do: `proxy`, `orders`, `agents` or `*`, as text with commas or as a list", examples: ["proxy,orders", ["proxy", "orders"]]
}).pipe(Schema.decodeTo(Schema.Array(Scope), read<ReadonlyArray<typeof Scope.Type>, string | ReadonlyArray<string>>((wire) => {
  const names = [...new Set((typeof wire === "string" ? wire.split(",") : wire).map((name) => name.trim()))]
  return names.length > 0 && names.every(isScope) ? names : undefined
}, `Expected some of ${scopes.join(", ")}`, (names) => names.join(","))))

const BudgetWindow = Schema.Literals(["day", "month", "total"]).annotate({ description: "Days and months are UTC's" })
const NewBudget = Schema.Struct({ amount_usd: Amount, window: BudgetWindow }).annotate(object("AutxNewBudget"))
const oneOfEach = Schema.makeFilter<ReadonlyArray<typeof NewBudget.Type>>(
  (budgets) => new Set(budgets.map(({ window }) => window)).size === budgets.length || "Expected at most one budget for each window"
)

export const NewApiKey = Schema.Struct({
  name: text(200, 1).annotate({ description: "For people: which key is this", examples: ["My production key"] }),
  scopes: Scopes.pipe(orElse("proxy,orders")),
  expires_in_days: Schema.optionalKey(Schema.NullOr(Count(1, 3_650))),
  budgets: Schema.Array(NewBudget).check(Schema.isMaxLength(limits.budgetsPerKeyMax), oneOfEach).pipe(orElse([]))
}).annotate(object("AutxNewApiKey"))

const ScopeText = Schema.String.annotate({ examples: ["proxy,orders"] })
const keyFields = {
  id: Id, name: Schema.String, key_prefix: Schema.String.annotate({ description: "How the key begins", examples: ["autx_live_Zx81Qa"] }), scopes: ScopeText,
  status: Schema.Literals(["active", "revoked"]), expires_at: Schema.NullOr(Timestamp), created_at: Timestamp
}
export const CreatedApiKey = Schema.Struct({
  ...keyFields, key: Schema.String.annotate({ description: "The key itself, shown here and never again" })
}).annotate({ identifier: "AutxCreatedApiKey" })
export const ApiKey = Schema.Struct({
  ...keyFields,
  budgets: Schema.Array(Schema.Struct({
    amount_usd: Usd, window: BudgetWindow, spent_usd: Usd.annotate({ description: "Spent in the window of now" })
  }).annotate({ identifier: "AutxBudget" }))
}).annotate({ identifier: "AutxApiKey" })
export const ApiKeys = Schema.Array(ApiKey)

// Agents.

const manifestWith = <N extends Schema.Codec<number, any>>(bytes: N) => Schema.Struct({
  input: Schema.optionalKey(Schema.Struct({
    type: Schema.optionalKey(Schema.Literals(["json", "multipart"])),
    accepts_files: Schema.optionalKey(Schema.Boolean),
    file_types: Schema.optionalKey(Schema.Array(text(50)).check(Schema.isMaxLength(100))),
    max_size_bytes: Schema.optionalKey(bytes)
  })),
  output: Schema.optionalKey(Schema.Struct({
    type: Schema.optionalKey(text(100)),
    produces_files: Schema.optionalKey(Schema.Boolean),
    content_types: Schema.optionalKey(Schema.Array(text(100)).check(Schema.isMaxLength(100))),
    max_size_bytes: Schema.optionalKey(bytes)
  })),
  supports_sessions: Schema.optionalKey(Schema.Boolean)
})
const Manifest = manifestWith(Schema.Int).annotate({ identifier: "AutxManifest", description: "What the agent takes and gives" })
const NewManifest = manifestWith(Count(1, limits.relayBodyBytesMax)).annotate({ identifier: "AutxNewManifest", description: "What the agent takes and gives; every field is optional, each limit given is enforced" })

const Ticker = Schema.String.annotate({ description: "2 to 10 upper-case letters and digits, a letter first", examples: ["SUMM"] })
  .check(Schema.isPattern(/^[A-Z][A-Z0-9]{1,9}$/u, { message: "Expected 2 to 10 upper-case letters and digits, a letter first" }))
const Endpoint = text(2_048, 1).annotate({ description: "Where the agent listens: http or https", examples: ["https://agent.example.com/process"] })
  .check(Schema.makeFilter((url) => URL.canParse(url) && /^https?:$/.test(new URL(url).protocol) || "Expected an http or https URL"))
const AuthTier = Schema.Literals(["jwt_default", "buyer_key"]).annotate({
  description: "What the agent is shown: a token signed by the gateway, or the provider key that its owner has deposited"
})
const Status = Schema.Literals(["active", "paused"]).annotate({ description: "A paused agent is not listed and not called" })
const Name = text(200, 1).annotate({ description: "For people", examples: ["Summarizer Pro"] })
const Description = text(10_000).annotate({ description: "What the agent does", examples: ["Text summarization agent"] })
const Category = text(100).annotate({ description: "One word of the owner's", examples: ["Productivity"] })
const FreeTierCalls = Count(0, 1_000_000)

export const NewAgent = Schema.Struct({
  name: Name,
  ticker: Ticker,
  description: Description.pipe(orElse("")),
  category: Category.pipe(orElse("")),
  endpoint_url: Endpoint,
  service_price: Amount,
  auth_tier: AuthTier.pipe(orElse("jwt_default")),
  manifest: Schema.NullOr(NewManifest).pipe(orElse(null)),
  free_tier_calls: FreeTierCalls.pipe(orElse(0))
}).annotate(object("AutxNewAgent"))

export const AgentPatch = Schema.Struct({
  name: Schema.optionalKey(Name),
  description: Schema.optionalKey(Description),
  category: Schema.optionalKey(Category),
  endpoint_url: Schema.optionalKey(Endpoint),
  service_price: Schema.optionalKey(Amount),
  status: Schema.optionalKey(Status),
  auth_tier: Schema.optionalKey(AuthTier),
  manifest: Schema.optionalKey(Schema.NullOr(NewManifest)),
  free_tier_calls: Schema.optionalKey(FreeTierCalls)
}).annotate(object("AutxAgentPatch"))

export const ProviderKey = Schema.Struct({
  provider_key: text(4_096, 1).annotate({ description: "Sealed before it is stored, never shown again" })
    .check(Schema.isPattern(/^[\x21-\x7e]+$/u, { message: "Expected visible ASCII characters" })),
  provider: Schema.optionalKey(text(50, 1).annotate({ description: "`anthropic`: the key is sent as `x-api-key`; otherwise as a bearer token" }))
}).annotate(object("AutxProviderKey"))

export const AgentQuery = Schema.Struct({
  sort: Schema.Literals(["trending", "mcap", "apy", "new", "revenue"]).pipe(orElse("trending")),
  category: Schema.optionalKey(Category),
  q: Schema.optionalKey(text(200).annotate({ description: "Part of the name, ticker or description" })),
  owner: Schema.optionalKey(Schema.Literal("me").annotate({ description: "`me`: the caller's own agents, paused ones too" })),
  limit: Limit,
  cursor: Schema.optionalKey(AgentCursor)
})

export const Agent = Schema.Struct({
  id: Id, name: Schema.String, ticker: Schema.String, description: Schema.String, category: Schema.String,
  service_price: UsdNumber, endpoint_url: Schema.String.annotate({ description: "Empty for agents that were listed elsewhere, unless they are one's own" }), status: Schema.Literals(["active", "paused", "removed"]), auth_tier: Schema.Literals(["jwt_default", "buyer_key", "none"]), manifest: Schema.NullOr(Manifest),
  total_requests: Schema.Natural, total_revenue: UsdNumber, owner_id: Id, free_tier_calls: Schema.Natural, created_at: Timestamp,
  late_cancels_today: Schema.optionalKey(Schema.Natural.annotate({ description: "Chat turns that buyers cancelled today (UTC) after it had begun to answer; in the list of one's own agents only" }))
}).annotate({ identifier: "AutxAgent" })
export const Agents = Schema.Array(Agent)

// Orders.

export const NewOrder = Schema.Struct({
  agent_id: text(255, 1).annotate({ description: "The agent's id or ticker" }),
  prompt: text(limits.orderPromptCharsMax, 1).annotate({ description: "Goes to the agent as `prompt`", examples: ["Analyze this data"] }),
  payment_method: text(50).pipe(orElse("credits")).annotate({ description: "Kept with the order; orders are always paid from credits" })
}).annotate(object("AutxNewOrder"))

const OrderStatus = Schema.Literals(["pending", "completed", "failed"])
const orderFields = { id: Id, agent_id: Id, status: OrderStatus, amount_paid: UsdNumber, platform_fee: UsdNumber, created_at: Timestamp }

export const OrderQuery = Schema.Struct({ status: Schema.optionalKey(OrderStatus), limit: Limit, cursor: Schema.optionalKey(Cursor) })
export const CreatedOrder = Schema.Struct(orderFields).annotate({ identifier: "AutxCreatedOrder" })
export const Order = Schema.Struct({
  ...orderFields,
  prompt: Schema.String, payment_method: Schema.String,
  output_hash: Schema.NullOr(Schema.String.annotate({ description: "`sha256:` and the hex digest of `output_text`" })),
  output_text: Schema.NullOr(Schema.String), error: Schema.NullOr(Schema.String), completed_at: Schema.NullOr(Timestamp)
}).annotate({ identifier: "AutxOrder" })
export const Orders = Schema.Array(Order)

// Credits and the audit log.

export const Balance = Schema.Struct({
  balance_usd: Usd.annotate({ description: "Free to spend" }),
  reserved_usd: Usd.annotate({ description: "Held by calls in flight and pending orders" }),
  available_usdc: Usd, reserved_usdc: Usd
}).annotate({ identifier: "AutxBalance" })
export const TestDeposit = Schema.Struct({ amount: Amount }).annotate(object("AutxTestDeposit"))
export const Deposited = Schema.Struct({ balance_usd: Usd }).annotate({ identifier: "AutxDeposited" })
export const Hold = Schema.Struct({
  id: Id, amount_usd: Usd, call: Schema.Literals(["proxy", "order", "chat"]), agent_ticker: Schema.String, session_id: Schema.optional(Id),
  expires_at: Schema.NullOr(Timestamp).annotate({ description: "`null`: a pending order, which ends when its agent has answered" })
}).annotate({ identifier: "AutxHold" })
export const Holds = Schema.Array(Hold)
export const Transaction = Schema.Struct({
  id: Id,
  type: Schema.Literals(["deposit", "withdrawal", "charge", "refund", "earning", "fee"]),
  amount_usd: Usd, balance_after: Usd,
  agent_ticker: Schema.optional(Schema.String), order_id: Schema.optional(Id), session_id: Schema.optional(Id),
  created_at: Timestamp
}).annotate({ identifier: "AutxTransaction" })
export const Transactions = Schema.Array(Transaction)

export const AuditEntry = Schema.Struct({
  id: Id,
  actor: Schema.String.annotate({ description: "`user:<id>`, `key:<id>` or `operator`" }),
  action: Schema.String.annotate({ examples: ["api_key.create"] }),
  target: Schema.String,
  details: Schema.Record(Schema.String, Schema.Json),
  created_at: Timestamp
}).annotate({ identifier: "AutxAuditEntry" })
export const AuditTrail = Schema.Array(AuditEntry)

// Chat sessions.

const SessionStatus = Schema.Literals(["active", "closed"])
/** The index of the last turn on the page before. */
const TurnCursor = cursorText.pipe(Schema.decodeTo(Schema.Int, read((cursor) => {
  const index = textOf(cursor)
  return /^\d{1,9}$/.test(index) ? Number(index) : undefined
}, notACursor, (index) => cursorOf(String(index)))))
/** The id of the last session on the page before. */
const SessionCursor = cursorText.pipe(Schema.decodeTo(Schema.String, read((cursor) => {
  const id = textOf(cursor)
  return /^ses_[0-9a-f]{32}$/.test(id) ? id : undefined
}, notACursor, cursorOf)))

export const SessionQuery = Schema.Struct({ status: Schema.optionalKey(SessionStatus), limit: Limit, cursor: Schema.optionalKey(SessionCursor) })
export const TurnQuery = Schema.Struct({ limit: Limit.annotate({ description: "Turns on one page, each of two messages" }), cursor: Schema.optionalKey(TurnCursor) })

export const Session = Schema.Struct({
  id: Id, agent_ticker: Schema.String, status: SessionStatus,
  message_count: Schema.Natural.annotate({ description: "Finished turns" }), consumed_usd: Usd, started_at: Timestamp, closed_at: Schema.NullOr(Timestamp)
}).annotate({ identifier: "AutxSession" })
export const Sessions = Schema.Array(Session)
export const Messages = Schema.Array(Schema.Struct({
  role: Schema.Literals(["user", "assistant"]), content: Schema.String, order_id: Schema.optionalKey(Id), created_at: Timestamp
}).annotate({ identifier: "AutxMessage" }))
