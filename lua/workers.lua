#!lua flags=no-writes,allow-oom
-- workers: who has been heard of lately, and how many leases each holds.
--
-- KEYS: running meta
-- ARGV: now seen_for_ms
-- Returns: for each worker: name, seen at, leases
-- Invariants: reads only.

-- include: base
local running, meta = KEYS[1], KEYS[2]
local seen_for = tonumber(ARGV[2])
-- include: record
-- include: seen

local leases = {}
for _, record in ipairs(call('HVALS', running)) do
  if sound(record) then
    local worker = parse(record).worker
    leases[worker] = (leases[worker] or 0) + 1
  end
end
-- A worker may be several callers.
local order, last = {}, {}
local fields = call('HGETALL', meta)
for i = 1, #fields, 2 do
  local name = string.match(fields[i], '^(.+)%z')
  local at = name and sunpack('>I6', fields[i + 1])
  if name and at + seen_for > now and sub(fields[i + 1], 7, 12) ~= LEFT then
    if not last[name] then order[#order + 1] = name end
    last[name] = math.max(last[name] or 0, at)
  end
end
local answer = {}
for _, name in ipairs(order) do
  answer[#answer + 1] = name
  answer[#answer + 1] = string.format(WHOLE, last[name])
  answer[#answer + 1] = leases[name] or 0
end
return answer
