#!lua
-- insert: create the jobs whose id is absent or may be replaced; describe the others.
--
-- KEYS: jobs running ready staged prio scheduled failing completed failed cancelled meta lines ring groups opens expiring
-- ARGV: now caller number reply_to max_length confirm runs, then the ids, then the bodies
--   reply_to    address to register for the jobs that wait; "" for none
--   max_length  most jobs that may wait, "" for no limit
--   confirm     "1" if the caller goes on to WAIT, which looks at the last write of its connection: there is
--               one then, although the jobs were found
--   runs        see lib/runs.lua, as for the bodies
-- Returns: {mark, seq of the first created, one status per job, then a record per "f", "p", "R"}: of the first jobs only,
--   where what is found is more than BUDGET bytes
--   status      "q" created ready, "s" created scheduled, "F" full, "f" found, "m" found by an earlier send of
--               this call, to be read; "p" replaced, "R" replaced and moved to the back, with a number as if it were
--               created, and these by an earlier send: "n" and "N"
-- Invariants: nothing is written unless every argument was read; see lib/create.lua for what is.

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, completed, failed, cancelled, meta, lines, ring, groups, opens, expiring =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12],
  KEYS[13], KEYS[14], KEYS[15], KEYS[16]
local caller, number = ARGV[2], ARGV[3]
local reply_to, max_length, confirm, runs = ARGV[4], tonumber(ARGV[5]), ARGV[6] == '1', ARGV[7]
-- include: meta
-- include: seen
-- include: calls
-- include: record
-- include: waiters
-- include: runs
local replacing, in_groups = looks_at(runs)
grouped = grouped or in_groups
-- include: ready
-- include: groups
-- include: packs

local FIXED = 7
local count = (#ARGV - FIXED) / 2
if jobs_in(runs) ~= count then return redis.error_reply('ERR insert: bad arguments') end

-- Noted is: seq of the first created 7, statuses.
if ahead == 0 then
  if confirm then save_meta() end
  return { named, string.format(WHOLE, sunpack('>I7', noted, 19)), (string.gsub(sub(noted, 26), '[fpR]', { f = 'm', p = 'n', R = 'N' })) }
end

local room = math.huge
if max_length then
  room = max_length - ready_count() - call('ZCARD', scheduled) - call('ZCARD', failing)
end
local list, from, budget = ARGV, FIXED, BUDGET
local renew, move, moved
if replacing then
  -- include: search
  -- include: leave
  -- include: promote
  -- include: renew
end
-- include: create
status = table.concat(status)
if grouped then save_groups(true) end
remember(spack('>I7', first) .. status)
return { named, string.format(WHOLE, first), status, unpack(found) }
