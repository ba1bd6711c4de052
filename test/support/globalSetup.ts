/**
 * One throwaway PostgreSQL for a whole vitest run. Workers find its socket by
 * the environment; each test takes a database of its own (`freshDatabase`).
 */
import { testPostgres } from "./postgres.ts"

export default async (): Promise<() => Promise<void>> => {
  const server = await testPostgres()
  process.env["TOLLGATE_TEST_POSTGRES"] = server.options.host
  return server.stop
}
