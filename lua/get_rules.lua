#!lua flags=no-writes,allow-oom
-- get_rules: what a queue lets its workers claim, and where it stands.
--
-- KEYS: jobs running ready staged prio scheduled failing meta lines
-- ARGV: now
-- Returns: {rules in their stored form or "", running, ready, ms until the next due job or -1}
-- Invariants: reads only.

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, meta, lines =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local caller = ''
-- include: meta
-- include: record
-- include: ready

local function first_of(key) return tonumber(call('ZRANGE', key, '0', '0', 'WITHSCORES')[2]) end
local one, two = first_of(scheduled), first_of(failing)
local due = one and two and math.min(one, two) or one or two
return {
  counters[6] or '', call('HLEN', running), ready_count(),
  due and string.format(WHOLE, math.max(0, due - now)) or -1,
}
