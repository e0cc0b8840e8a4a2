#!lua flags=allow-oom
-- forget: delete ended jobs, dead letters included, and waiting ones.
--
-- KEYS: jobs running ready staged prio scheduled failing completed failed cancelled meta lines ring groups opens expiring
-- ARGV: now caller number channel queue, then ids
-- Returns: one status per id, of the first at least: "1" deleted, "0" not: it runs, or is not there
-- Invariants: what is deleted is in no index; the waiters of a waiting job are told that it was cancelled.

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, completed, failed, cancelled, meta, lines, ring, groups, opens, expiring =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12],
  KEYS[13], KEYS[14], KEYS[15], KEYS[16]
local caller, number = ARGV[2], ARGV[3]
local channel, queue = ARGV[4], ARGV[5]
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
-- include: packs

if ahead == 0 then return sub(noted, 19) end

local bytes = 0
local unfiled = {} -- completed jobs, by expiry
local function forget(id)
  local record = call('HGET', jobs, id)
  if not record or call('HGET', running, id) or not sound(record) then return '0' end
  bytes = bytes + #record
  local job = parse(record)
  if leave_index(job, id) then
    finish_cancelled(job, id)
    call('ZREM', cancelled, id)
  elseif kept_until(job) <= now then
    return '0'
  elseif job.state == 'C' then
    unfiled[job.mark] = unfiled[job.mark] or {}
    unfiled[job.mark][id] = true
  else
    call('ZREM', ended_keys[job.state], id)
  end
  call('HDEL', jobs, id)
  return '1'
end

unstage()
local status = {}
for i = 6, #ARGV do
  if bytes >= BUDGET then break end
  status[#status + 1] = forget(ARGV[i])
end
for expires, gone in pairs(unfiled) do unfile(expires, gone) end
drop_blanks()
publish()
status = table.concat(status)
if grouped then save_groups(true) end
remember(status, true)
return status
