/**
 * Sessions chat while their sockets are cut, their frames are nonsense, their
 * agents fail, and the gateway dies: what the clients were billed, what the books
 * say, and what the agents did must agree at the end.
 */
import { setImmediate as tick } from "node:timers/promises"
import { expect, it } from "vitest"
import type { AskedTurn } from "../support/ChatAgent.ts"
import { ChatScene, expectNoHolds } from "../support/ChatScene.ts"
import { StormClient } from "../support/ChatStorm.ts"
import { until } from "../support/GatewayProcess.ts"
import { Random } from "../support/Random.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage()

const [clients, turns, kills] = process.env["TOLLGATE_FULL"] === "1" ? [500, 20, 8] : [100, 3, 3]

const requestId = (turn: AskedTurn): string => String(turn.headers["x-autx-request-id"])

it("100 sessions that are cut, talk nonsense, cancel and lose the gateway by kill -9 are billed for what is charged, charged for what was completed, and for nothing else", { timeout: 600_000 }, async () => {
  const random = new Random()
  console.info(`SEED=${random.seed}`)
  const scene = await ChatScene.set(stage, { CHAT_LATE_CANCELS_PER_DAY: "1000000", CHAT_RESUME_SECONDS: "600" })
  const completed = new Set<string>()
  const whims = random.fork()
  const listed = await scene.list("0.01", async (turn) => {
    const [pieces, fate] = [1 + whims.below(5), whims.next()]
    for (let n = 0; n < pieces; n++) {
      turn.say(`${turn.body.prompt} ${n} `)
      for (let pauses = whims.below(20); pauses > 0; pauses--) await tick()
    }
    if (fate < 0.08) return turn.die()
    completed.add(requestId(turn))
    turn.end("the end")
  })
  const buyers = await Promise.all(Array.from({ length: 5 }, () => scene.buyer("1000.00")))

  let place = Promise.resolve(scene.gateway)
  const storm = Array.from({ length: clients }, (_, n) => new StormClient(() => place, listed.ticker, buyers[n % buyers.length]!.key, random.fork()))
  let billed = 0
  const fall = async (): Promise<void> => {
    const { gateway } = scene
    place = gateway.kill9().then(() => scene.restart()).then(() => scene.gateway)
    await place
    expect(gateway.stderr()).not.toMatch(/defect|unhandled/i)
  }
  const falls: Array<Promise<void>> = []
  await Promise.all(storm.map(async (client) => {
    for (let turn = 0; turn < turns; turn++) {
      await client.turn(`turn ${turn}`, `own-${turn}`, 0.5)
      if (++billed % Math.floor(clients * turns / (kills + 1)) === 0 && falls.length < kills) falls.push(fall())
    }
  }))
  await Promise.all(falls)
  expect(falls).toHaveLength(kills)
  // What nobody waits for any more: turns that go on without their client.
  await until(async () => await scene.gateway.metric("tollgate_chat_turns_running") === 0)
  for (const client of storm) await client.close()
  expect(scene.gateway.stderr()).not.toMatch(/defect|unhandled/i)

  const orders = await scene.database.sql<Array<{ order_id: string; account_id: string; message_id: string | null; amount: string; charges: number }>>`
    select o.id as order_id, o.account_id, o.message_id, (o.amount / 1e6)::numeric(12, 2)::text as amount,
           (select count(*)::int from transactions t where t.order_id = o.id and t.type = 'charge' and t.available = -o.amount) as charges
    from orders o`
  expect(orders.filter(({ charges }) => charges !== 1)).toEqual([])
  const charged = new Map(orders.map(({ order_id, amount }) => [order_id, amount]))
  const bills = storm.flatMap((client) => client.bills)
  expect(bills.filter(({ orderId, amount }) => charged.get(orderId) !== amount)).toEqual([])
  const replayed = storm.flatMap((client) => client.replayed)
  expect(replayed.filter((orderId) => !charged.has(orderId))).toEqual([])
  // Some of the nonsense is a good message by chance; of what the clients wanted each was charged, and told, first or again.
  const wanted = orders.filter(({ message_id }) => message_id?.startsWith("own-"))
  expect(wanted).toHaveLength(clients * turns)
  const told = new Set([...bills.map(({ orderId }) => orderId), ...replayed])
  expect(wanted.filter(({ order_id }) => !told.has(order_id))).toEqual([])
  expect(orders.filter(({ order_id }) => !completed.has(order_id))).toEqual([])
  const asked = listed.agent.turns.map(requestId)
  expect(asked).toHaveLength(new Set(asked).size)
  for (const buyer of buyers) {
    const own = orders.filter(({ account_id }) => account_id === buyer.accountId).length
    await scene.expectLeft(buyer, (1_000 - own / 100).toFixed(2))
  }
  await expectNoHolds(scene.gateway)
  await scene.gateway.stop()
})
