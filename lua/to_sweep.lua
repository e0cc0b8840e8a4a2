#!lua flags=allow-oom
-- to_sweep: find the queues in which a sweep or a purge would find something.
--
-- KEYS: running staged completed failed cancelled expiring
--   of each queue in turn; only where all queues are on one node
-- ARGV: now
-- Returns: the places of those queues among the given ones, from 1
-- Invariants: reads only. Whatever runs may have lost its lease: its queue is always named.

-- include: base

local function expired(key)
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) <= now
end

local found = {}
for i = 1, #KEYS, 6 do
  if call('HLEN', KEYS[i]) > 0 or call('LLEN', KEYS[i + 1]) > 0
      or expired(KEYS[i + 2]) or expired(KEYS[i + 3]) or expired(KEYS[i + 4]) or expired(KEYS[i + 5]) then
    found[#found + 1] = (i + 5) / 6
  end
end
return found
