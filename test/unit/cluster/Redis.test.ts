import { Cause, Effect, Exit, Layer, Scope } from "effect"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { describe, expect, it } from "vitest"
import { openRedis } from "../../../src/cluster/Redis.ts"
import { ClusterUnusable, clusterLayer } from "../../../src/cluster/ClusterNode.ts"

const failureOf = async (redisUrl: string) => {
  const scope = Effect.runSync(Scope.make())
  const exit = await Effect.runPromiseExit(Layer.buildWithScope(clusterLayer({ redisUrl, clusterHost: "127.0.0.1", clusterPort: 0 }, "node"), scope))
  await Effect.runPromise(Scope.close(scope, Exit.void))
  return Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
}

describe("a Redis that can't be used", () => {
  it("is told in one line that has no password in it", async () => {
    const refusing = createServer((socket) => { socket.on("error", () => {}).on("data", () => socket.write("-WRONGPASS invalid username-password pair\r\n")) })
    await new Promise<void>((listening) => { refusing.listen(0, "127.0.0.1", listening) })
    const { port } = refusing.address() as AddressInfo
    const [refused, bad] = await Promise.all([
      failureOf(`redis://node:hunter2@127.0.0.1:${port}`),
      failureOf("redis://:hunter2@127.0.0.1/not-a-number")
    ])
    refusing.close()
    const nowhere = openRedis("unix://:hunter2@localhost/nowhere/redis.sock")
    let absent: unknown
    while (!/ENOENT/.test(String(absent))) {
      absent = await nowhere.listen(["channel"]).catch((cause: unknown) => cause)
      await new Promise((turn) => { setImmediate(turn) })
    }
    nowhere.close()
    for (const failure of [refused, bad]) expect(failure).toBeInstanceOf(ClusterUnusable)
    for (const failure of [refused, absent, bad]) {
      expect(JSON.stringify(failure, Object.getOwnPropertyNames(failure)) + String(failure)).not.toContain("hunter2")
      expect((failure as Error).message).not.toContain("\n")
    }
    expect((refused as Error).message).toContain("WRONGPASS")
  })

  it("refuses commands at once while it is not connected", async () => {
    const redis = openRedis("unix:///nowhere/redis.sock")
    await expect(redis.run("tell", [])).rejects.toThrow("it is not connected")
    await expect(redis.publish("channel", Buffer.from("text"))).rejects.toThrow("it is not connected")
    redis.close()
  })
})
