#!lua flags=allow-oom
-- cancel: end waiting jobs as cancelled; ask the workers of running ones to end them.
--
-- KEYS: jobs running ready staged prio scheduled failing completed failed cancelled meta lines ring groups opens expiring
-- ARGV: now caller number running channel queue, then ids
--   running  "1" to ask for running jobs too
-- Returns: one status per id, of the first at least: "X" cancelled, "N" not found, "P" processing, "A" asked,
--   "C" completed, "F" failed
-- Invariants: a cancelled job is in no live index; an element in the middle of the list becomes a blank,
--   and blanks are never most of the list.

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, completed, failed, cancelled, meta, lines, ring, groups, opens, expiring =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12],
  KEYS[13], KEYS[14], KEYS[15], KEYS[16]
local caller, number = ARGV[2], ARGV[3]
local ask, channel, queue = ARGV[4] == '1', ARGV[5], ARGV[6]
-- include: meta
-- include: seen
-- include: calls
-- include: record
-- include: ready
-- include: groups
-- include: extras
-- include: search
-- include: leave
-- include: ended

if ahead == 0 then return sub(noted, 19) end

local changed, bytes = false, 0
local function cancel(id)
  local live = call('HGET', running, id)
  if live and sound(live) then
    if not ask then return 'P' end
    local job = parse(live)
    job.cancelling = 1
    call('HSET', running, id, build(job))
    post_cancel(job.worker, id, job.fence)
    changed = true
    return 'A'
  end
  local record = call('HGET', jobs, id)
  if not record or not sound(record) or expired(record) then return 'N' end
  bytes = bytes + #record
  local job = parse(record)
  if not leave_index(job, id) then return job.state end
  finish_cancelled(job, id)
  call('HSET', jobs, id, build(job))
  changed = true
  return 'X'
end

unstage()
local status = {}
for i = 7, #ARGV do
  if bytes >= BUDGET then break end
  status[#status + 1] = cancel(ARGV[i])
end
if changed then
  drop_blanks()
  publish()
end
if grouped then save_groups(true) end
remember(table.concat(status), true)
return table.concat(status)
