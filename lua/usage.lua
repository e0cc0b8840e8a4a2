#!lua flags=no-writes,allow-oom
-- usage: where groups of a queue, and the queue itself, stand by their limits.
--
-- KEYS: running meta groups
-- ARGV: now, then names of groups; "" stands for the queue, and a newline for the queue and its pause
-- Returns: for each: how many run, ms until one more may start (0: now) or -1: not before a run ends, or at all
-- Invariants: reads only.

-- include: base
local running, meta, groups = KEYS[1], KEYS[2], KEYS[3]
local caller = ''
-- include: meta
local stored = counters[6]
-- include: limits

local answer = {}
for i = 2, #ARGV do
  local name = ARGV[i]
  local data = call('HGET', groups, name)
  local limit, held, tat = group_limit, 0, 0
  if name == '' or name == '\n' then
    data = call('HGET', groups, '')
    limit, held = queue_limit, call('HLEN', running)
    if data and #data >= 14 then tat = sunpack('>I7', data, 8) end
  elseif data and #data >= 12 then
    held, tat = sunpack('>I4I7', data)
  end
  local at = limit and opens_at(limit, held, tat)
  if paused and name == '\n' then at = nil end
  answer[#answer + 1] = held
  answer[#answer + 1] = at and string.format(WHOLE, math.max(0, at - now)) or -1
end
return answer
