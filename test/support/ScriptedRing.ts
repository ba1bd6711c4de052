/**
 * Several gateways in this process as one cluster, without Redis: the test says
 * who owns which account, who lives, and whether news arrive. What they ask of
 * each other are plain calls, answered by the same handlers as over the wire.
 */
import { Effect, Layer } from "effect"
import { Bus, type News } from "../../src/cluster/Bus.ts"
import { type AccountHandlers, Cluster, type Peer } from "../../src/cluster/Cluster.ts"
import { Overloaded } from "../../src/domain/errors.ts"
import { Node } from "../../src/kernel/Node.ts"

interface Member {
  readonly peer: { -readonly [K in keyof Peer]: Peer[K] }
  handlers: AccountHandlers | undefined
  readonly hears: Array<(news: News) => void>
  readonly moved: Array<() => void>
  readonly leaving: Array<(isLeaving: (accountId: string) => boolean) => Promise<void>>
}

const unreachable = () => Effect.fail(new Overloaded({ what: "placement", retryAfterMs: 1_000 }))

export class ScriptedRing {
  readonly members: Array<Member> = []
  readonly dead = new Set<string>()
  /** News that nobody hears. */
  isDeaf = false
  #owner: (accountId: string) => number = () => 0
  #isMoving: (accountId: string) => boolean = () => false

  /** `owner`: the index of the node that owns an account, in the order of their starts; -1: nobody does. What moves is nobody's until its owner has let go of it. */
  async own(owner: (accountId: string) => number): Promise<void> {
    const before = this.#owner
    const leaves = (index: number) => (accountId: string): boolean => before(accountId) === index && owner(accountId) !== index
    this.#isMoving = (accountId) => before(accountId) !== owner(accountId)
    this.#moved()
    await Promise.all(this.members.flatMap(({ leaving }, index) => leaving.map((listener) => listener(leaves(index)))))
    this.seize(owner)
  }

  /** The same without anybody being asked to let go. */
  seize(owner: (accountId: string) => number): void {
    this.#owner = owner
    this.#isMoving = () => false
    this.#moved()
  }

  #moved(): void {
    for (const { moved } of this.members) for (const listener of moved) listener()
  }

  #at(accountId: string): Member | undefined {
    const member = this.#isMoving(accountId) ? undefined : this.members[this.#owner(accountId)]
    return member === undefined || this.dead.has(member.peer.nodeId) ? undefined : member
  }

  #tell(to: (member: Member) => boolean, news: News): void {
    if (this.isDeaf) return
    // As over a network: never on the turn that told it.
    setImmediate(() => { for (const member of this.members) if (to(member) && !this.dead.has(member.peer.nodeId)) for (const hear of member.hears) hear(news) })
  }

  /** One node's place in it. */
  readonly layer = Layer.unwrap(Node.use(({ id }) => Effect.sync(() => {
    const self: Member = { peer: { nodeId: id, host: "127.0.0.1", port: 1, hopPort: 0 }, handlers: undefined, hears: [], moved: [], leaving: [] }
    this.members.push(self)
    const asked = <A>(accountId: string, ask: (handlers: AccountHandlers) => A): A | ReturnType<typeof unreachable> => {
      const handlers = this.dead.has(id) ? undefined : this.#at(accountId)?.handlers
      return handlers === undefined ? unreachable() : ask(handlers)
    }
    const cluster = Cluster.of({
      isMany: true,
      ownerOf: (accountId) => {
        const owner = this.#at(accountId)
        return owner === undefined ? "moving" : owner === self ? "here" : owner.peer
      },
      peers: () => this.members.filter((member) => member !== self && !this.dead.has(member.peer.nodeId)).map(({ peer }) => peer),
      isAlive: (nodeId) => !this.dead.has(nodeId) && this.members.some(({ peer }) => peer.nodeId === nodeId),
      ask: {
        lease: (accountId, ask) => Effect.suspend(() => asked(accountId, (handlers) => handlers.lease(accountId, ask))),
        leases: (asks) => Effect.forEach(asks, ({ accountId, ask }) => Effect.result(Effect.suspend(() => asked(accountId, (handlers) => handlers.lease(accountId, ask)))), { concurrency: "unbounded" }),
        borrow: (accountId, nodeId) => Effect.suspend(() => asked(accountId, (handlers) => handlers.borrow(accountId, nodeId))),
        giveBack: (accountId, nodeId) => Effect.suspend(() => Effect.ignore(asked(accountId, (handlers) => handlers.giveBack(accountId, nodeId))))
      },
      serve: (handlers) => { self.handlers = handlers },
      onLeaving: (listener) => { self.leaving.push(listener) },
      onMoved: (listener) => { self.moved.push(listener) },
      join: (hopPort) => Effect.sync(() => { self.peer.hopPort = hopPort }),
      leave: Effect.void,
      secret: () => "0".repeat(64),
      trouble: () => undefined
    })
    const bus = Bus.of({
      tell: (news) => this.#tell((member) => member !== self, news),
      tellNode: (nodeId, news) => this.#tell((member) => member.peer.nodeId === nodeId, news),
      onNews: (listener) => { self.hears.push(listener) }
    })
    return Layer.mergeAll(Layer.succeed(Cluster, cluster), Layer.succeed(Bus, bus))
  })))
}
