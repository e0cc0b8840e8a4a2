#!lua flags=no-writes,allow-oom
-- workers: who has been heard of lately, and how many leases each holds.
--
-- KEYS: running workers
-- ARGV: now seen_for_ms
-- Returns: for each worker: name, seen at, leases
-- Invariants: reads only.

-- include: base
local running, workers = KEYS[1], KEYS[2]
local seen_for = tonumber(ARGV[2])
-- include: record

local leases = {}
for _, record in ipairs(call('HVALS', running)) do
  local worker = parse(record).worker
  leases[worker] = (leases[worker] or 0) + 1
end
local answer, seen = {}, call('HGETALL', workers)
for i = 1, #seen, 2 do
  local at = sunpack('>I6', seen[i + 1])
  if at + seen_for > now then
    answer[#answer + 1] = seen[i]
    answer[#answer + 1] = string.format('%.0f', at)
    answer[#answer + 1] = leases[seen[i]] or 0
  end
end
return answer
