/**
 * What a test of chat needs around it: a gateway in a process of its own, an
 * agent that answers as it is told, somebody who sells it, and buyers.
 */
import { expect } from "vitest"
import { ChatAgent } from "./ChatAgent.ts"
import { ChatSocket } from "./ChatSocket.ts"
import type { Cluster } from "./ClusterProcesses.ts"
import { type GatewayProcess, type Person, until } from "./GatewayProcess.ts"
import { type Stage, type StageDatabase, expectCleanBooks } from "./Stage.ts"

export interface ListedAgent {
  readonly id: string
  readonly ticker: string
  readonly agent: ChatAgent
}

export interface Buyer extends Person {
  readonly key: string
}

export class ChatScene {
  readonly database: StageDatabase
  readonly seller: Person
  /** The latest one, when there were several. */
  gateway: GatewayProcess
  readonly #stage: Stage
  readonly #env: Readonly<Record<string, string>>
  readonly #sockets: Array<ChatSocket> = []

  private constructor(stage: Stage, env: Readonly<Record<string, string>>, database: StageDatabase, gateway: GatewayProcess, seller: Person) {
    this.#stage = stage
    this.#env = env
    this.database = database
    this.gateway = gateway
    this.seller = seller
  }

  static async set(stage: Stage, env: Readonly<Record<string, string>> = {}, at?: StageDatabase): Promise<ChatScene> {
    const database = at ?? await stage.database()
    const gateway = await stage.gateway({ ...database.env, ...env })
    return new ChatScene(stage, { ...database.env, ...env }, database, gateway, await gateway.person())
  }

  /** Of a cluster, whose first node is called until the test says otherwise. */
  static async among(stage: Stage, { database: { env, options }, sql, nodes }: Cluster): Promise<ChatScene> {
    const { gateway } = nodes[0]!
    return new ChatScene(stage, env, { env, options, sql }, gateway, await gateway.person())
  }

  /** Another process on the same database. */
  async restart(env: Readonly<Record<string, string>> = {}): Promise<void> {
    this.gateway = await this.#stage.gateway({ ...this.#env, ...env })
  }

  async list(price = "0.01", behave?: ChatAgent["behave"], more: object = {}): Promise<ListedAgent> {
    const agent = await new ChatAgent(behave).listen()
    this.#stage.onEnd(() => agent.close())
    const listed = await this.gateway.list(this.seller, agent.url, price)
    if (Object.keys(more).length > 0) await this.change(listed, more)
    return { ...listed, agent }
  }

  /** By the agent's owner. */
  async change({ id }: { readonly id: string }, body: object): Promise<void> {
    await this.gateway.ask(200, "PATCH", `/v1/agents/${id}`, { token: this.seller.token, body })
  }

  async buyer(usd?: string): Promise<Buyer> {
    const person = await this.gateway.person(usd)
    return { ...person, key: await this.gateway.key(person) }
  }

  async open({ ticker }: { readonly ticker: string }, token: string, sessionId?: string): Promise<ChatSocket> {
    const chat = await ChatSocket.open(this.gateway, ticker, token, sessionId)
    this.#sockets.push(chat)
    return chat
  }

  /** Authenticated or not, as the test likes. */
  async connect({ ticker }: { readonly ticker: string }): Promise<ChatSocket> {
    const chat = await ChatSocket.connect(`${this.gateway.url}/v1/ws/agent/${ticker}`)
    this.#sockets.push(chat)
    return chat
  }

  /** Every socket that is still there goes. */
  hangUp(): void {
    for (const chat of this.#sockets.splice(0)) chat.close()
  }

  /** What this buyer has once nothing of it is held, here or leased to another node, and that the books are right. */
  async expectLeft(buyer: Person, usd: string): Promise<void> {
    await until(async () => !await this.isLeased(buyer))
    let left: Awaited<ReturnType<GatewayProcess["balance"]>> | undefined
    // While the account changes hands nobody can say.
    await until(async () => (left = await this.gateway.balance(buyer).catch(() => undefined))?.reserved_usd === "0.00")
    expect(left).toEqual({ balance_usd: usd, reserved_usd: "0.00" })
    await expectCleanBooks(this.database.sql)
  }

  /** What is spent of it on another node than its own is spent from a lease. */
  async isLeased({ accountId }: Person): Promise<boolean> {
    return (await this.database.sql`select from leases where account_id = ${accountId}`).length > 0
  }

  /** Those of one buyer's sessions. */
  async charges({ accountId }: Person): Promise<number> {
    const [row] = await this.database.sql<Array<{ count: number }>>`select count(*)::int as count from transactions where account_id = ${accountId} and type = 'charge'`
    return row!.count
  }
}

export const expectNoHolds = async (gateway: GatewayProcess): Promise<void> => {
  await until(async () => await gateway.metric("tollgate_holds_open") === 0)
}
