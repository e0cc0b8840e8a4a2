#!lua flags=no-writes,allow-oom
-- get_rules: what a queue lets its workers claim, and where it stands.
--
-- KEYS: jobs running ready staged prio scheduled failing meta
-- ARGV: now
-- Returns: {rules in their stored form or "", running, ready, ms until the next due job or -1}
-- Invariants: reads only.

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, meta =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local caller = ''
-- include: meta
-- include: record
-- include: ready
-- include: promote

local due = next_due()
return {
  counters[6] or '', call('HLEN', running), ready_count(),
  due and string.format(WHOLE, math.max(0, due - now)) or -1,
}
