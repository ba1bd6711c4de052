/**
 * Structured logs: one JSON object a line on standard error, written by pino.
 * Credentials never reach it: callers log ids and facts, and the paths that
 * could carry a secret are redacted all the same.
 */
import pino from "pino"

export const log = pino({
  level: process.env["LOG_LEVEL"] || "info",
  base: { pid: process.pid },
  timestamp: pino.stdTimeFunctions.isoTime,
  formatters: { level: (label) => ({ level: label }) },
  redact: {
    paths: ["authorization", "password", "key", "token", "secret", "refresh_token", "access_token", "*.authorization", "*.password", "*.token", "*.secret", "headers.cookie"],
    censor: "…"
  },
  serializers: { err: pino.stdSerializers.err }
}, pino.destination({ dest: 2, sync: false }))
