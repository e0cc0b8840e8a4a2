#!lua flags=no-writes,allow-oom
-- counts: how many jobs are in each state.
--
-- KEYS: jobs running ready staged prio scheduled failing completed failed cancelled meta lines
-- ARGV: now
-- Returns: {scheduled, queued, processing, failing, completed, failed, cancelled, created_at of the oldest
--   among the fronts of the priorities or -1, how many have ever ended}
-- Invariants: reads only; expired records are not counted, dead letters are.

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, completed, failed, cancelled, meta, lines =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local caller = ''
-- include: meta
-- include: record
-- include: ready
-- include: packs
-- include: count

-- Completed jobs are what is left: their index holds packs, which have no number.
local function completed_count()
  local count = call('HLEN', jobs) - ready_count() - call('HLEN', running)
  for _, key in ipairs({ scheduled, failing, failed, cancelled }) do count = count - call('ZCARD', key) end
  return math.max(0, count - count_ids(call('ZCOUNT', completed, '-inf', now)))
end

local function unexpired(key) return call('ZCOUNT', key, '(' .. string.format(WHOLE, now), '+inf') end

local oldest
local function look(element)
  local record = call('HGET', jobs, sub(element, 8))
  if record and sound(record) then
    local created = sunpack('>I6', record, SHORT[sub(record, 1, 1)] and SHORT_CREATED or CREATED)
    if not oldest or created < oldest then oldest = created end
  end
end

local function front(key)
  for from = 0, call('LLEN', key) - 1, 64 do
    for _, element in ipairs(call('LRANGE', key, from, from + 63)) do
      if element ~= '' then return element end
    end
  end
end
local first = front(staged) or front(ready)
if first then look(first) end
local score = '-inf'
while true do
  local one = call('ZRANGEBYSCORE', prio, score, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if #one == 0 then break end
  look(one[1])
  score = '(' .. one[2]
end
if grouped then
  local from = '-'
  while true do
    local member = call('ZRANGEBYLEX', lines, from, '+', 'LIMIT', 0, 1)[1]
    if not member then break end
    local priority, size = sunpack('>I2I2', member)
    look(sub(member, 6 + size)) -- of its place 6 bytes and the weight, then the id
    from = '[' .. spack('>I2', priority + 1)
  end
end
return {
  call('ZCARD', scheduled), ready_count(), call('HLEN', running), call('ZCARD', failing),
  completed_count(), unexpired(failed), unexpired(cancelled),
  oldest and string.format(WHOLE, oldest) or -1, string.format(WHOLE, ended_ever),
}
