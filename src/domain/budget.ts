/**
 * Budgets of one API key: at most `amount` in each UTC day, each UTC month, or
 * in all. What is held counts as if it were spent; what was spent belongs to
 * the period in which it was captured.
 */
import type { Credits } from "./credits.ts"

export type BudgetWindow = "day" | "month" | "total"

export interface Budget {
  readonly window: BudgetWindow
  readonly amount: Credits
  /** Start of the period that `spent` belongs to, epoch milliseconds (0 for a total). */
  periodStartMs: number
  spent: Credits
}

const dayMs = 86_400_000

export const periodStartMs = (window: BudgetWindow, nowMs: number): number => {
  if (window === "total") return 0
  // Without a Date: it is asked several times for each paid call. Days of this count have no leap seconds.
  if (window === "day") return nowMs - nowMs % dayMs
  const now = new Date(nowMs)
  return Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), 1)
}

/** When the period that holds `nowMs` ends; `undefined` for a total. */
export const periodEndMs = (window: BudgetWindow, nowMs: number): number | undefined => {
  if (window === "total") return undefined
  if (window === "day") return nowMs - nowMs % dayMs + dayMs
  const now = new Date(nowMs)
  return Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1)
}

/** Spent in the period of `nowMs`. A clock behind the recorded period stays in that period: budgets never refill backwards. */
export const spentAt = (budget: Budget, nowMs: number): Credits =>
  periodStartMs(budget.window, nowMs) > budget.periodStartMs ? 0n : budget.spent

/** Begins the period of `nowMs` unless the budget is in it, or past it, already. */
export const enterPeriod = (budget: Budget, nowMs: number): void => {
  const start = periodStartMs(budget.window, nowMs)
  if (start <= budget.periodStartMs) return
  budget.periodStartMs = start
  budget.spent = 0n
}

export const spend = (budget: Budget, amount: Credits, nowMs: number): void => {
  enterPeriod(budget, nowMs)
  budget.spent += amount
}

/** Gives back what was spent in the period that began at `spentPeriodMs`; nothing when that period is over. */
export const unspend = (budget: Budget, amount: Credits, spentPeriodMs: number): void => {
  if (budget.periodStartMs === spentPeriodMs) budget.spent = budget.spent > amount ? budget.spent - amount : 0n
}
