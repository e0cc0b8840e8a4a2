#!lua flags=allow-oom
-- expire: fail jobs that have not started in time.
--
-- KEYS: jobs running ready staged prio scheduled failing failed cancelled meta lines ring groups opens expiring
-- ARGV: now caller number channel queue limit
-- Returns: their ids, each after its size (2): of the first at least, if there are any
-- Invariants: a job fails only if it was never claimed; it is in no live index then, and its waiters are told.

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, failed, cancelled, meta, lines, ring, groups, opens, expiring =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12],
  KEYS[13], KEYS[14], KEYS[15]
local caller, number = ARGV[2], ARGV[3]
local channel, queue, limit = ARGV[4], ARGV[5], tonumber(ARGV[6])
-- include: meta
-- include: seen
-- include: calls
-- include: record
-- include: extras
-- include: ready
-- include: groups
-- include: search
-- include: leave
-- include: ended
-- include: expire

if ahead == 0 then return sub(noted, 19) end
if not counters[8] or not are_late() then return '' end

unstage()
local told = expire(limit)
drop_blanks()
publish()
if grouped then save_groups(true) end
remember(told)
return told
