/**
 * W3C Trace Context: the `traceparent` header, by which a caller's trace goes on
 * in the agent's. The gateway opens no spans of its own, so a valid one passes
 * unchanged, and one that is not must not pass (§3.2.2.3 and §4.3: the trace is
 * restarted by whoever comes next).
 */

/** Version, trace id, parent id, flags (§3.2); later versions may say more behind these. */
const form = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?$/

/** The trace's id, or `undefined` when the header is not valid. */
export const traceIdOf = (traceparent: string): string | undefined => {
  const [, version, traceId, parentId, more] = form.exec(traceparent) ?? []
  if (traceId === undefined || version === "ff" || version === "00" && more !== undefined) return undefined
  return /^0+$/.test(traceId) || /^0+$/.test(parentId!) ? undefined : traceId
}
