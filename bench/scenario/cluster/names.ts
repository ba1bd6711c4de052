/** What the scenario calls its figures, for the simulation, which reads them. */
export const names = {
  alone: "alone",
  nodes: (count: number): string => count === 1 ? "1 node" : `${count} nodes`,
  many: "free, many keys",
  cpu: "CPU a call",
  postgres: "PostgreSQL, CPU a call",
  perSecond: "calls/s",
  callsPerBatch: "calls a batch",
  passedOn: "calls passed on",
  asks: "lease asks per 1,000 calls",
  hop: { local: "hop: served where it arrives, CPU a call", from: "hop: CPU a call where it arrives", to: "hop: CPU a call at the owner" },
  ask: { from: "lease: CPU an ask where it is needed", to: "lease: CPU an ask at the owner", perKey: "lease: asks of a busy key and node" },
  idle: {
    cpu: "idle: CPU a second and node",
    redis: (setup: string): string => `idle: ${setup}, Redis commands a second and node`,
    redisCpu: (setup: string): string => `idle: ${setup}, Redis, CPU a second`
  },
  takeover: "takeover: from kill -9 to the slowest of its accounts is served"
} as const
