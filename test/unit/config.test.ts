/** What an operator may say of the database and of other nodes, and what is refused in one line. */
import { describe, expect, it } from "vitest"
import { readSettings } from "../../src/config.ts"

const shared = { DATABASE_URL: "postgres://db.test/tollgate" }

describe("DATABASE_URL", () => {
  it.each([
    "postgres://user:secret@db.test:5432/tollgate?sslmode=require",
    "postgresql://db.test/tollgate",
    "postgres:///tollgate?host=/var/run/postgresql",
    "postgres://user@/tollgate?host=/var/run/postgresql",
    "postgres://user:secret@/tollgate?host=/var/run/postgresql&port=5433"
  ])("may be %s", (url) => {
    expect(readSettings({ DATABASE_URL: url }).databaseUrl).toBe(url)
  })

  it.each([
    ["mysql://db.test/tollgate", `DATABASE_URL="mysql://db.test/tollgate" is not allowed: a URL starting with postgres:// or postgresql://`],
    ["tollgate", `DATABASE_URL="tollgate" is not allowed: a URL starting with postgres:// or postgresql://`],
    ["mysql://user:secret@/tollgate", `DATABASE_URL="…@/tollgate" is not allowed: a URL starting with postgres:// or postgresql://`]
  ])("can't be %s, and what is said of it holds no password", (url, line) => {
    expect(() => readSettings({ DATABASE_URL: url })).toThrow(line)
  })
})

describe("REDIS_URL", () => {
  it.each(["redis://:secret@redis.test:6379", "rediss://redis.test", "unix:///run/redis.sock"])("may be %s", (url) => {
    expect(readSettings({ ...shared, REDIS_URL: url }).redisUrl).toBe(url)
  })

  it("is not set for one node alone", () => {
    expect(readSettings(shared).redisUrl).toBeUndefined()
  })

  it("without a database that all nodes reach is refused", () => {
    expect(() => readSettings({ REDIS_URL: "redis://:secret@redis.test" })).toThrow(`REDIS_URL="…@redis.test" is not allowed: set together with DATABASE_URL: many nodes share one database`)
  })

  it("that is none is refused, and what is said of it holds no password", () => {
    expect(() => readSettings({ ...shared, REDIS_URL: "http://:secret@redis.test" })).toThrow(`REDIS_URL="…@redis.test" is not allowed: a URL starting with redis:// or rediss:// or unix://`)
  })
})

describe("a node among others", () => {
  it("announces this machine alone and takes a free port, unless told", () => {
    expect(readSettings(shared)).toMatchObject({ clusterHost: "127.0.0.1", clusterPort: 0 })
    expect(readSettings({ ...shared, CLUSTER_HOST: "10.0.0.7", CLUSTER_PORT: "9000" })).toMatchObject({ clusterHost: "10.0.0.7", clusterPort: 9000 })
  })

  it("has no test money and no demo by itself", () => {
    expect(readSettings({ ...shared, REDIS_URL: "redis://redis.test" })).toMatchObject({ demo: false, enableTestCredits: false, autoVerifyEmail: false })
  })
})
