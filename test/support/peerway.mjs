/**
 * For a gateway of a test: its TCP connections to 127.0.0.1 go through a Unix
 * socket of the test (TOLLGATE_TEST_PEERWAY), told first which port was meant,
 * so that the test can cut and slow the way to other nodes.
 *
 * Loaded by `NODE_OPTIONS=--import`, before the program.
 */
import { Socket } from "node:net"

const path = process.env.TOLLGATE_TEST_PEERWAY
const connect = Socket.prototype.connect

Socket.prototype.connect = function(...args) {
  // Node's own callers hand over a list that was normalized already.
  const [options, done] = Array.isArray(args[0]) ? args[0] : args
  if (typeof options !== "object" || options.host !== "127.0.0.1") return connect.apply(this, args)
  const { host, port, lookup, ...rest } = options
  connect.call(this, { ...rest, path }, ...(done ? [done] : []))
  this.write(`${port}\n`)
  return this
}
