/**
 * Email addresses as names of users: one spelling each, and nothing in them
 * that a mail header, a URL or a log line could take for something else.
 */

/** RFC 5321 §4.5.3.1 with the erratum 1690. */
const charsMax = 254

// Dot-atoms of ASCII (RFC 5322 §3.2.3) at a domain name with at least two labels. Not accepted: quoted local parts,
// address literals, and unencoded international names, whose lower case and look-alikes depend on who compares them.
const atom = "[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
const label = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
const form = new RegExp(`^(?=.{1,64}@)${atom}(?:\\.${atom})*@(?:${label}\\.)+${label}$`)

/** Trimmed and in lower case; `undefined` when no such address can exist. */
export const parseEmail = (text: string): string | undefined => {
  const email = text.trim().toLowerCase()
  return email.length <= charsMax && form.test(email) ? email : undefined
}
